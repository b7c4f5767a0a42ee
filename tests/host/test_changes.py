"""Changes over real SSH and a real shell: looked at in their own exchange, files together, nothing taken as seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from shipway.converge import converge
from shipway.edits.files import FileEdited, FileIs
from shipway.errors import CommandFailed
from shipway.facts.files import FileState, FileText
from shipway.host.session import Command, Host
from shipway.host.ssh import Pool
from shipway.step import Check, Drift, Impact
from tests.places.shell_server import shell_server


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with shell_server(tmp_path) as server:
        pool = Pool()
        yield pool.host(server.target)
        await pool.close()


@dataclass(frozen=True)
class Touched:
    """A file is made by a command; `lies` makes the command do nothing and end with 0."""

    impact: ClassVar[Impact] = Impact.FILES
    path: str
    lies: bool = False
    name: str = "a command has run"

    async def check(self, on: Host) -> Drift | None:
        """Look for the file."""
        return None if await on.read(FileState(self.path)) else Drift("no file", self.path)

    async def apply(self, on: Host) -> None:
        """Run it."""
        await on.do(Command(("true",) if self.lies else ("touch", self.path)))


def file(folder: Path, name: str, text: str = "as wanted\n") -> FileIs:
    owner = f"{folder.owner()}:{folder.group()}"
    return FileIs(f"{name} is as wanted", str(folder / name), text, owner=owner)


async def test_files_beside_each_other_cost_one_exchange_with_the_look_after_it(host: Host, tmp_path: Path) -> None:
    (tmp_path / "edited").write_text("one\n")
    edited = FileEdited("edited", str(tmp_path / "edited"), lambda text: text.replace("one", "two"), "two")
    steps: list[Check[Host]] = [file(tmp_path, "a"), edited, file(tmp_path, "empty", ""), file(tmp_path, "b/c")]
    results = await converge(steps, host, Impact.FILES)
    assert [result.outcome for result in results] == ["changed"] * 4
    assert (tmp_path / "edited").read_text() == "two\n"
    assert (tmp_path / "b/c").read_text() == (tmp_path / "a").read_text() == "as wanted\n"
    assert (tmp_path / "empty").read_bytes() == b""
    assert host.round_trips == 2
    assert {result.outcome for result in await converge(steps, host, Impact.FILES)} == {"ok"}
    assert host.round_trips == 2, "what was looked at after the change is known"


async def test_each_command_costs_one_exchange_with_the_look_after_it(host: Host, tmp_path: Path) -> None:
    steps: list[Check[Host]] = [Touched(str(tmp_path / name)) for name in "abc"]
    results = await converge(steps, host, Impact.FILES)
    assert [result.outcome for result in results] == ["changed"] * 3
    assert host.round_trips == 1 + 3


async def test_a_command_that_did_nothing_is_found_out_by_the_look_in_its_own_exchange(
    host: Host, tmp_path: Path
) -> None:
    steps: list[Check[Host]] = [Touched(str(tmp_path / "a"), lies=True), file(tmp_path, "b")]
    first, second = await converge(steps, host, Impact.FILES)
    assert (first.outcome, second.outcome) == ("failed", "unknown")
    assert "applied, and yet: have no file" in str(first.error)
    assert host.round_trips == 2
    assert not (tmp_path / "b").exists()


async def test_a_file_that_cannot_be_written_keeps_none_of_the_others_from_its_place(
    host: Host, tmp_path: Path
) -> None:
    (tmp_path / "not-a-folder").write_text("")
    steps: list[Check[Host]] = [file(tmp_path, "a"), file(tmp_path, "not-a-folder/b"), file(tmp_path, "c")]
    later = Touched(str(tmp_path / "later"))
    results = await converge([*steps, later], host, Impact.FILES)
    assert [result.outcome for result in results] == ["changed", "failed", "changed", "unknown"]
    assert isinstance(results[1].error, CommandFailed)
    assert "not-a-folder" in str(results[1].error)
    assert (tmp_path / "c").read_text() == "as wanted\n"
    assert not (tmp_path / "later").exists()


async def test_a_file_whose_place_is_a_folder_keeps_none_of_the_others_from_theirs(host: Host, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    modes = {"a": "644", "b": "600", "c": "640"}
    asked = [host.write(str(tmp_path / name), name.encode(), mode=mode) for name, mode in modes.items()]
    first, second, third = await asyncio.gather(*asked, return_exceptions=True)
    assert (first, third) == (None, None)
    assert isinstance(second, CommandFailed)
    assert "mv -fT" in str(second)
    assert [(tmp_path / name).read_text() for name in "ac"] == ["a", "c"]
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ac"] == [0o644, 0o640]
    assert host.round_trips == 2, "all of them, and what was left"


async def test_two_contents_for_one_file_are_written_one_after_the_other(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "file"
    await asyncio.gather(host.write(str(path), b"one"), host.write(str(path), b"two"))
    assert path.read_bytes() == b"two"
    assert host.round_trips == 2


async def test_files_written_at_once_share_an_input_and_each_takes_its_own_bytes(host: Host, tmp_path: Path) -> None:
    contents = {tmp_path / f"file{n}": bytes([n]) * (n * 70_001) + b"\x00end" for n in range(5)}
    await asyncio.gather(*(host.write(str(path), text, mode="600") for path, text in contents.items()))
    assert {path: path.read_bytes() for path in contents} == contents
    assert host.round_trips == 1


async def test_nothing_is_taken_as_seen_where_two_changes_of_a_host_overlap(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    assert await host.seen_by(path).read(FileText(str(path))) == "before"
    with host.changing([path]) as changed:
        slow = Command(("sh", "-c", 'sleep 0.3; printf after > "$0"', str(path)))
        await asyncio.gather(changed.do(Command(("true",))), changed.do(slow))
    assert await host.read(FileText(str(path))) == "after"
    assert host.round_trips == 4


async def test_a_change_outside_a_step_looks_at_nothing_and_forgets_what_was_known(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    assert await host.read(FileText(str(path))) == "before"
    await host.do(Command(("sh", "-c", 'printf after > "$0"', str(path))))
    assert await host.read(FileText(str(path))) == "after"
    assert host.round_trips == 3


async def test_a_cut_after_a_change_loses_no_error_and_keeps_nothing_stale(tmp_path: Path) -> None:
    async with shell_server(tmp_path) as server:
        pool = Pool()
        host = pool.host(server.target)
        steps: list[Check[Host]] = [Touched(str(tmp_path / "a"))]
        await converge(steps, host, Impact.NOTHING)
        host.forget()
        looked = [await step.check(host.seen_by(step)) for step in steps]
        server.cut_after = 0.0
        with pytest.raises(Exception, match="connection broke"), host.changing(steps) as changed:
            await changed.do(Command(("touch", str(tmp_path / "a"))))
        assert looked != [None]
        (result,) = await converge(steps, host, Impact.FILES)
        assert result.outcome == "changed"
        await pool.close()
