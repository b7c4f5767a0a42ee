"""Many hosts within the limits that OpenSSH's sshd has by default: a first bootstrap, a plan behind a jump host."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
import yaml

from lab.simulated.lab import SimulatedLab
from lab.simulated.options import Options
from tests.faults.left_over import left_over
from tests.faults.plain import installed, over_ssh
from tests.faults.real_run import ended_well, migrated, real_run
from tests.places.real_sshd import RealSshd, needs_sshd, real_sshd

LIMIT = 540.0


@pytest.fixture(scope="module")
def _database() -> None:
    migrated()


def none_refused(lab: SimulatedLab, hosts: int) -> None:
    """Expect that no sshd refused anything, and that every host is a node."""
    assert lab.ssh.refused() == 0
    assert lab.link.cluster is not None
    assert len(lab.link.cluster.world.hosts) == hosts
    assert left_over(lab) == []


@pytest.mark.long
@pytest.mark.parametrize("hosts", [14, pytest.param(50, marks=pytest.mark.faults)])
async def test_all_hosts_join_at_the_first_run_and_no_sshd_refuses_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: int
) -> None:
    """More than ten: every join asks the control plane's host for a token, over a connection of ten sessions."""
    installed(monkeypatch)
    async with SimulatedLab(tmp_path, Options(hosts=hosts, scale=0.01)) as lab:
        report = await asyncio.wait_for(over_ssh(lab), LIMIT)
        assert (report.outcome, report.errors) == ("ok", ())
        none_refused(lab, hosts)


@pytest.mark.faults
@pytest.mark.usefixtures("_database")
async def test_the_command_brings_up_fifty_hosts_at_its_first_run(tmp_path: Path) -> None:
    async with SimulatedLab(tmp_path, Options(hosts=50, scale=0.01)) as lab, real_run(lab) as run:
        began = time.monotonic()
        await ended_well(lab, run, LIMIT)
        none_refused(lab, 50)
        print(f"50 hosts bootstrapped in {time.monotonic() - began:.0f} s")


def open_to(port: int) -> int:
    """Return how many connections are established to a port of this machine (proc(5), /proc/net/tcp).

    The kernel tells a row twice where other programs connect while it is read (738 of 917 readings measured): a
    connection is its two ends, not its row.
    """
    rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return len({(row[1], row[2]) for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "01"})


def behind(lab: SimulatedLab, gate: RealSshd) -> None:
    """Put all hosts of a lab behind a jump host."""
    known = lab.folder / "known_hosts"
    known.write_text(known.read_text() + Path(gate.target.known_hosts).read_text())
    data = yaml.safe_load(lab.cluster_file.read_text(encoding="utf-8"))
    to = gate.target
    data["ssh"]["connect_seconds"] = 60  # on a busy machine an attempt that is given up is a second connection
    data["ssh"]["jump"] = {"address": to.address, "port": to.port, "user": to.user, "key": to.key}
    lab.cluster_file.write_text(yaml.safe_dump(data), encoding="utf-8")


@needs_sshd
@pytest.mark.usefixtures("_database")
@pytest.mark.long
@pytest.mark.parametrize("hosts", [12, pytest.param(200, marks=pytest.mark.faults)])
async def test_a_plan_of_hosts_behind_a_jump_host_makes_one_connection_to_it_and_leaves_none(
    tmp_path: Path, hosts: int
) -> None:
    (tmp_path / "gate").mkdir()
    async with (
        real_sshd(tmp_path / "gate") as gate,
        SimulatedLab(tmp_path / "lab", Options(hosts=hosts, scale=0.01)) as lab,
    ):
        behind(lab, gate)
        async with real_run(lab, "--plan") as run:
            began, most = time.monotonic(), 0
            while run.process.returncode is None:
                most = max(most, open_to(gate.target.port))
                await asyncio.sleep(0.02)
            seconds = time.monotonic() - began
        assert run.process.returncode == 0, run.lines.decode(errors="replace")[-3000:]
        report = run.report()
        assert (report["outcome"], len(report["hosts"])) == ("planned", hosts)
        print(f"{hosts} hosts planned in {seconds:.0f} s")
        assert gate.said("Accepted publickey") == 1
        assert gate.said("MaxStartups") == 0
        assert [lab.ssh.logins(name) for name in lab.hosts] == [1] * hosts
        assert (most, lab.ssh.refused()) == (1, 0)
        async with asyncio.timeout(20):
            while open_to(gate.target.port) or lab.ssh.connected():  # noqa: ASYNC110 - other programs' ends
                await asyncio.sleep(0.05)
