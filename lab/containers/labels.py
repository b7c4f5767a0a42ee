"""A second and a third Kubernetes for tests of upgrades: the source of 1.20.2 under other labels, built when asked for.

They stand beside the bundle's own packages and images, in repositories by minor as upstream has them since 1.24. The
bundle itself is neither built nor made current by them: who needs no upgrade waits for none of it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lab.containers import programs
from lab.containers.apt_repository import SigningKey, index
from lab.containers.bundle import require_bundle
from lab.containers.commands import LabError, say
from lab.containers.debian import Apt
from lab.containers.images_part import images
from lab.containers.kubernetes import Kubernetes, chosen
from lab.containers.kubernetes_packages import kubernetes_debs
from lab.containers.parts import KEY_FILE, Part
from lab.containers.places import Cache
from lab.containers.registry import Registry

LABELS = ("1.20.15", "1.21.0")  # the newest patch of the minor that is there, and the next minor
REPOSITORY = "kubernetes-{minor}"  # its packages, below apt/: one repository a minor


def labelled(cache: Cache) -> Part:
    """Return the part with the programs of each label, a folder each."""
    return Part(
        name="programs of other labels",
        folder=cache.part("labels"),
        recipe=f"{programs.RECIPE} {LABELS}",
        build=lambda into: programs.build_labels(Apt(cache.root / "apt" / "source", "bookworm"), into, LABELS),
    )


def require_labels(cache: Cache) -> None:
    """Build what is not current, and let the bundle offer it. Raises LabError where another Kubernetes is chosen."""
    if chosen().programs is not None:
        raise LabError(
            "the other labels are of the Kubernetes that the lab builds itself: unset SHIPWAY_LAB_KUBERNETES"
        )
    require_bundle(cache)
    part = labelled(cache)
    part.ensure()
    for folder, offer in ((cache.bundle / "apt", _offer_packages), (cache.bundle / "registry", _offer_images)):
        stamp = folder / f"{KEY_FILE}-labels"  # it goes with the folder when that is built anew
        if not stamp.is_file() or stamp.read_text() != part.key():
            offer(cache, part.folder)
            stamp.write_text(part.key())
            say(f"{folder} offers {', '.join(LABELS)}")


def _offer_packages(cache: Cache, built: Path) -> None:
    """Make a repository a minor; that of 1.20 holds what the bundle's own one does as well."""
    key = SigningKey(cache.root / "signing")
    apt, work = cache.bundle / "apt", built / "work"
    plugins = cache.part("tools") / "tools" / "usr" / "lib" / "cni"
    stand_ins = cache.part("stand-ins")
    for minor in {label.rpartition(".")[0]: None for label in LABELS}:
        folder = apt / REPOSITORY.format(minor=minor)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if chosen().version.startswith(f"{minor}."):
            for deb in (apt / "kubernetes").glob("*.deb"):
                shutil.copy(deb, folder)
        for label in (label for label in LABELS if label.startswith(f"{minor}.")):
            work.mkdir()
            for package in kubernetes_debs(Kubernetes(version=label), built / label, stand_ins, plugins):
                package.build(work, folder)
            shutil.rmtree(work)
        index(folder, folder.name, key)
    key.close()


def _offer_images(cache: Cache, built: Path) -> None:
    """Store the control plane's images of each label beside the others."""
    root = cache.bundle / "registry"
    registry, known = Registry(root), json.loads((root / "images.json").read_text())
    for label in LABELS:
        found = images(Kubernetes(version=label), built / label, cache.part("stand-ins"), cache.part("tools"))
        for image in (one for one in found if one.names[0].endswith(f":v{label}")):
            known |= dict.fromkeys(image.names, registry.add(image))
    (root / "images.json").write_text(json.dumps(known, indent=2) + "\n")
