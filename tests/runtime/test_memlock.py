"""What a container may lock is what the containerd that runs may: a drop-in alone proves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from lab.simulated.options import Options
from shipway.errors import Blocked
from shipway.facts.services import UnitState
from shipway.host.session import Host
from shipway.step import Impact, restart_of
from shipway.steps.runtime.memlock import DROP_IN, LIMITS, MemoryLockUnlimited, read_limits
from shipway.steps.system.services import CONTAINERD
from tests.places.facts import NO_UNIT, KnownFacts, said, unit
from tests.places.simulated import simulated_place

# As Debian 12 says it (systemd 252): 8 MiB by default. The first process of a container may lack CAP_SYS_RESOURCE.
SMALL, WHOLE = "8388608              8388608              bytes", "unlimited            unlimited            bytes"
ALL, LESS = "CapEff:\t000001ffffffffff\n", "CapEff:\t000001fffeffffff\n"


def limits(own: str, first: str = SMALL, capabilities: str = ALL) -> str:
    mine = f"/proc/812/limits:Max locked memory         {own}\n" if own else ""
    return f"{mine}/proc/1/limits:Max locked memory         {first}\n{capabilities}"


@pytest.mark.parametrize(
    ("answer", "have"),
    [
        (limits(WHOLE), None),
        (limits(SMALL), "8388608 bytes (Max locked memory of containerd)"),
        (limits("65536                unlimited            bytes"), "65536 bytes (Max locked memory of containerd)"),
        (limits(SMALL, capabilities=LESS), None),  # a host that is a container: nobody can give it more
        (limits("65536                65536                bytes", capabilities=LESS), "65536 bytes"),
        (limits(SMALL, WHOLE, LESS), "8388608 bytes"),
        (limits(""), None),  # it does not run: another step's affair
        ("", None),
    ],
)
async def test_the_limit_of_the_process_counts(answer: str, have: str | None) -> None:
    host = KnownFacts({LIMITS: said(answer), UnitState("containerd.service"): unit()})
    drift = await MemoryLockUnlimited().check(cast("Host", host))
    assert (drift is None) == (have is None)
    assert drift is None or drift.have.startswith(have or "nothing")


def test_what_the_first_process_can_give_bounds_what_is_wanted() -> None:
    assert read_limits(limits(SMALL, capabilities=LESS)) == ("8388608", "8388608")
    assert read_limits(limits(SMALL)) == ("8388608", "unlimited")


async def test_without_containerd_nothing_is_judged() -> None:
    host = KnownFacts({UnitState("containerd.service"): NO_UNIT})
    with pytest.raises(Blocked, match="not installed yet"):
        await MemoryLockUnlimited().check(cast("Host", host))


def test_it_is_withheld_beside_gpu_pods_as_every_restart_of_containerd_is() -> None:
    assert (restart_of(MemoryLockUnlimited()), MemoryLockUnlimited.impact) == (CONTAINERD, Impact.SERVICE)


async def test_a_gpu_host_gets_it_and_a_containerd_that_was_not_started_since_is_drift(tmp_path: Path) -> None:
    async with simulated_place(tmp_path, Options(hosts=2, scale=0.0)) as place:
        machine, step = place.machine("te2"), MemoryLockUnlimited()
        containerd = machine.units.get("containerd")
        assert containerd is None
        await place.prepare("te2")
        containerd = machine.units.get("containerd")
        assert containerd
        assert "LimitMEMLOCK=infinity" in machine.files.text(DROP_IN)
        assert [one.outcome for one in await place.run([step], "te2")] == ["ok"]
        machine.files.remove(DROP_IN)
        machine.units.reload()
        machine.units.stop(containerd)
        machine.units.start(containerd)
        (lost,) = await place.run([step], "te2", Impact.FILES)
        assert (lost.outcome, lost.impact) == ("drifted", Impact.SERVICE)
        await place.prepare("te2")
        assert "LimitMEMLOCK=infinity" in machine.files.text(DROP_IN)
        assert [one.outcome for one in await place.run([step], "te2")] == ["ok"]
