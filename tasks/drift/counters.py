"""What the error counters of hosts' links said at the last pass, kept on the controller: only growth is judged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from shipway.gpu.health.growth import Counted
from shipway.kube.access import own_folder

FILE = "gpu-counters.json"


def read_counters(folder: Path) -> dict[str, Counted]:
    """Return by host what its counters said at the last pass; nothing of a file that is not there or cannot be read."""
    try:
        kept = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {str(host): _read(one) for host, one in kept.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError):
        return {}


def _read(one: Mapping[str, Any]) -> Counted:
    of = {str(what): {str(name): int(count) for name, count in counts.items()} for what, counts in one["of"].items()}
    return Counted(float(one["at"]), float(one["booted"]), of)


def keep_counters(folder: Path, before: Mapping[str, Counted], now: Mapping[str, Counted]) -> None:
    """Write down what the counters say `now`, beside those of hosts that were not looked at; raises OSError."""
    told = {host: one for host, one in now.items() if one.at and one.of}
    if not told:
        return
    own_folder(folder)
    text = json.dumps({host: asdict(one) for host, one in {**before, **told}.items()})
    with NamedTemporaryFile("w", dir=folder, prefix=f".{FILE}.", encoding="utf-8", delete=False) as draft:
        draft.write(text)  # two passes that only look may write at once: the later one counts, whole
    Path(draft.name).replace(folder / FILE)
