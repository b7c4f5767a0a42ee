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
        message = f"profile: {str(name)[:60]!r} is not one of {', '.join(profile_names())}"
        raise Refused(message, code="SHW-121", fix="Name one of these profiles; docs/profiles.md says what each holds.")
    data: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return data


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Give `base` with the values of `over` put over it; mappings are merged, everything else is replaced.

    A section left empty (`runtime:` with every line commented out) changes nothing. A source takes either url or
    path: naming the one drops the profile's other, and a manifest's pin with it, for a local file is another file.
    """
    result = {key: value for key, value in base.items() if key not in _dropped(over)}
    for key, value in over.items():
        known = result.get(key)
        if value is None and isinstance(known, Mapping):
            continue
        result[key] = merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return result


def _dropped(over: Mapping[str, Any]) -> set[str]:
    """Give the keys of a profile's source that do not hold for the user's."""
    if over.get("path") is not None and "url" not in over:
        return {"url", "sha256"}
    return {"path"} if over.get("url") is not None and "path" not in over else set()
