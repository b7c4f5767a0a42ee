"""A real `python -m flows.bootstrap` on a SIMULATED lab: a process, its output, its report, over real SSH."""

from __future__ import annotations

import asyncio
import atexit
import fcntl
import json
import os
import shutil
import sys
import tempfile
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lab.simulated.lab import SimulatedLab
from tests.faults.left_over import left_over
from tests.places.prefect import fill

ROOT = Path(__file__).parents[2]
END_SECONDS = 240.0


@dataclass
class RealRun:
    """A bootstrap in a process of its own."""

    process: asyncio.subprocess.Process
    report_file: Path
    heard: int | None = None  # what its output is read from: the end of a pipe, or a terminal's master
    lines: bytearray = field(default_factory=bytearray)

    def leave(self) -> None:
        """Be no audience any more: a pipe has no reader then; a terminal sends SIGHUP, and EIO to who writes."""
        if self.heard is not None:
            asyncio.get_running_loop().remove_reader(self.heard)
            os.close(self.heard)
            self.heard = None

    async def ended(self, seconds: float = END_SECONDS) -> int:
        """Wait for the end, at most so many seconds; return the exit status. Raises TimeoutError."""
        return await asyncio.wait_for(self.process.wait(), seconds)

    def report(self) -> dict[str, Any]:
        """Return the report that it wrote."""
        read: dict[str, Any] = json.loads(self.report_file.read_text(encoding="utf-8"))
        return read

    def _hear(self) -> None:
        try:
            data = os.read(self.heard, 65536) if self.heard is not None else b""
        except OSError:  # a terminal whose last writer is gone says EIO
            data = b""
        self.lines += data
        if not data:
            self.leave()


@cache
def migrated() -> Path:
    """Return a home of Prefect with its database made, for each run to get a copy; never in a loop of asyncio."""
    folder = tempfile.mkdtemp(prefix="shipway-faults-prefect-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    fill(Path(folder))
    return Path(folder)


def home_in(folder: Path) -> Path:
    """Make a home of Prefect whose database is ready."""
    made = folder / "prefect"
    if not made.exists():
        shutil.copytree(migrated(), made)
    return made


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a process: nothing of Prefect's but its home, no proxy but what is given."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PREFECT_") and not name.lower().endswith("_proxy")
    }
    return {**kept, "PREFECT_HOME": str(home_in(folder)), **more}


@asynccontextmanager
async def real_run(lab: SimulatedLab, *words: str, terminal: bool = False, **more: str) -> AsyncIterator[RealRun]:
    """Bootstrap the lab in a process; `terminal` makes a terminal of its own its controlling one."""
    report = lab.folder / "report.json"
    report.unlink(missing_ok=True)
    ours, its = os.openpty() if terminal else os.pipe()

    def take_terminal() -> None:
        fcntl.ioctl(its, termios.TIOCSCTTY, 0)

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "flows.bootstrap", str(lab.cluster_file), "--report", str(report), *words),
        cwd=ROOT,
        env=environment(lab.folder, **more),
        stdin=its if terminal else asyncio.subprocess.DEVNULL,
        stdout=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=take_terminal if terminal else None,
    )
    os.close(its)
    run = RealRun(process, report, ours)
    asyncio.get_running_loop().add_reader(ours, run._hear)
    try:
        yield run
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        run.leave()


async def after_commands(lab: SimulatedLab, run: RealRun, count: int) -> None:
    """Wait until the hosts ran so many commands."""
    while sum(len(host.ran) for host in lab.hosts.values()) < count:
        assert run.process.returncode is None, f"it ended before: {run.lines.decode(errors='replace')[-2000:]}"
        await asyncio.sleep(0.005)


async def ended_well(lab: SimulatedLab, run: RealRun, seconds: float = END_SECONDS) -> None:
    """Expect that the run ends with 0 in so many seconds, its report says ok, and nothing of it is left."""
    status = await run.ended(seconds)
    said = run.lines.decode(errors="replace")[-3000:]
    assert status == 0, said
    assert "Traceback" not in said, said
    assert run.report()["outcome"] == "ok", run.report()["errors"]
    assert left_over(lab) == []
