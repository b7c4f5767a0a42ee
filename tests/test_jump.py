"""A host behind a jump host is reached through it, keys and host keys are checked on both, trouble names which one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from shipway.cluster import Cluster
from shipway.errors import HostKeyMismatch, LoginRefused, Unreachable
from shipway.facts.commands import Says
from shipway.ssh import Pool
from shipway.ssh_target import Target
from tests.shell_server import Server, shell_server


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Server, Server]]:
    for name in ("gate", "inner"):
        (tmp_path / name).mkdir()
    async with shell_server(tmp_path / "gate") as gate, shell_server(tmp_path / "inner") as inner:
        yield gate, inner


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    one = Pool()
    yield one
    await one.close()


def behind(gate: Server, inner: Server) -> Target:
    """Give the target that a cluster file with a jump host means."""
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
    cluster = Cluster.parse(text)
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
    with pytest.raises(HostKeyMismatch, match="jump host"):
        await pool.host(stranger).read(Says(("true",)))
    unwanted = replace(target, jump=replace(target.jump, key=target.key))
    with pytest.raises(LoginRefused, match="jump host"):
        await pool.host(unwanted).read(Says(("true",)))
