"""Where the lab keeps its files: the cache that outlives a lab, and the state of one lab."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
MANIFESTS = Path(__file__).parent / "manifests"


@dataclass(frozen=True)
class Cache:
    """The cache's folders; `bundle` is what an offline site would serve, the others are made on the way to it."""

    root: Path

    @classmethod
    def default(cls) -> Cache:
        """Return $SHIPWAY_CACHE, else ~/.cache/shipway."""
        return cls(Path(os.environ.get("SHIPWAY_CACHE") or Path.home() / ".cache" / "shipway").absolute())

    @property
    def bundle(self) -> Path:
        """Return the folder that the mirror serves."""
        return self.root / "bundle"

    def part(self, name: str) -> Path:
        """Return the folder of a part that is not itself served."""
        return self.root / "parts" / name


def default_state() -> Path:
    """Return $SHIPWAY_LAB_STATE, else shipway/lab below $XDG_STATE_HOME (~/.local/state)."""
    if chosen := os.environ.get("SHIPWAY_LAB_STATE"):
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state").absolute() / "shipway" / "lab"
