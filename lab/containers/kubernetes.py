"""Which Kubernetes the bundle holds: 1.20.2 from Debian's source, or programs that somebody else has built."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lab.containers.commands import LabError, run
from lab.simulated.releases import minor_of

VARIABLE = "SHIPWAY_LAB_KUBERNETES"
PROGRAMS = (
    "kubeadm",
    "kubelet",
    "kubectl",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
)
_KEYS = {"version", "programs", "images", "packages", "toolkit", "device_plugin", "cluster"}
_DEBIANS = "1.20.2"
_ETCD = "etcd:3.4.13-0"  # Debian's 3.4.23 under the tag that kubeadm 1.20 asks for


@dataclass(frozen=True)
class Kubernetes:
    """One Kubernetes for the bundle; `programs` is None for the one that is built here.

    `images` are further names of images (`coredns`, `pause`, `etcd`) without a registry's host. `packages` are
    versions and dependencies that differ from upstream's. `cluster` is put over the lab's cluster file.
    """

    version: str = _DEBIANS
    programs: Path | None = None
    images: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    toolkit: str = "1.17.8-1"
    device_plugin: str = "v0.17.1"
    cluster: Mapping[str, Any] = field(default_factory=dict)

    @property
    def minor(self) -> int:
        """The minor version as a number."""
        return minor_of(self.version)

    def folder(self, built: Path) -> Path:
        """Return where the seven programs are; `built` is where they are built where nobody brings them."""
        return self.programs or built

    def recipe(self) -> str:
        """Return what the packages and images depend on beside the files here, programs by their content."""
        said = f"{self.version} {sorted(self.packages.items())} {sorted(self.images.items())}"
        files = sorted(self.programs.iterdir()) if self.programs else ()
        digests = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files if path.is_file()]
        return f"{said} {self.toolkit} {self.device_plugin} {digests}"

    def image_names(self, component: str, built: Path) -> tuple[str, ...]:
        """Return the names of an image without its registry's host, as this kubeadm asks for them.

        `component` is `etcd`, `coredns` or `pause`. kubeadm itself is asked, but for Debian's, whose names are known.
        """
        more = self.images.get(component, ())
        if self.programs is None:
            known = {"etcd": (_ETCD,), "coredns": ("coredns:1.7.0", "coredns/coredns:1.7.0"), "pause": ("pause:3.2",)}
            return (*known[component], *more)
        kubeadm = self.folder(built) / "kubeadm"
        host = "registry.example"
        words = ("config", "images", "list", f"--kubernetes-version=v{self.version}", f"--image-repository={host}")
        listed = [line.removeprefix(f"{host}/") for line in run(kubeadm, *words).split()]
        names = [name for name in listed if name.rsplit("/", 1)[-1].startswith(f"{component}:")]
        # Below the upstream registry CoreDNS has a folder of its own, below any other it has none.
        folded = [f"coredns/{name}" for name in names if component == "coredns" and "/" not in name]
        return (*names, *folded, *more)


def chosen() -> Kubernetes:
    """Return the Kubernetes that the file of $SHIPWAY_LAB_KUBERNETES describes, else the one from Debian's source.

    Raises LabError for a file that cannot be read, an unknown key, or a folder without one of the programs.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return Kubernetes()
    try:
        said = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise LabError(f"{VARIABLE}={path} cannot be read: {error}") from error
    if not isinstance(said, dict) or not {"version", "programs"} <= said.keys() or said.keys() - _KEYS:
        keys = ", ".join(sorted(_KEYS))
        raise LabError(f"{path} must name version and programs, and nothing but {keys}")
    folder = (Path(path).absolute().parent / str(said.pop("programs"))).resolve()
    missing = [name for name in PROGRAMS if not (folder / name).is_file()]
    if missing:
        raise LabError(f"{folder} has no {', '.join(missing)}; programs of {path} is the folder with all of them")
    images = {name: tuple(names) for name, names in said.pop("images", {}).items()}
    return Kubernetes(version=str(said.pop("version")), programs=folder, images=images, **said)
