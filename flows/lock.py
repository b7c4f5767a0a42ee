"""A lock per cluster on this machine: two runs at once refuse, and a dead run's lock is gone with its process."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from shipway.errors import Refused
from shipway.foreign.errors import describe_error
from shipway.kube.access import own_folder

PROBE_BYTES = 64 * 1024  # what a bootstrap keeps here: a kubeconfig, a token, its history


def writable(folder: Path) -> None:
    """Try to keep something in a folder, made where it is not there yet. Raises Refused SHW-341 where that fails."""
    try:
        own_folder(folder)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
    except OSError as error:
        message = f"state_dir cannot be written ({folder}: {error.strerror or error}): nothing was changed"
        fix = "Make room there or let this user write there, or give another `state_dir` in the cluster file."
        raise Refused(message, code="SHW-341", fix=fix) from error


@contextmanager
def hold_lock(
    path: Path, cluster: str, *, shared: bool = False, warned: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Hold the lock; `shared` for a run that only looks, so that several may, but not beside one that changes.

    Raises Refused with who holds it since when. The kernel frees it with the process, so nothing stale is left. Where
    the folder cannot be written the file is locked as it is; where there is none, the cluster's own lease is the lock,
    and `warned` hears so.
    """
    try:
        file = _open(path)
    except OSError as error:
        warned(f"no lock on this machine: {describe_error(error)}")
        yield
        return
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            message = f"another run works on cluster {cluster}: {_holder(path)}"
            fix = "Wait for its end (or end that process), then run again."
            raise Refused(message, code="SHW-102", fix=fix) from error
        if not shared:
            _sign(file, warned)
        yield


def _open(path: Path) -> IO[str]:
    """Open the lock's file, for reading alone where it cannot be written. Raises OSError where there is none."""
    try:
        own_folder(path.parent)
        return path.open("a+", encoding="utf-8")
    except OSError:
        return path.open(encoding="utf-8")


def _sign(file: IO[str], warned: Callable[[str], None]) -> None:
    """Write who holds the lock: for whoever is refused to read, it is no part of the lock."""
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    try:
        who = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), who.encode())  # at its end, as it was opened: which is its beginning now
    except OSError as error:
        warned(f"the lock's file does not say whose it is: {describe_error(error)}")


def _holder(path: Path) -> str:
    """Say who holds the lock; a run that only looks leaves no name."""
    try:
        who = json.loads(path.read_text(encoding="utf-8"))
        os.kill(int(who["pid"]), 0)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return "a plan is being made"
    return f"process {who['pid']} on {who['host']} since {who['since']}"
