"""The scripts of hardening, each a file beside this one."""

from __future__ import annotations

from pathlib import Path


def script(name: str) -> str:
    """Return a script's text."""
    return (Path(__file__).parent / f"{name}.sh").read_text(encoding="utf-8")
