"""What works on a host beside a pod that holds its GPUs: it ends with the pod, with the run, and with a lost word."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from shipway.errors import ConnectionLost
from shipway.gpu import beside
from shipway.gpu.beside import run_beside
from shipway.host.command import Command
from shipway.host.session import Host
from shipway.script import Output

# Says the number of a process that ends at no TERM, and of one that ends by itself.
WORK = 'trap \'\' TERM; cat >"$0.fed"; sleep 600 & echo $! >"$0"; wait; while :; do sleep 1; done'


class Machine:
    """This machine in a host's place; `cut` is a link that carries nothing any more."""

    name = "te2"

    def __init__(self) -> None:
        self.cut = False
        self.commands: list[tuple[str, ...]] = []

    async def do(self, *commands: Command) -> list[Output]:
        """Run one, as sshd does: who is cancelled leaves it running."""
        (command,) = commands
        if self.cut:
            raise ConnectionLost("the link is cut", host=self.name)
        self.commands.append(command.words)
        pipe = asyncio.subprocess.PIPE
        ran = await asyncio.create_subprocess_exec(*command.words, stdin=pipe, stdout=pipe, stderr=pipe)
        out, err = await ran.communicate(command.feed)
        if self.cut:
            raise ConnectionLost("the link was cut", host=self.name)
        return [Output(ran.returncode or 0, out.decode(), err.decode())]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(beside, "LOOK_SECONDS", 0.2)
    return Machine()


def text_of(file: Path) -> str:
    """Return what is in a file, nothing of none."""
    return file.read_text() if file.exists() else ""


def there(folder: Path, pattern: str = "*") -> list[str]:
    """Return the names in a folder."""
    return [path.name for path in folder.glob(pattern)]


def begun(machine: Machine, file: Path, holds: Callable[[], Awaitable[bool]]) -> asyncio.Task[Output]:
    """Begin such work; it writes its number into the file."""
    command = Command(("bash", "-c", WORK, str(file)), seconds=300, feed=b"the program")
    return asyncio.create_task(run_beside(cast("Host", machine), command, holds, folder=str(file.parent)))


async def number_in(file: Path) -> int:
    """Return the number of the process that the work started, once it has."""
    async with asyncio.timeout(60):
        while not text_of(file).strip():  # noqa: ASYNC110 - a shell writes it
            await asyncio.sleep(0.05)
    return int(text_of(file))


def lives(process: int) -> bool:
    """Say whether a process is at work."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def always() -> bool:
    """Hold the GPUs."""
    return True


async def test_what_ends_by_itself_says_all_and_leaves_nothing(machine: Machine, tmp_path: Path) -> None:
    command = Command(("sh", "-c", 'cat; echo "$0"; exit 0', "word"), feed=b"fed ")
    output = await run_beside(cast("Host", machine), command, always, folder=str(tmp_path))
    assert output.stdout == "fed word\n"
    assert there(tmp_path) == []


@pytest.mark.long
async def test_it_ends_before_a_run_that_is_cancelled_lets_its_pods_go(machine: Machine, tmp_path: Path) -> None:
    work = begun(machine, tmp_path / "number", always)
    process = await number_in(tmp_path / "number")
    assert text_of(tmp_path / "number.fed") == "the program"
    assert lives(process)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert not lives(process)
    assert there(tmp_path, "gpus-*") == []


@pytest.mark.long
async def test_it_ends_once_no_pod_holds_the_gpus_any_more(machine: Machine, tmp_path: Path) -> None:
    held = [True]

    async def look() -> bool:
        return held[0]

    work = begun(machine, tmp_path / "number", look)
    process = await number_in(tmp_path / "number")
    held[0] = False
    output = await work
    assert not lives(process)
    assert "no pod of it holds the GPUs" in output.stdout


@pytest.mark.long
@pytest.mark.parametrize("why", ["cut", "API"])
async def test_it_ends_where_nobody_says_that_it_may_go_on(
    why: str, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link is cut, or the API does not tell whether the pod runs; until it has ended the run keeps its pods."""
    monkeypatch.setattr(beside, "QUIET_SECONDS", 3)

    async def look() -> bool:
        if why == "API":
            raise ConnectionLost("no answer")
        return True

    work = begun(machine, tmp_path / "number", look)
    process = await number_in(tmp_path / "number")
    machine.cut = why == "cut"
    try:
        said: Any = (await work).stdout
    except ConnectionLost as error:
        said = str(error)
    assert not lives(process)
    assert ("the link was cut" if machine.cut else "silent for 3 s") in said


@pytest.mark.long
async def test_a_guard_to_which_nobody_listens_any_more_leaves_nothing(tmp_path: Path) -> None:
    """Its run was killed: what it would say ends it by SIGPIPE, with its files still there (as was seen)."""
    path = tmp_path / "gpus-1"
    path.touch()
    gone, pipe = os.pipe()
    words = ("bash", "-c", beside.GUARD, str(path), "30", "sleep", "1.5")
    ran = await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    os.close(pipe)
    os.close(gone)
    await asyncio.wait_for(ran.wait(), 60)
    assert there(tmp_path) == []


async def test_what_was_told_to_end_before_it_began_does_not_begin(tmp_path: Path) -> None:
    path = tmp_path / "gpus-1"
    words = ("bash", "-c", beside.GUARD, str(path), "3", "touch", str(tmp_path / "begun"))
    (output,) = await Machine().do(Command(words))
    assert "before it began" in output.stdout
    assert there(tmp_path) == []
