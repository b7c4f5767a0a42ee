"""What each GPU reached before, on this machine: a file for each below the cluster's folder, its owner's alone."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from shipway.backup.kept import write_private
from shipway.foreign.errors import describe_error
from shipway.gpu.figures.history import History, Record, read_records, write_records

FOLDER = "gpu-figures"
_NAME = re.compile(r"GPU-[0-9a-f-]{36}")


def read_history(folder: Path) -> History:
    """Return the records of every GPU that was measured, by UUID; a file that cannot be read is no history."""
    found: dict[str, list[Record]] = {}
    for path in sorted((folder / FOLDER).glob("GPU-*.json")):
        try:
            text = path.read_text(encoding="utf-8") if _NAME.fullmatch(path.stem) and not path.is_symlink() else ""
        except (OSError, UnicodeDecodeError):
            continue
        if records := read_records(text):
            found[path.stem] = records
    return found


def keep_history(folder: Path, uuid: str, records: Sequence[Record]) -> str:
    """Put a GPU's records in their place in one rename. Returns what kept from it, "" where nothing did."""
    if not _NAME.fullmatch(uuid):
        return f"{uuid!r} is no UUID of a GPU"
    place = folder / FOLDER / f"{uuid}.json"
    fresh = place.with_suffix(f".new-{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)
        write_private(fresh, write_records(records).encode())
        fresh.replace(place)
    except OSError as error:
        return f"the history of {uuid} cannot be kept in {place.parent}: {describe_error(error)}"
    return ""
