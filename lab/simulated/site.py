"""The site that a simulated lab plays: signing keys of its own, mirrors where a profile names none, local manifests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pysequoia import Tsk

from lab.simulated.systems import System
from lab.simulated.world import World, world_of
from shipway.cluster.profiles import merge

MANIFESTS = Path(__file__).parent / "manifests"
SOURCES = ("docker", "nvidia", "kubernetes", "cuda", "base")
MIRROR = "http://mirror.simulated"


@dataclass(frozen=True)
class Site:
    """What the cluster file must say so that hosts find everything, and the world in which they find it."""

    settings: dict[str, Any]
    world: World


def site(profile: Mapping[str, Any], system: System) -> Site:
    """Return the site for a profile.

    Vendors' keys cannot be simulated (a fingerprint is a digest), so the site signs with keys of its own and the
    cluster file pins those; manifests that the profile takes from the internet come from files instead.
    """
    keys = {title: Tsk.generate(f"SIMULATED {title} repository").extract_certificate() for title in SOURCES}
    known: Mapping[str, Any] = profile.get("sources", {}).get("apt", {})
    apt: dict[str, Any] = {}
    for title, key in keys.items():
        pinned = {"fingerprint": key.fingerprint.upper()}
        mirror = {"uri": f"{MIRROR}/apt/{title}", "suite": "./"}
        apt[title] = (
            {"key": pinned} if title in known else {**mirror, "key": {"url": f"{MIRROR}/{title}.asc", **pinned}}
        )
    base = apt.pop("base")
    names = profile.get("sources", {}).get("manifests", {})
    local = {name: {"path": str(MANIFESTS / f"{_file(name, names)}.yaml")} for name in names}
    sources = {"apt": apt, **({"manifests": local} if local else {}), **({} if known else {"base_apt": base})}
    settings: dict[str, Any] = {"sources": sources}
    if profile.get("network", {}).get("provider") == "manifests":
        settings["network"] = {"manifests": [str(MANIFESTS / "network.yaml")]}
    world = world_of(merge(profile, settings), system, {title: str(key).encode() for title, key in keys.items()})
    return Site(settings, world)


def _file(name: str, names: Mapping[str, Any]) -> str:
    """Return the file of a manifest: Calico's operator brings its definitions along until they are a file of their own."""
    alone = name == "tigera_operator" and "operator_crds" not in names
    return "tigera_operator_with_definitions" if alone else name
