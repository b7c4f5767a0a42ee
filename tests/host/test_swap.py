"""Swap stays off after a restart, whoever turned it on: units, services that start zram, scripts of a person."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from lab.simulated.files import Node
from lab.simulated.options import Options
from lab.simulated.units import Unit
from shipway.facts.fact import Fact
from shipway.facts.files import FileInfo, FileState
from shipway.host.session import Host
from shipway.known_failures.catalogue import diagnose
from shipway.step import Impact
from shipway.steps.system.kernel import (
    SERVICES_SCRIPT,
    SWAP_SERVICES,
    SWAPON_LINES,
    NoScriptTurnsSwapOn,
    SwapOff,
    SwapStaysOff,
)
from tests.places.facts import KnownFacts, said
from tests.places.simulated import Place, simulated_place

ZRAMSWAP = """[Unit]
Description=Linux zramswap setup
[Service]
EnvironmentFile=-/etc/default/zramswap
ExecStart=/usr/sbin/zramswap start
ExecStop=/usr/sbin/zramswap stop
Type=oneshot
RemainAfterExit=true
[Install]
WantedBy=multi-user.target
"""
SHOWN = """
Id={name}
LoadState={load}
ExecStart={{ path={path} ; argv[]={argv} ; ignore_errors=no ; start_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }}
"""


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with simulated_place(tmp_path, Options(hosts=1, scale=0.0)) as one:
        yield one


@pytest.mark.parametrize(
    ("argv", "load", "kind"),
    [
        ("/usr/sbin/zramswap start", "loaded", "only"),
        ("/sbin/dphys-swapfile swapon", "loaded", "only"),
        ("/usr/bin/init-zram-swapping", "loaded", "only"),
        ("/sbin/swapon -a", "loaded", "only"),
        ("/usr/sbin/swapspace -d", "loaded", "only"),
        ("/usr/sbin/zramswap start", "masked", ""),
        ('/bin/sh -c "mount /data; swapon /data/swap"', "loaded", "among-others"),
        ("/usr/bin/kubelet --fail-swap-on=false", "loaded", ""),
        ("/usr/bin/containerd", "loaded", ""),
        ("/usr/lib/systemd/systemd-swapon-helper", "loaded", ""),
    ],
)
def test_systemds_own_word_tells_which_services_are_for_swap(argv: str, load: str, kind: str) -> None:
    shown = SHOWN.format(name="one.service", load=load, path=argv.split(maxsplit=1)[0], argv=argv)
    shown += SHOWN.format(name="ssh.service", load="loaded", path="/usr/sbin/sshd", argv="/usr/sbin/sshd -D")
    script = SERVICES_SCRIPT.partition("2>/dev/null |")[2]
    ran = subprocess.run(["bash", "-c", script], input=shown, capture_output=True, text=True, check=True)
    assert ran.stdout == (f"{kind} one.service\n" if kind else "")


async def test_after_a_restart_zram_of_a_service_stays_off(place: Place) -> None:
    machine = place.machine("te1")
    machine.units.add(Unit("zramswap.service", wanted="enabled"), text=ZRAMSWAP, active=True)
    machine.kernel.swaps = [("/dev/zram0", 4_194_300)]
    (seen,) = await place.run([SwapStaysOff()], "te1", Impact.NOTHING)
    assert seen.drift is not None
    assert "zramswap.service" in seen.drift.have
    done = await place.run([SwapStaysOff(), SwapOff()], "te1")
    assert [row.outcome for row in done] == ["changed", "changed"], done
    machine.files.write("/etc/fstab", b"")
    machine.reboot()
    assert machine.kernel.swaps == []
    again = await place.run([SwapStaysOff(), SwapOff()], "te1", Impact.NOTHING)
    assert {row.outcome for row in again} == {"ok"}


async def test_a_simulated_zram_service_does_turn_swap_on_when_nobody_masks_it(place: Place) -> None:
    machine = place.machine("te1")
    machine.units.add(Unit("zramswap.service", wanted="enabled"), text=ZRAMSWAP)
    machine.files.write("/etc/fstab", b"")
    machine.reboot()
    assert machine.kernel.swaps == [("/dev/zram0", 4_194_300)]


async def test_a_persons_script_is_reported_with_its_line_and_never_edited(place: Place) -> None:
    machine = place.machine("te1")
    machine.files.put("/etc/rc.local", Node(b"#!/bin/sh\n# swapon /old\nswapon /swapfile\n", 0o755))
    machine.files.write("/var/spool/cron/crontabs/root", b"@reboot /sbin/swapon -a\n")
    (row,) = await place.run([NoScriptTurnsSwapOn()], "te1")
    assert row.outcome == "drifted"
    assert row.drift is not None
    assert row.drift.have == "/etc/rc.local:3 calls swapon, /var/spool/cron/crontabs/root:1 calls swapon"
    known = diagnose(row.drift.have)
    assert known is not None
    assert known.code == "SHW-354"
    assert "take the line out of /etc/rc.local" in known.fix


@pytest.mark.parametrize(("mode", "heard"), [("755", True), ("644", False)])
async def test_an_rc_local_that_is_not_executable_is_not_run(mode: str, *, heard: bool) -> None:
    facts: dict[Fact[Any], Any] = {
        SWAPON_LINES: said("/etc/rc.local:2:swapon /x\n"),
        FileState("/etc/rc.local"): FileInfo("0" * 64, mode, "root:root", 1),
        SWAP_SERVICES: said("only zramswap.service\n"),
    }
    assert (await NoScriptTurnsSwapOn().check(cast("Host", KnownFacts(facts))) is not None) is heard


async def test_a_services_shell_line_is_reported_and_never_masked() -> None:
    facts: dict[Fact[Any], Any] = {SWAP_SERVICES: said("among-others own.service\nonly a;b.service\n")}
    drift = await NoScriptTurnsSwapOn().check(cast("Host", KnownFacts(facts)))
    assert drift is not None
    assert drift.have == "own.service calls swapon"
    masked = await SwapStaysOff().check(cast("Host", KnownFacts(facts)))
    assert masked is not None
    assert ".service" not in masked.have
