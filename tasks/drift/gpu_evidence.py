"""What a node was kept from pods for, as its host said it: a file on this machine, readable by its owner alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from shipway.backup.kept import write_private
from shipway.errors import Blocked
from shipway.foreign.errors import describe_error
from shipway.gpu.figures.history import write_records
from tasks.figures.kept import read_history


def keep_evidence(folder: Path, host: str, text: str, uuids: Sequence[str] = ()) -> str:
    """Write the evidence below a cluster's folder and return the file's name: host, time (UTC), start of its SHA-256.

    What these GPUs reached when they were last measured stands in it too, with what they reached at first.
    Raises Blocked where it cannot be written: without evidence no node is kept from pods.
    """
    text += _figures(folder, uuids)
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    name = f"{host}-{now}-{sha256(text.encode()).hexdigest()[:12]}.txt"
    place = folder / "gpu-evidence"
    try:
        write_private(place / name, text.encode())
    except OSError as error:
        raise Blocked(
            f"the evidence cannot be kept: {describe_error(error)}", fix=f"Make room for, or rights to, {place}."
        ) from error
    return name


def _figures(folder: Path, uuids: Sequence[str]) -> str:
    """Return what was measured of GPUs, the first time and the last; "" where none of them was."""
    history = read_history(folder)
    kept = {uuid: history[uuid] for uuid in uuids if uuid in history}
    told = [f"{uuid}:\n{write_records([one[0], *one[1:][-1:]])}" for uuid, one in kept.items()]
    return f"=== what was measured of them, first and last ===\n{''.join(told)}" if told else ""
