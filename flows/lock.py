"""A lock per cluster on this machine: two runs at once refuse, and a dead run's lock is gone with its process."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from shipway.errors import Refused
from shipway.kube_access import own_folder


@contextmanager
def held(path: Path, cluster: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock; `shared` for a run that only looks, so that several may, but not beside one that changes.

    Raises Refused with who holds it since when. The kernel frees it with the process, so nothing stale is left.
    """
    own_folder(path.parent)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            message = f"another run works on cluster {cluster}: {_holder(path)}"
            fix = "Wait for its end (or end that process), then run again."
            raise Refused(message, code="SHW-102", fix=fix) from error
        if not shared:
            file.seek(0)
            file.truncate()
            since = datetime.now().astimezone().isoformat(timespec="seconds")
            json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": since}, file)
            file.flush()
        yield


def _holder(path: Path) -> str:
    """Say who holds the lock; a run that only looks leaves no name."""
    try:
        who = json.loads(path.read_text(encoding="utf-8"))
        os.kill(int(who["pid"]), 0)
    except (OSError, ValueError, KeyError, TypeError):
        return "a plan is being made"
    return f"process {who['pid']} on {who['host']} since {who['since']}"
