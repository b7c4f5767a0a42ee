"""The SSH configuration decides what the cluster file leaves open, and nothing that it says."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

import pytest
import yaml

from shipway.cluster_file import parse_cluster
from shipway.errors import Refused
from shipway.facts.commands import Says
from shipway.host.ssh import Pool
from shipway.host.ssh.config import Way, way
from tests.places.real_sshd import needs_sshd, real_sshd

CONFIG = """
Host gpu7
  HostName 10.1.2.3
  User jane.doe
  Port 2200
  IdentityFile {folder}/one
  IdentityFile {folder}/two
  IdentitiesOnly yes
  ProxyJump ops@gate.example.com:2022,inner
  UserKnownHostsFile {folder}/a {folder}/b
  HostKeyAlias seven
Host inner
  HostName 10.9.9.9
  User gatekeeper
Host proxied
  ProxyCommand nc %h %p
"""


def led(folder: Path, address: str = "gpu7", own: dict[str, Any] | None = None, **ssh: Any) -> Way:
    """Return where a host of this address leads, with these settings in the cluster file and CONFIG beside it."""
    (folder / "config").write_text(CONFIG.format(folder=folder))
    host = {"name": "te1", "address": address, "node_ip": "10.1.2.3", "ssh": own or {}}
    data = {"name": "demo", "hosts": [host], "ssh": {"config": str(folder / "config"), **ssh}}
    cluster = parse_cluster(yaml.safe_dump(data))
    return way(cluster.target(cluster.hosts[0]))


def test_what_the_file_leaves_open_comes_from_the_configuration(tmp_path: Path) -> None:
    found = led(tmp_path)
    assert (found.target.address, found.target.user, found.target.port) == ("10.1.2.3", "jane.doe", 2200)
    assert found.keys == (f"{tmp_path}/one", f"{tmp_path}/two")
    assert found.only
    assert found.known_hosts[:2] == (f"{tmp_path}/a", f"{tmp_path}/b")
    assert found.alias == "seven"
    last = found.target.jump
    assert last is not None
    assert last.jump is not None
    assert (last.address, last.port, last.jump.address, last.jump.port) == ("inner", 22, "gate.example.com", 2022)
    assert last.name == "te1 (jump host)"
    assert way(last.jump).target.user == "ops"
    behind = way(last).target
    assert (behind.address, behind.user, behind.jump) == ("10.9.9.9", "gatekeeper", last.jump)


def test_what_the_file_says_wins(tmp_path: Path) -> None:
    jump = {"address": "other", "user": "me", "port": 5}
    found = led(tmp_path, user="ops", port=22, key="/k", known_hosts="/known", jump=jump)
    assert (found.target.address, found.target.user, found.target.port) == ("10.1.2.3", "ops", 22)
    assert (found.keys, found.known_hosts) == (("/k",), ("/known",))
    assert found.target.jump is not None
    assert (found.target.jump.address, found.target.jump.port) == ("other", 5)
    own = led(tmp_path, own={"user": "root", "port": 44, "key": "/own"})
    assert (own.target.user, own.target.port, own.keys) == ("root", 44, ("/own",))


def test_what_neither_says_has_the_defaults(tmp_path: Path) -> None:
    found = led(tmp_path, "10.0.0.9")
    assert (found.target.address, found.target.user, found.target.port) == ("10.0.0.9", "root", 22)
    assert (found.keys, found.command, found.target.jump) == ((), "", None)
    assert found.known_hosts == ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
    assert led(tmp_path, "proxied").command.startswith("nc ")


def test_no_configuration_is_asked_where_none_is_wanted_or_there(tmp_path: Path) -> None:
    for config in (None, str(tmp_path / "none")):
        found = led(tmp_path, config=config)
        assert (found.target.address, found.target.user) == ("gpu7", "root")


@pytest.mark.parametrize("line", ["Port twenty", "Match sometimes", "ProxyJump a b:c:d"])
def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "config").write_text(f"Host *\n  {line}\n")
    cluster = parse_cluster(f"name: d\nhosts: [10.0.0.9]\nssh: {{config: {tmp_path}/config}}")
    with pytest.raises(Refused) as refused:
        way(cluster.target(cluster.hosts[0]))
    assert str(tmp_path / "config") in refused.value.message
    assert refused.value.code == "SHW-348"


@needs_sshd
async def test_an_alias_with_a_jump_host_is_reached_as_ssh_reaches_it(tmp_path: Path, pool: Pool) -> None:
    for name in ("gate", "inner"):
        (tmp_path / name).mkdir()
    async with real_sshd(tmp_path / "gate") as gate, real_sshd(tmp_path / "inner") as inner:
        known = tmp_path / "known"
        known.write_text("\n".join((one.folder / "known_hosts").read_text() for one in (gate, inner)) + "\n")
        me = getpass.getuser()
        (tmp_path / "config").write_text(
            f"Host gpu7\n  HostName 127.0.0.1\n  Port {inner.target.port}\n  User {me}\n  ProxyJump gate\n"
            f"  IdentityFile {inner.folder}/id\n"
            f"Host gate\n  HostName 127.0.0.1\n  Port {gate.target.port}\n  User {me}\n"
            f"  IdentityFile {gate.folder}/id\n"
            f"Host *\n  UserKnownHostsFile {known}\n"
        )
        cluster = parse_cluster(
            f"name: d\nhosts: [{{name: te1, address: gpu7, node_ip: 10.0.0.1}}]\nssh: {{config: {tmp_path}/config}}"
        )
        said = await pool.host(cluster.target(cluster.hosts[0])).read(Says(("echo", "there")))
        assert said.stdout == "there\n"
        assert (gate.said("Accepted publickey"), inner.said("Accepted publickey")) == (1, 1)


@needs_sshd
async def test_a_proxy_command_is_the_way_to_a_host(tmp_path: Path, pool: Pool) -> None:
    async with real_sshd(tmp_path) as sshd:
        script = (
            "import socket,sys,threading,os\n"
            f"s=socket.create_connection(('127.0.0.1',{sshd.target.port}))\n"
            "def back():\n"
            "    while d:=s.recv(65536): os.write(1,d)\n"
            "threading.Thread(target=back,daemon=True).start()\n"
            "while d:=os.read(0,65536): s.sendall(d)\n"
        )
        (tmp_path / "nc.py").write_text(script)
        known = (tmp_path / "known_hosts").read_text().split(" ", 1)[1]
        (tmp_path / "known_hosts").write_text(f"far.example.com {known}")
        (tmp_path / "config").write_text(
            f"Host *\n  ProxyCommand python3 {tmp_path}/nc.py\n  User {getpass.getuser()}\n"
        )
        cluster = parse_cluster(
            "name: d\nhosts: [{name: te1, address: far.example.com, node_ip: 10.0.0.1}]\n"
            f"ssh: {{config: {tmp_path}/config, key: {tmp_path}/id, known_hosts: {tmp_path}/known_hosts}}"
        )
        assert (await pool.host(cluster.target(cluster.hosts[0])).read(Says(("echo", "far")))).stdout == "far\n"


@pytest.mark.parametrize(
    "user", ["jane.doe", "jane@example.com", "EXAMPLE\\jane", "Jane", "42nd", "svc-gpu$", "a" * 64]
)
def test_user_names_of_directories_are_taken(user: str) -> None:
    data = {
        "name": "a",
        "hosts": [{"name": "cp1", "address": "10.0.0.1"}],
        "ssh": {"user": user, "jump": {"address": "b", "user": user}},
    }
    cluster = parse_cluster(yaml.safe_dump(data))
    assert cluster.target(cluster.hosts[0]).user == user


@pytest.mark.parametrize(
    "user", ["-oProxyCommand=x", ".hidden", "a b", "a:b", "a/b", "$(id)", "a\nb", "a;b", "a'b", ""]
)
def test_what_no_account_is_called_is_refused(user: str) -> None:
    data = {"name": "a", "hosts": [{"name": "cp1", "address": "10.0.0.1"}], "ssh": {"user": user}}
    with pytest.raises(Refused, match=r"ssh\.user"):
        parse_cluster(yaml.safe_dump(data))


def test_a_password_has_one_place() -> None:
    text = "name: a\nhosts: [10.0.0.1]\nssh: {user: ops, sudo_password_file: /p, sudo_password_secret: sudo}"
    with pytest.raises(Refused, match="not both"):
        parse_cluster(text)
