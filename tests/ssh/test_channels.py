"""A host takes as many sessions at once as its sshd allows: what is more waits, and no connection breaks."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import asyncssh
import pytest

from lab.simulated.options import Options
from shipway.errors import ConnectionLost, DeadlineExceeded, LoginRefused, Transient
from shipway.facts.commands import Says
from shipway.host.session import Command
from shipway.host.ssh import Pool
from tests.places.real_sshd import needs_sshd, real_sshd
from tests.places.shell_server import shell_server
from tests.places.simulated import failed, simulated_place


@needs_sshd
@pytest.mark.parametrize("allowed", ["", "MaxSessions 3", "MaxSessions 1"])
async def test_many_changes_at_once_are_all_done_over_one_connection(tmp_path: Path, pool: Pool, allowed: str) -> None:
    async with real_sshd(tmp_path, *([allowed] if allowed else [])) as sshd:
        host = pool.host(sshd.target)
        count = 24 if not allowed else 8
        paths = [tmp_path / f"done{number}" for number in range(count)]
        outputs = await asyncio.gather(*(host.do(Command(("mkdir", str(path)))) for path in paths))
        assert all(output.ok for (output,) in outputs)
        assert all(path.is_dir() for path in paths)
        assert sshd.said("Accepted publickey") == 1
        if not allowed:
            assert sshd.said("no more sessions") == 0


@needs_sshd
async def test_sessions_that_close_while_new_ones_are_asked_for_stay_within_the_limit_of_sshd(
    tmp_path: Path, pool: Pool
) -> None:
    """A loop that is busy with other hosts hears of all closes at once, and answers with as many requests."""
    async with real_sshd(tmp_path) as sshd:
        host = pool.host(sshd.target)
        await host.do(Command(("true",)))
        commands = [asyncio.create_task(host.do(Command(("sleep", "0.02")))) for _ in range(80)]
        while not all(command.done() for command in commands):
            await asyncio.sleep(0.02)
            time.sleep(0.1)  # noqa: ASYNC251 - the loop is to be busy
        assert all(output.ok for command in commands for output in command.result())
        assert sshd.said("no more sessions") == 0


@needs_sshd
async def test_an_sshd_that_allows_no_session_is_said_once_and_not_tried_again(tmp_path: Path, pool: Pool) -> None:
    async with real_sshd(tmp_path, "MaxSessions 0") as sshd:
        with pytest.raises(LoginRefused, match="opens no session") as refused:
            await pool.host(sshd.target).read(Says(("true",)))
        assert refused.value.code == "SHW-347"
        assert not refused.value.may_retry
        assert "MaxSessions" in refused.value.fix


@needs_sshd
async def test_commands_that_ran_out_of_their_time_take_no_place_for_ever(
    tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shipway.host.ssh.channels.PAUSES", (0.05, 0.05))
    async with real_sshd(tmp_path, "MaxSessions 2") as sshd:
        host = pool.host(sshd.target)
        shell = host.shell
        for _ in range(2):  # what they run goes on in their sessions, which count until it ends
            with pytest.raises(DeadlineExceeded):
                await shell.script("sleep 30\n", seconds=1)
        with pytest.raises(Transient, match="still run") as full:
            await host.read(Says(("true",)))
        assert (full.value.code, full.value.may_retry) == ("SHW-212", True)
        assert not isinstance(full.value, ConnectionLost)
        assert (await host.read(Says(("echo", "again")))).stdout == "again\n"  # on a connection of its own


@needs_sshd
async def test_a_tunnel_lives_on_where_no_session_can_be_opened_any_more(
    tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shipway.host.ssh.channels.PAUSES", (0.05,))
    async with real_sshd(tmp_path, "MaxSessions 1") as sshd:
        host = pool.host(sshd.target)
        port = await host.forward("127.0.0.1", sshd.target.port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert (await reader.readline()).startswith(b"SSH-2.0")
        with pytest.raises(DeadlineExceeded):
            await host.shell.script("sleep 30\n", seconds=1)
        with pytest.raises(Transient):
            await host.read(Says(("true",)))
        assert (await host.read(Says(("true",)))).ok
        writer.write(b"SSH-2.0-test\r\n")
        assert await reader.read(100)
        writer.close()


@needs_sshd
async def test_a_command_waits_for_its_place_outside_its_own_limit(tmp_path: Path, pool: Pool) -> None:
    async with real_sshd(tmp_path, "MaxSessions 1") as sshd:
        shell = pool.host(sshd.target).shell
        started = time.monotonic()
        await asyncio.gather(*(shell.script("sleep 3\n", seconds=14.5) for _ in range(5)))
        assert time.monotonic() - started >= 15


async def test_a_connection_that_ends_as_channels_open_is_lost_and_nothing_else(tmp_path: Path, pool: Pool) -> None:
    async with shell_server(tmp_path) as server:
        host = pool.host(server.target)
        assert (await host.read(Says(("true",)))).ok
        connection = host.shell._connection  # type: ignore[attr-defined]
        tasks = [asyncio.ensure_future(host.shell.script("sleep 2\n", seconds=20)) for _ in range(20)]
        await asyncio.sleep(0.05)
        connection.abort()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(one) for one in ended} <= {ConnectionLost, tuple}
        assert any(isinstance(one, ConnectionLost) for one in ended)


def test_what_asyncssh_calls_its_reasons_is_what_the_protocol_has() -> None:
    assert asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED == 1  # RFC 4254, 5.1
    assert asyncssh.OPEN_CONNECT_FAILED == 2
    assert asyncssh.OPEN_RESOURCE_SHORTAGE == 4


@pytest.mark.long
async def test_fifteen_workers_join_at_once_through_a_control_plane_with_stock_limits(tmp_path: Path) -> None:
    """Each join makes and deletes its token on the control plane: with ten sessions there, all were lost."""
    async with simulated_place(tmp_path, Options(hosts=16, scale=0.01)) as place:
        workers = [f"te{number}" for number in range(2, 17)]
        assert failed(await place.prepare("te1", *workers)) == []
        assert failed(await place.init()) == []
        joined = await asyncio.gather(*(place.join(worker) for worker in workers))
        assert [problem for results in joined for problem in failed(results)] == []
        assert set(workers) < set(place.ready())
