"""The demo: a simulated lab, started as a process of its own, for a run that was given no cluster file."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from shipway.errors import Refused

MODULE = "lab"
COMMAND = (sys.executable, "-m", f"{MODULE}.simulated")
READY = "SIMULATED lab ready: "
START_SECONDS = 60.0
LATENCY = 0.1  # slow enough to follow on a screen


class Demo:
    """A simulated lab for one run; it ends with the run, or (`keep`) lives on until it is told to end.

    `latency` is how many seconds it takes for what takes a real host one.
    """

    def __init__(self, *, keep: bool = False, profile: str = "seed", latency: float = LATENCY) -> None:
        self.keep, self.profile, self.latency = keep, profile, latency
        self.folder = Path()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it, without waiting. Raises Refused in an installed Shipway, which has none."""
        if importlib.util.find_spec(MODULE) is None:
            fix = "Name a cluster file of real machines, or run `make bootstrap` in the project's folder."
            raise Refused("no SIMULATED lab belongs to an installed Shipway", code="SHW-105", fix=fix)
        self.folder = Path(tempfile.mkdtemp(prefix="shipway-simulated-"))
        words = [*COMMAND, "--state", str(self.folder), "--profile", self.profile, "--latency", str(self.latency)]
        words.append("--keep" if self.keep else "--with-parent")
        root = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
        environment = {**os.environ, "PYTHONPATH": paths}
        log = (self.folder / "lab.log").open("wb")
        with log:
            self._process = subprocess.Popen(
                words,
                env=environment,
                stdin=subprocess.DEVNULL if self.keep else subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    @property
    def pid(self) -> int:
        """The lab's process."""
        return self._process.pid if self._process else 0

    def cluster_file(self, seconds: float = START_SECONDS) -> Path:
        """Wait until it is ready, and return the cluster file it wrote; raises Refused when it does not come up."""
        ends, log = time.monotonic() + seconds, self.folder / "lab.log"
        while time.monotonic() < ends and self._process is not None:
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.startswith(READY):
                    return Path(line.removeprefix(READY).strip())
            if self._process.poll() is not None:
                break
            select.select([], [], [], 0.05)
        said = log.read_text(encoding="utf-8", errors="replace")[-800:]
        fix = "Name a cluster file of real machines, or run from the project's folder."
        raise Refused(f"the SIMULATED lab did not come up: {said}", code="SHW-105", fix=fix)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it by closing its input, unless it is to be kept."""
        if self._process is None or self.keep:
            return
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        shutil.rmtree(self.folder, ignore_errors=True)
