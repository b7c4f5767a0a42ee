"""A host behind a jump host is reached through it, keys and host keys are checked on both, trouble names which one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from shipway.cluster_file import parse_cluster
from shipway.errors import HostKeyUnknown, LoginRefused, Unreachable
from shipway.facts.commands import Says
from shipway.host.ssh import Pool
from shipway.host.target import Target
from tests.places.crowd import reached
from tests.places.real_sshd import needs_sshd, real_sshd
from tests.places.shell_server import Server, shell_server


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Server, Server]]:
    for name in ("gate", "inner"):
        (tmp_path / name).mkdir()
    async with shell_server(tmp_path / "gate") as gate, shell_server(tmp_path / "inner") as inner:
        yield gate, inner


def behind(gate: Server, inner: Server) -> Target:
    """Return the target that a cluster file with a jump host means."""
    known = gate.folder.parent / "known_hosts"
    known.write_text("\n".join((one.folder / "known_hosts").read_text() for one in (gate, inner)) + "\n")
    to, through = inner.target, gate.target
    text = f"""
name: demo
hosts: [{{name: inner, address: 127.0.0.1, ssh: {{port: {to.port}, key: {to.key}}}}}]
ssh:
  known_hosts: {known}
  connect_seconds: 5
  jump: {{address: 127.0.0.1, port: {through.port}, user: root, key: {through.key}}}
"""
    cluster = parse_cluster(text)
    return cluster.target(cluster.hosts[0])


async def test_commands_reach_the_host_and_not_the_jump_host(two: tuple[Server, Server], pool: Pool) -> None:
    host = pool.host(behind(*two))
    said = await host.read(Says(("sh", "-c", "echo $PPID here")))
    assert said.stdout.endswith("here\n")
    two[0].cut_after = 0.0  # a command on the jump host would be cut
    host.forget()
    assert (await host.read(Says(("echo", "again")))).stdout == "again\n"


async def test_a_tunnel_leads_through_both(two: tuple[Server, Server], pool: Pool) -> None:
    host = pool.host(behind(*two))
    port = await host.forward("127.0.0.1", two[1].target.port)
    assert port not in (two[0].target.port, two[1].target.port)


async def test_a_dead_jump_host_is_named(two: tuple[Server, Server], pool: Pool) -> None:
    target = behind(*two)
    assert target.jump is not None
    with pytest.raises(Unreachable, match="jump host") as raised:
        await pool.host(replace(target, jump=replace(target.jump, port=9))).read(Says(("true",)))
    assert raised.value.may_retry


async def test_the_jump_hosts_key_and_login_are_checked_too(two: tuple[Server, Server], pool: Pool) -> None:
    target = behind(*two)
    assert target.jump is not None
    stranger = replace(target, jump=replace(target.jump, known_hosts=str(two[1].folder / "known_hosts")))
    with pytest.raises(HostKeyUnknown, match="jump host"):
        await pool.host(stranger).read(Says(("true",)))
    unwanted = replace(target, jump=replace(target.jump, key=target.key))
    with pytest.raises(LoginRefused, match="jump host"):
        await pool.host(unwanted).read(Says(("true",)))


@needs_sshd
@pytest.mark.long
async def test_many_hosts_behind_one_stock_sshd_share_one_connection_to_it(tmp_path: Path) -> None:
    await reached(tmp_path, 25)  # tests/faults has 200


async def test_a_failed_attempt_is_shared_by_all_behind_the_jump_host_and_leaves_nothing(
    two: tuple[Server, Server], pool: Pool
) -> None:
    target = behind(*two)
    assert target.jump is not None
    attempts = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        await reader.read()
        writer.close()

    gate = await asyncio.start_server(silent, "127.0.0.1", 0)
    jump = replace(target.jump, port=gate.sockets[0].getsockname()[1], connect_seconds=1)
    hosts = [replace(target, name=f"te{one}", jump=replace(jump, name=f"te{one} (jump host)")) for one in range(30)]
    async with gate:
        ended = await asyncio.gather(*(pool.host(host).read(Says(("true",))) for host in hosts), return_exceptions=True)
        assert all(isinstance(error, Unreachable) for error in ended)
        assert [error.host for error in ended if isinstance(error, Unreachable)] == [
            host.jump.name for host in hosts if host.jump
        ]
        assert attempts == 1
    good = replace(target, name="te0")
    assert (await pool.host(good).read(Says(("true",)))).ok
    connections = [one for one in gc.get_objects() if isinstance(one, asyncssh.SSHClientConnection)]
    assert len([one for one in connections if not one.is_closed()]) == 2


@needs_sshd
async def test_a_jump_host_that_forwards_nothing_is_said_so_and_not_tried_again(tmp_path: Path, pool: Pool) -> None:
    async with real_sshd(tmp_path, "AllowTcpForwarding no") as gate:
        target = replace(
            gate.target, name="te1", address="127.0.0.2", jump=replace(gate.target, name="te1 (jump host)")
        )
        with pytest.raises(LoginRefused, match="forwards no connections") as refused:
            await pool.host(target).read(Says(("true",)))
        assert not refused.value.may_retry


async def test_a_jump_host_whose_connection_broke_is_connected_to_anew(two: tuple[Server, Server], pool: Pool) -> None:
    host = pool.host(behind(*two))
    assert (await host.read(Says(("true",)))).ok
    for made in list(pool._roads._jumps.values()):
        made.result().abort()
    host.forget()
    await asyncio.sleep(0.1)
    assert (await host.read(Says(("echo", "again")))).stdout == "again\n"
