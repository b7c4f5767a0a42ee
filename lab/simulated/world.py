"""What lies outside the simulated hosts: apt repositories with their keys and versions, web pages, image registries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from pysequoia import Cert

from lab.simulated.releases import offered, packages
from lab.simulated.systems import System

ARCH = "amd64"


@dataclass(frozen=True)
class Offer:
    """One version of a package that a repository offers.

    `depends` are names, with ` (= VERSION)` where exact; `conflicts` are names that may not be installed beside it.
    """

    name: str
    version: str
    depends: tuple[str, ...] = ()
    size: int = 1_000_000
    conflicts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Repository:
    """One apt repository: where it is, the key it is signed with, and what it offers."""

    uri: str
    suite: str
    fingerprint: str
    offers: tuple[Offer, ...]


def base_offers(system: System) -> tuple[Offer, ...]:
    """Return what a system's own archive offers."""
    known = dict((*system.packages, *system.offers, *system.upgradable))
    depends = {"containerd": ("runc",), "software-properties-common": ("gnupg",)}
    return tuple(Offer(name, version, depends.get(name, ())) for name, version in known.items())


def docker_offers(system: System) -> tuple[Offer, ...]:
    """Return what Docker's repository offers of what is used here."""
    client = "5:28.1.1-1~ubuntu.22.04~jammy" if system.id == "ubuntu" else "5:28.1.1-1~debian.12~bookworm"
    engine = tuple(
        Offer("containerd.io", version, (), 30_000_000, ("containerd", "runc")) for version in offered("containerd.io")
    )
    own = tuple(offer for offer in base_offers(system) if offer.name in ("containerd", "runc"))
    return (*engine, *own, Offer("docker-ce-cli", client, (), 15_000_000))


def nvidia_offers() -> tuple[Offer, ...]:
    """Return the container toolkit: its base and tools are asked for in exactly its own version."""
    offers: list[Offer] = []
    for version in offered("nvidia-container-toolkit"):
        same = f" (= {version})"
        offers += [
            Offer("libnvidia-container1", version),
            Offer("libnvidia-container-tools", version, (f"libnvidia-container1{same}",)),
            Offer("nvidia-container-toolkit-base", version),
            Offer(
                "nvidia-container-toolkit",
                version,
                (f"libnvidia-container-tools{same}", f"nvidia-container-toolkit-base{same}"),
            ),
        ]
    return tuple(offers)


def kubernetes_offers(version: str) -> tuple[Offer, ...]:
    """Return the repository of a minor version: its patch releases up to the wanted one, the tools and the plugins."""
    major, minor, patch = version.split(".")
    shape = packages(int(minor))
    offers: list[Offer] = []
    for number in range((int(patch) if shape["revision"] == "00" else max(int(patch), 14)) + 1):
        release = f"{major}.{minor}.{number}-{shape['revision']}"
        offers += [
            Offer("kubelet", release, tuple(shape["kubelet"]), 27_400_000),
            Offer("kubectl", release, (), 11_800_000),
            Offer("kubeadm", release, tuple(shape["kubeadm"]), 11_400_000),
        ]
    return (*offers, *(Offer(name, str(shape[name])) for name in ("cri-tools", "kubernetes-cni")))


def fingerprints(content: bytes) -> list[str]:
    """Return the fingerprints of the OpenPGP keys in a file, armoured or not; empty where there is none."""
    try:
        return [key.fingerprint.upper() for key in Cert.split_bytes(content)]
    except Exception:  # noqa: BLE001 - the library raises bare Exceptions for what is no key
        return []


@dataclass
class World:
    """Everything that hosts can fetch. `down` holds the beginnings of addresses that do not answer."""

    system: System
    repositories: list[Repository] = field(default_factory=list)
    pages: dict[str, bytes] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)  # beginnings of addresses that answer 403
    missing_images: set[str] = field(default_factory=set)
    proxy: str = ""  # http://NAME:PORT; where there is one, nothing answers on another way
    proxy_login: str = ""  # USER:PASSWORD that it asks for

    def answers(self, url: str, through: str = "") -> bool:
        """Say whether the server of an address answers, through a proxy or without one."""
        way = not self.proxy or (self.is_proxy(through) and self.admits(through))
        return way and not any(url.startswith(start) for start in self.down)

    def is_proxy(self, through: str) -> bool:
        """Say whether an address is that of the site's proxy, with or without credentials."""
        parts = urlsplit(through)
        return bool(self.proxy) and f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" == self.proxy

    def admits(self, through: str) -> bool:
        """Say whether the proxy takes the credentials of an address; without a login it takes any."""
        parts = urlsplit(through)
        given = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        return not self.proxy_login or given == self.proxy_login

    def connect(self, url: str, through: str) -> int:
        """Return the proxy's answer to CONNECT; 0 where none was asked for."""
        if not url.startswith("https:") or not self.is_proxy(through):
            return 0
        return 200 if self.admits(through) else 407

    def repository(self, uri: str, suite: str) -> Repository | None:
        """Return the repository at an address."""
        wanted = (uri.rstrip("/"), suite.strip("./") or "/")
        return next((repo for repo in self.repositories if (repo.uri.rstrip("/"), repo.suite) == wanted), None)

    def page(self, url: str) -> bytes | None:
        """Return what is at a web address; a repository answers at its root and with its Release file."""
        for repository in self.repositories:
            root = repository.uri.rstrip("/")
            if url.rstrip("/") == root or (url.startswith(root) and url.endswith(("Release", "InRelease"))):
                return b"SIMULATED\n"
        if url.rstrip("/").endswith("/v2") or re.fullmatch(r"https?://[^/]+/?", url):
            return b"{}"
        return self.pages.get(url)


def world_of(profile: Mapping[str, Any], system: System, keys: Mapping[str, bytes]) -> World:
    """Return the world in which a profile's sources exist and are signed with these keys (by source, armoured)."""
    version = str(profile["kubernetes"]["version"])
    major, minor, _ = version.split(".")
    fill = {"{os}": system.id, "{codename}": system.codename, "{arch}": ARCH, "{minor}": f"{major}.{minor}"}
    fill |= {"{release}": system.version_id.replace(".", ""), "{machine}": "x86_64"}
    offers = {
        "docker": docker_offers(system),
        "nvidia": nvidia_offers(),
        "kubernetes": kubernetes_offers(version),
    }
    world = World(system)
    own = base_offers(system)
    for pocket in ("", "-updates", "-security"):
        world.repositories.append(Repository(system.archive, f"{system.codename}{pocket}", "", own))
    sources: Mapping[str, Any] = profile.get("sources", {})
    base = sources.get("base_apt")
    for title, source in {**sources.get("apt", {}), **({"base": base} if base else {})}.items():
        fingerprint = str(source["key"].get("fingerprint") or "0" * 40)
        suite = _filled(str(source["suite"]), fill).strip("./") or "/"
        world.repositories.append(
            Repository(_filled(str(source["uri"]), fill), suite, fingerprint, offers.get(title, own))
        )
        url = source["key"].get("url")
        if url:
            world.pages[_filled(str(url), fill)] = keys[title]
    return world


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text
