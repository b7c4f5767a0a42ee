"""Profiles: version sets as data, merged under a cluster file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from shipway.errors import Refused

DEFAULT_PROFILE = "current"
FOLDER = Path(__file__).parent / "profile_data"


def profile_names() -> list[str]:
    """Give the names of all profiles."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def profile_data(name: object) -> dict[str, Any]:
    """Give a profile's values, of the same shape as a cluster file; raises Refused for an unknown name."""
    if not isinstance(name, str) or name not in profile_names():
        raise Refused(f"profile: {name!r} is not one of {', '.join(profile_names())}")
    data: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return data


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Give `base` with the values of `over` put over it; mappings are merged, everything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        known = result.get(key)
        result[key] = merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return result
