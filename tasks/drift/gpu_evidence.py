"""What a node was kept from pods for, as its host said it: a file on this machine, readable by its owner alone."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from shipway.backup.kept import write_private
from shipway.errors import Blocked
from shipway.foreign.errors import describe_error


def keep_evidence(folder: Path, host: str, text: str) -> str:
    """Write the evidence below a cluster's folder and return the file's name: host, time (UTC), start of its SHA-256.

    Raises Blocked where it cannot be written: without evidence no node is kept from pods.
    """
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
