"""The container lab's engine is ended while what it is known by goes away: no moment of that is an error."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.containers import machine
from lab.containers.commands import LabError, end, read_if_there, spawn_daemon, wait_until
from lab.containers.engine import Engine

LOOKS = 8000  # in which a look that asks first and reads then met the gap every time


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Return an engine whose sockets and cgroups lie below the test's folder."""
    monkeypatch.setattr(Engine, "run_folder", tmp_path / "run")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroups")
    (tmp_path / "run").mkdir()
    return Engine(tmp_path, 7, tmp_path / "runtime")


@contextmanager
def _over_and_over(act: Callable[[], None]) -> Iterator[None]:
    """Do something again and again in a thread of its own, for as long as the block lasts."""
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            act()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        sys.setswitchinterval(interval)


def test_an_engine_that_takes_its_pid_file_away_meanwhile_has_ended(engine: Engine) -> None:
    file = engine.run_folder / "docker.pid"

    def come_and_go() -> None:
        file.write_text(str(os.getpid()))
        file.unlink()

    with _over_and_over(come_and_go):
        assert {engine.pid() for _ in range(LOOKS)} == {None}


def test_the_engine_is_known_by_its_configuration_file(engine: Engine) -> None:
    words = (sys.executable, "-c", "print(flush=True); input()", str(engine.run_folder / "daemon.json"))
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        (engine.run_folder / "docker.pid").write_text(str(process.pid))
        assert engine.pid() == process.pid
        end(process.pid, 9)
    assert engine.pid() is None


def test_cgroups_that_are_removed_while_they_are_read_hold_nobody(engine: Engine, tmp_path: Path) -> None:
    top = tmp_path / "cgroups" / "pids" / engine.cgroup
    (top / "kept").mkdir(parents=True)
    (top / "kept" / "cgroup.procs").write_text("11\n12\n")

    def come_and_go() -> None:
        folder = top / "host" / "pod"
        folder.mkdir(parents=True)
        (folder / "cgroup.procs").write_text("13\n")
        (folder / "cgroup.procs").unlink()
        folder.rmdir()
        folder.parent.rmdir()

    with _over_and_over(come_and_go):
        assert all({11, 12} <= engine._members() <= {11, 12, 13} for _ in range(LOOKS // 50))


def test_a_process_that_has_ended_by_itself_needs_no_signal_and_shows_no_words() -> None:
    with subprocess.Popen(("true",)) as process:
        process.wait()
    end(process.pid, 9)
    assert read_if_there(Path(f"/proc/{process.pid}/cmdline")) is None


def test_what_cannot_be_read_for_another_reason_is_told(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_if_there(tmp_path)


def test_a_daemon_has_a_session_of_its_own_and_says_in_its_log_why_it_ended(engine: Engine) -> None:
    words = [sys.executable, "-c", "import os, sys; print(os.getsid(0), os.environ['X'], flush=True); sys.exit('no')"]
    process = spawn_daemon(words, engine.log, {"X": "given"})
    with pytest.raises(LabError, match=rf"exit code 1; the end of {engine.log}:\n{process} given\nno$"):
        wait_until("it has ended", lambda: engine._look(process), seconds=20, every=0.05)
