"""Host keys are checked by default: a host whose key is another is refused and named, and nothing is sent to it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncssh
import pytest

from shipway.cluster_file import parse_cluster
from shipway.errors import HostKeyMismatch, Refused
from shipway.facts.commands import Says
from shipway.host.session import Command
from shipway.host.ssh import Pool
from shipway.host.ssh.known_hosts import SSH_PORT, keep, known_hosts
from shipway.host.target import Target


@dataclass
class Stranger:
    """A server whose key is not the known one: what it got to see of a client."""

    port: int = 0
    connections: int = 0
    users: list[str] = field(default_factory=list)
    keys: int = 0
    commands: list[str] = field(default_factory=list)
    tunnels: list[tuple[str, int]] = field(default_factory=list)


@asynccontextmanager
async def stranger() -> AsyncIterator[Stranger]:
    """Serve with a key nobody knows, and let everybody in."""
    seen = Stranger()

    class Server(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            del conn
            seen.connections += 1

        def begin_auth(self, username: str) -> bool:
            seen.users.append(username)
            return True

        def public_key_auth_supported(self) -> bool:
            return True

        def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
            del username, key
            seen.keys += 1
            return True

        def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
            del orig_host, orig_port
            seen.tunnels.append((dest_host, dest_port))
            return True

    async def run(process: asyncssh.SSHServerProcess[str]) -> None:
        seen.commands.append(process.command or "")
        process.exit(0)

    key = asyncssh.generate_private_key("ssh-ed25519")
    async with asyncssh.listen(
        "127.0.0.1", 0, server_factory=Server, server_host_keys=[key], process_factory=run
    ) as listener:
        seen.port = listener.get_port()
        yield seen


def known(folder: Path, *ports: int) -> Path:
    """Return a known_hosts file that knows other keys for these ports."""
    path = folder / "known_hosts"
    lines = []
    for port in ports:
        key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
        lines.append(f"[127.0.0.1]:{port} {key}")
    path.write_text("".join(lines))
    return path


def target_of(folder: Path, port: int) -> Target:
    """Return where a host of a cluster file is, with what that file does not say left at its default."""
    (folder / "id").write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    (folder / "id").chmod(0o600)
    ssh = f"{{user: ops, key: {folder}/id, known_hosts: {folder}/known_hosts, port: {port}}}"
    cluster = parse_cluster(f"name: demo\nhosts: [{{name: gpu7, address: 127.0.0.1}}]\nssh: {ssh}")
    return cluster.target(cluster.hosts[0])


def test_strict_is_the_default() -> None:
    cluster = parse_cluster("name: demo\nhosts: [10.0.0.1]")
    assert cluster.ssh.host_keys == "strict"
    assert not cluster.target(cluster.hosts[0]).accept_new
    assert not Target("a", "10.0.0.1").accept_new


@pytest.mark.parametrize("accept_new", [False, True], ids=["strict", "accept-new"])
async def test_a_changed_key_is_refused_by_name_and_nothing_is_sent(tmp_path: Path, *, accept_new: bool) -> None:
    async with stranger() as seen:
        path = known(tmp_path, seen.port)
        before = path.read_bytes()
        target = replace(target_of(tmp_path, seen.port), accept_new=accept_new)
        pool = Pool()
        for change in (False, True):
            with pytest.raises(HostKeyMismatch) as refused:
                await (pool.host(target).do(Command(("reboot",))) if change else pool.host(target).read(Says(("id",))))
            assert refused.value.host == "gpu7"
            assert str(path) in refused.value.message
            assert not refused.value.may_retry
        await pool.close()
        await asyncio.sleep(0.05)
    assert seen.connections >= 1
    assert (seen.users, seen.keys, seen.commands, seen.tunnels) == ([], 0, [], [])
    assert path.read_bytes() == before


async def test_a_jump_host_whose_key_changed_is_refused_by_name_and_leads_nowhere(tmp_path: Path) -> None:
    async with stranger() as jump, stranger() as behind:
        known(tmp_path, jump.port, behind.port)
        target = target_of(tmp_path, behind.port)
        way = replace(target, name="gpu7 (jump host)", port=jump.port)
        pool = Pool()
        with pytest.raises(HostKeyMismatch) as refused:
            await pool.host(replace(target, jump=way)).read(Says(("id",)))
        await pool.close()
    assert refused.value.host == "gpu7 (jump host)"
    assert (jump.users, jump.keys, jump.tunnels, behind.connections) == ([], 0, [], 0)


def test_a_known_hosts_file_that_cannot_be_read_is_refused_and_one_that_is_not_there_says_nothing(
    tmp_path: Path,
) -> None:
    assert not any(
        known_hosts([str(tmp_path / "none"), str(tmp_path / "none" / "below")]).match("te1", "10.0.0.1", None)
    )
    with pytest.raises(Refused, match=f"{tmp_path} cannot be read") as refused:
        known_hosts([str(tmp_path)])
    assert refused.value.code == "SHW-348"


def test_each_key_that_is_kept_is_a_line_of_its_own_in_a_folder_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "known_hosts"
    keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(3)]
    keep(str(path), "te1", SSH_PORT, keys[0])
    keep(str(path), "te2", 2222, keys[1])
    path.write_text(path.read_text().rstrip("\n"))
    keep(str(path), "te3", SSH_PORT, keys[2])
    assert path.parent.stat().st_mode & 0o077 == 0
    kept = [key.export_public_key().decode().strip() for key in keys]
    assert path.read_text() == f"te1 {kept[0]}\n[te2]:2222 {kept[1]}\nte3 {kept[2]}\n"


def test_a_key_that_was_kept_within_a_tick_of_the_clock_is_known(tmp_path: Path) -> None:
    path, key = tmp_path / "known_hosts", asyncssh.generate_private_key("ssh-ed25519")
    path.write_text("# none yet\n")
    os.utime(path, ns=(5, 5))
    assert not any(known_hosts([str(path)]).match("te1", "10.0.0.1", None))
    keep(str(path), "te1", SSH_PORT, key)
    os.utime(path, ns=(5, 5))
    assert any(known_hosts([str(path)]).match("te1", "10.0.0.1", None))
