"""What repairs were done when, kept on the controller: who fights over a setting, and how drift goes over time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from shipway.kube.access import own_folder

FIGHT, DAY = 3, timedelta(hours=24)
CLOCKS = timedelta(minutes=5)  # what this machine's clock may have been set back by since
PASSES, REPAIRS = 200, 2000  # kept; at a pass every 30 minutes these are four days


class History:
    """Passes and repairs of one cluster in a file of its own; a file that cannot be read begins anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept = self._read()

    def _read(self) -> dict[str, list[Any]]:
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            return {
                "passes": [_pass(one) for one in kept["passes"]],
                "repairs": [(str(host), str(step), str(when)) for host, step, when in kept["repairs"]],
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError):
            return {"passes": [], "repairs": []}

    def keep(self, counts: Mapping[str, int], repaired: Sequence[tuple[str, str]], now: datetime) -> None:
        """Add a pass: how many findings came to each end, and the (host, step's id) that were repaired; write the file.

        Raises OSError.
        """
        when = now.isoformat(timespec="seconds")
        self._kept["passes"] = [*self._kept["passes"], {"when": when, **counts}][-PASSES:]
        before = [one for one in self._kept["repairs"] if not _ahead(one[2], now)]  # a clock was wrong: nobody's past
        self._kept["repairs"] = [*before, *((host, step, when) for host, step in repaired)][-REPAIRS:]
        own_folder(self._path.parent)
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps(self._kept), encoding="utf-8")
        draft.replace(self._path)

    def fights(self, now: datetime) -> dict[tuple[str, str], int]:
        """Return what was repaired three times and more within a day, and how often: something else owns it."""
        recent = Counter((host, step) for host, step, when in self._kept["repairs"] if _within(when, now))
        return {key: count for key, count in recent.items() if count >= FIGHT}

    def trend(self, passes: int) -> list[dict[str, Any]]:
        """Return the last passes, oldest first: `when`, and how many findings came to each end."""
        return list(self._kept["passes"][-passes:])


def _pass(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pass of the file as it was written; raises ValueError, TypeError, KeyError for anything else."""
    return {"when": str(one["when"]), **{str(end): int(count) for end, count in one.items() if end != "when"}}


def _within(when: str, now: datetime) -> bool:
    """Say whether a time lies within the last day; one in the future does not, but for what clocks differ by."""
    try:
        return -CLOCKS <= now - datetime.fromisoformat(when) <= DAY
    except (ValueError, TypeError, OverflowError):
        return False


def _ahead(when: str, now: datetime) -> bool:
    try:
        return now - datetime.fromisoformat(when) < -CLOCKS
    except (ValueError, TypeError, OverflowError):
        return True
