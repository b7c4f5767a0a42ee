"""The bundle: everything a lab's hosts install from, built from Debian's binary and source packages alone."""

from __future__ import annotations

import fcntl
import json
import time

from lab.containers import apt_part, host_image, images_part, programs
from lab.containers.commands import say
from lab.containers.debian import Apt
from lab.containers.kubernetes import chosen
from lab.containers.parts import Part
from lab.containers.places import ASSETS, Cache

HERE = ASSETS.parent


def parts(cache: Cache) -> list[Part]:
    """Return the bundle's parts in building order; each is rebuilt only when its own inputs change."""
    apt_state = cache.root / "apt"
    kubernetes = chosen()
    built = Part(
        name="programs",
        folder=cache.part("programs"),
        recipe=programs.RECIPE,
        build=lambda into: programs.build_programs(Apt(apt_state / "source", "bookworm"), into),
    )
    programs_part = () if kubernetes.programs else (built,)
    stand_ins = Part(
        name="stand-ins",
        folder=cache.part("stand-ins"),
        recipe="1",
        build=lambda into: programs.build_stand_ins(Apt(apt_state / "source", "bookworm"), into),
        files=(ASSETS / "go",),
    )
    host = Part(
        name="host image",
        folder=cache.bundle / "host",
        recipe=host_image.RECIPE,
        build=host_image.build_host_image,
        files=(ASSETS / "host",),
    )
    tools = Part(
        name="tools",
        folder=cache.part("tools"),
        recipe=f"{images_part.TOOLS} {images_part.PROXY_TOOLS} 2",
        build=lambda into: images_part.download_tools(apt_state, into),
    )
    downloads = Part(
        name="downloads",
        folder=cache.part("downloads"),
        # Depends on which packages the hosts have, not on the files that the lab adds to them.
        recipe=f"{apt_part.RECIPE} {host_image.RECIPE}",
        build=lambda into: apt_part.download(apt_state, host.folder / "dpkg-status", into),
    )
    repositories = Part(
        name="apt repositories",
        folder=cache.bundle / "apt",
        recipe=f"1 {kubernetes.recipe()}",
        build=lambda into: apt_part.build_repositories(
            into,
            kubernetes=kubernetes,
            programs=kubernetes.folder(built.folder),
            stand_ins=stand_ins.folder,
            downloads=downloads.folder,
            cni_plugins=tools.folder / "tools" / "usr" / "lib" / "cni",
            signing=cache.root / "signing",
        ),
        files=tuple(
            HERE / name
            for name in (
                *("apt_part.py", "apt_repository.py", "deb_builder.py", "kubernetes_packages.py"),
                *("nvidia_packages.py", "assets/kubernetes", "assets/nvidia"),
            )
        ),
        needs=(*programs_part, stand_ins, downloads, tools),
    )
    images = Part(
        name="images",
        folder=cache.bundle / "registry",
        recipe=f"{images_part.RECIPE} {kubernetes.recipe()}",
        build=lambda into: images_part.build_registry(
            into,
            kubernetes=kubernetes,
            programs=kubernetes.folder(built.folder),
            stand_ins=stand_ins.folder,
            tools=tools.folder,
        ),
        files=(HERE / "images_part.py", HERE / "registry.py", ASSETS / "images"),
        needs=(*programs_part, stand_ins, tools),
    )
    mirror = Part(
        name="mirror tools",
        folder=cache.bundle / "tools",
        recipe="1",
        build=lambda into: images_part.build_mirror_tools(into, tools=tools.folder),
        files=(ASSETS / "mirror",),
        needs=(tools,),
    )
    return [host, tools, downloads, stand_ins, *programs_part, repositories, images, mirror]


def build_bundle(cache: Cache, *, refresh: bool = False) -> bool:
    """Build what is not current; gives whether anything was built. `refresh` fetches Debian's newest packages.

    Raises LabError with the failing program's last lines.
    """
    started = time.monotonic()
    cache.root.mkdir(parents=True, exist_ok=True)
    with (cache.root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits, and then finds everything built
        built = _ensure(cache, refresh=refresh)
    took = time.monotonic() - started
    say(f"bundle {cache.bundle}: {f'built in {took:.0f} s' if built else 'up to date'}")
    return built


def _ensure(cache: Cache, *, refresh: bool) -> bool:
    built = False
    for part in parts(cache):
        if refresh and part.name in {"host image", "tools", "downloads"}:
            (part.folder / ".key").unlink(missing_ok=True)
            built = True
        built = part.ensure() or built
    if built:
        describe(cache)
    return built


def describe(cache: Cache) -> None:
    """Write bundle.json: versions, the archive key's fingerprint, the repositories and the images."""
    apt = cache.bundle / "apt"
    content = {
        "kubernetes": chosen().version,
        "key_fingerprint": (apt / "fingerprint").read_text().strip(),
        "apt": sorted(path.name for path in apt.iterdir() if path.is_dir()),
        "images": json.loads((cache.bundle / "registry" / "images.json").read_text()),
    }
    (cache.bundle / "bundle.json").write_text(json.dumps(content, indent=2) + "\n")


def require_bundle(cache: Cache) -> None:
    """Build the bundle where it is not current."""
    if not all(part.current() for part in parts(cache)):
        build_bundle(cache)
