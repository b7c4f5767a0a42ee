"""Facts about which Kubernetes a host has: its programs' versions, and the images of its static pods."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from shipway.facts.fact import Fact, Words
from shipway.script import Output

_VERSION = re.compile(r"\bv(\d{1,4}\.\d{1,4}\.\d{1,5})")
_ASK = {"kubelet": ("--version",), "kubeadm": ("version", "-o", "short")}
_IMAGE = re.compile(r"^(\S+)/([a-z-]+)\.yaml:\s*-?\s*image:\s*[\"']?([^\s\"']+)", re.MULTILINE)


@dataclass(frozen=True)
class ProgramVersion(Fact[str]):
    """What a program of Kubernetes says that it is, without the v (1.36.2); empty where it is not there.

    `program` is `kubelet` or `kubeadm`, `path` another place than the usual one.
    """

    program: str
    path: str = ""

    def words(self) -> Words:
        """Ask it; a kubelet that is only asked reads no configuration."""
        return ("timeout", "-k", "2", "20", self.path or self.program, *_ASK[self.program])

    def parse(self, output: Output) -> str:
        """Return the version."""
        found = _VERSION.search(output.stdout) if output.ok else None
        return found[1] if found else ""


@dataclass(frozen=True)
class StaticPodImages(Fact[Mapping[str, str]]):
    """The image that each manifest of a folder names, by the manifest's name."""

    folder: str

    def words(self) -> Words:
        """Search all of them at once."""
        return ("sh", "-c", 'grep -sHE "^ *-? *image:" "$1"/*.yaml; exit 0', "sh", self.folder)

    def parse(self, output: Output) -> Mapping[str, str]:
        """Return the first image of each."""
        found: dict[str, str] = {}
        for _, name, image in _IMAGE.findall(output.stdout):
            found.setdefault(name, image)
        return found


def tag_of(image: str) -> str:
    """Return v1.36.2 of registry.k8s.io/kube-apiserver:v1.36.2; empty for an image without a tag."""
    name = image.partition("@")[0]
    return name.rpartition(":")[2] if ":" in name.rpartition("/")[2] else ""
