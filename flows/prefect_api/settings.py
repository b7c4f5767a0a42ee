"""Prefect's settings of its API as Prefect reads them, without importing it: that takes seconds, and fixes them."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from shipway.errors import Refused
from shipway.foreign.errors import describe_error

PREFIX = "PREFECT_"


def setting(name: str) -> str:
    """Return a setting, "" where none is made, from the first place that has it, in Prefect's order.

    These are the environment, `.env`, `prefect.toml` and `pyproject.toml` of the current folder, and the active profile
    (Prefect's documentation, "Settings and profiles": Sources and precedence). Raises Refused for a broken file.
    """
    if value := os.environ.get(name):
        return value
    group, _, key = name.removeprefix(PREFIX).lower().partition("_")
    tables = (
        _dotenv().get(name),
        _table(Path("prefect.toml"), group).get(key),
        _table(Path("pyproject.toml"), "tool", "prefect", group).get(key),
        _profile().get(name),
    )
    return next((str(value) for value in tables if value not in (None, "")), "")


def _dotenv() -> dict[str, str]:
    """Return the assignments of `.env`."""
    try:
        lines = Path(".env").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    pairs = (line.strip().removeprefix("export ").partition("=") for line in lines if not line.startswith("#"))
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}


def _table(path: Path, *keys: str) -> dict[str, Any]:
    """Return a table of a TOML file, empty where either is not there. Raises Refused."""
    try:
        found: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise Refused(
            f"Prefect's settings in {path} cannot be read: {describe_error(error)}", code="SHW-103"
        ) from error
    for key in keys:
        found = found.get(key, {}) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}


def _profile() -> dict[str, Any]:
    """Return the settings of the active profile. Raises Refused."""
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    active = os.environ.get("PREFECT_PROFILE") or str(_table(path).get("active", ""))
    return _table(path, "profiles", active)
