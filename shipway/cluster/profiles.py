"""Profiles: version sets as data, merged under a cluster file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shipway.errors import Refused
from shipway.foreign.yaml import read_yaml

DEFAULT_PROFILE = "current"
FOLDER = Path(__file__).parent / "profile_data"
MIRRORS = Path(__file__).parent / "mirror_data"


def mirror_data(name: object) -> dict[str, Any]:
    """Return the sources of a set of mirrors, of the same shape as a cluster file; nothing for a name that is none."""
    if not isinstance(name, str) or name not in {path.stem for path in MIRRORS.glob("*.yaml")}:
        return {}  # the model refuses the name where it is no known one
    data: dict[str, Any] = read_yaml((MIRRORS / f"{name}.yaml").read_text(encoding="utf-8"))
    return data


def profile_names() -> list[str]:
    """Return the names of all profiles."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def profile_data(name: object) -> dict[str, Any]:
    """Return a profile's values, of the same shape as a cluster file; raises Refused for an unknown name."""
    if not isinstance(name, str) or name not in profile_names():
        message = f"profile: {str(name)[:60]!r} is not one of {', '.join(profile_names())}"
        raise Refused(message, code="SHW-121", fix="Name one of these profiles; docs/profiles.md says what each holds.")
    data: dict[str, Any] = read_yaml((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return data


# What of a profile goes with a value and does not hold for another one: section, key, then section, keys. `*` stands
# for any key. A repository's address alone may be a mirror of the same layout: its suite, components and key stay.
_BELONGS: tuple[tuple[tuple[str, ...], str, tuple[str, ...], tuple[str, ...]], ...] = (
    (("sources", "apt", "*"), "suite", ("sources", "apt", "*"), ("components",)),
    (("sources", "apt", "*", "key"), "url", ("sources", "apt", "*", "key"), ("path",)),
    (("sources", "apt", "*", "key"), "path", ("sources", "apt", "*", "key"), ("url",)),
    (("sources", "manifests", "*"), "url", ("sources", "manifests", "*"), ("path",)),
    (("sources", "manifests", "*"), "path", ("sources", "manifests", "*"), ("url", "sha256")),
    (("runtime",), "package", ("runtime",), ("version", "extra_packages")),
    (("network",), "version", ("sources", "manifests", "operator_crds"), ("sha256",)),
    (("network",), "version", ("sources", "manifests", "tigera_operator"), ("sha256",)),
    (("dashboard",), "version", ("sources", "manifests", "dashboard"), ("sha256",)),
)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over` put over it; mappings are merged, everything else is replaced.

    A section left empty (`runtime:` with every line commented out) changes nothing. Where `over` replaces a value, what
    belongs to the old one is not taken from `base`: a suite's components, a package's version, the SHA-256 of another
    version's manifest. A source takes either url or path: naming the one drops the other.
    """
    return _merged(_without_what_belongs_to_others(base, over), over)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return the two merged, value by value."""
    result = dict(base)
    for key, value in over.items():
        known = result.get(key)
        if value is None and isinstance(known, Mapping):
            continue
        result[key] = _merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return result


def _without_what_belongs_to_others(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return the profile's values without those that go with a value that `over` replaces by another."""
    result: dict[str, Any] = copy.deepcopy(dict(base))
    for section, key, place, siblings in _BELONGS:
        for path, given in _sections(over, section):
            known = _at(base, path)
            if given.get(key) is None or given[key] == known.get(key):
                continue
            if place != section and not _at(over, place):
                continue  # the file says nothing there: that the profile's belongs to another version is said as such
            held = _at(result, path if place == section else place)
            for sibling in siblings:
                held.pop(sibling, None)
    return result


def _sections(data: Mapping[str, Any], pattern: tuple[str, ...]) -> list[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Return path and content of every mapping at a pattern."""
    found: list[tuple[tuple[str, ...], Any]] = [((), data)]
    for part in pattern:
        found = [
            ((*path, key), value)
            for path, one in found
            for key, value in one.items()
            if part in ("*", key) and isinstance(value, Mapping)
        ]
    return found


def _at(data: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Return the mapping at a path; an empty one where there is none."""
    found: Any = data
    for part in path:
        found = found.get(part) if isinstance(found, Mapping) else None
    return found if isinstance(found, dict) else {}
