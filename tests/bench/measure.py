"""Runs one command as a process tree of its own and says what it took: wall, CPU with all children, peak memory.

`python -m tests.bench.measure OUT.json LIMIT WORD...`: this process adopts what the command leaves behind, ends it, and
counts its CPU too.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, prctl(2)
EVERY = 0.25  # seconds between two looks at the memory


def _tree(root: int) -> list[int]:
    """Return all descendants of a process."""
    found, waiting = [], [root]
    while waiting:
        one = waiting.pop()
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                children = [int(word) for word in (task / "children").read_text(encoding="ascii").split()]
                found += children
                waiting += children
    return found


def _memory(pids: list[int]) -> int:
    """Return the proportional set size of processes, in bytes: shared pages are counted once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def measured(words: list[str], limit: float) -> dict[str, float]:
    """Run the command; raises subprocess.TimeoutExpired after `limit` seconds (it is ended then)."""
    if ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl: cannot adopt what the command leaves behind")
    started, peak, most, cpu = time.monotonic(), 0, 0, 0.0
    first = subprocess.Popen(words, start_new_session=True)
    status: int | None = None
    while status is None:
        pids = _tree(os.getpid())
        peak, most = max(peak, _memory(pids)), max(most, len(pids))
        until = time.monotonic() + EVERY
        while time.monotonic() < until and status is None:
            pid, code, used = os.wait4(-1, os.WNOHANG)
            if pid:
                cpu += used.ru_utime + used.ru_stime
                status = os.waitstatus_to_exitcode(code) if pid == first.pid else None
            else:
                time.sleep(0.01)
        if time.monotonic() - started > limit:
            break
    wall = time.monotonic() - started
    first.returncode = status  # reaped above
    cpu += _ended()
    if status is None:
        raise subprocess.TimeoutExpired(words, limit)
    return {"wall": wall, "cpu": cpu, "memory": peak, "processes": most, "status": status}


def _ended() -> float:
    """End what is left of the tree; return its CPU seconds."""
    cpu = 0.0
    while True:
        for pid in _tree(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            _, _, used = os.wait4(-1, 0)
        except ChildProcessError:
            return cpu
        cpu += used.ru_utime + used.ru_stime


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(measured(sys.argv[3:], float(sys.argv[2]))), encoding="utf-8")
