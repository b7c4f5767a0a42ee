"""The lock of a cluster that does not exist yet: one run holds the host, a dead one is followed, nothing is left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.simulated.lab import SimulatedLab
from lab.simulated.options import Options
from shipway.cluster_file import load_cluster
from shipway.errors import Refused
from shipway.host.session import Host
from shipway.host.ssh import Pool
from shipway.locks.bare import UNIT, claim, claim_left
from shipway.locks.lease import holder

ELSEWHERE = "ops@elsewhere pid 7, bootstrap of te"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[tuple[SimulatedLab, Host]]:
    async with SimulatedLab(tmp_path, Options(hosts=1, scale=0.0)) as lab:
        cluster, pool = load_cluster(lab.cluster_file), Pool()
        yield lab, pool.host(cluster.target(cluster.hosts[0]))
        await pool.close()


async def test_a_second_run_is_refused_and_learns_who_holds_the_host(place: tuple[SimulatedLab, Host]) -> None:
    lab, host = place
    async with claim(host, ELSEWHERE):
        assert await claim_left(host)
        with pytest.raises(Refused) as refused:
            async with claim(host, holder("bootstrap of te")):
                pytest.fail("two runs hold one host")
        assert refused.value.code == "SHW-102"
        assert ELSEWHERE in refused.value.message
        assert f"systemctl stop {UNIT}" in refused.value.fix
        assert UNIT in lab.hosts["te1"].operations, "the refused run left the lock alone"
    assert UNIT not in lab.hosts["te1"].operations
    host.forget()
    assert not await claim_left(host)


async def test_a_run_that_was_killed_on_this_machine_is_followed_at_once(place: tuple[SimulatedLab, Host]) -> None:
    lab, host = place
    ended = subprocess.Popen([sys.executable, "-c", ""])  # noqa: ASYNC220 - its process id, no more in use, is all
    ended.wait()
    mine = holder("bootstrap of te")
    dead = mine.replace(f"pid {mine.split('pid ')[1].split(' ')[0]}", f"pid {ended.pid}")
    kept = claim(host, dead)
    await kept.__aenter__()  # a killed run never leaves
    async with claim(host, mine):
        assert lab.hosts["te1"].units.all[UNIT].description == mine
    assert UNIT not in lab.hosts["te1"].operations
