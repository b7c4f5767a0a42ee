"""A lab of three SIMULATED hosts: what an undisturbed bootstrap leaves on it, and what a disturbed one left instead."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.simulated.lab import SimulatedLab
from lab.simulated.options import Options
from tests.faults.end_state import differences, end_state
from tests.faults.left_over import left_over
from tests.faults.plain import Key, Line, brought_up

SECONDS = 180.0
Disturb = Callable[[SimulatedLab], Awaitable[None]]


@dataclass(frozen=True)
class Known:
    """The exchanges of an undisturbed bootstrap and of a run after it, its stages, and the state that both leave."""

    bare: list[Key]
    again: list[Key]
    deciding: dict[Key, int]  # of `again`, those that tell whether there is a cluster, and how many commands each has
    stages: set[tuple[str, str]]
    commands: int  # that a bootstrap of bare hosts runs on all of them
    state: dict[str, Any]


@asynccontextmanager
async def fresh(cluster: Mapping[str, Any] | None = None) -> AsyncIterator[SimulatedLab]:
    """Yield a lab of bare hosts; `cluster` is put over its cluster file."""
    with tempfile.TemporaryDirectory() as folder:
        options = Options(hosts=3, scale=0.01, cluster=dict(cluster or {}))
        async with SimulatedLab(Path(folder), options) as lab:
            yield lab


async def undisturbed() -> Known:
    """Bootstrap twice, undisturbed."""
    async with fresh() as lab:
        bare, again = Line(), Line()
        report = await brought_up(lab, bare)
        assert report.outcome == "ok", report.errors
        commands = sum(len(host.ran) for host in lab.hosts.values())
        assert (await brought_up(lab, again)).outcome == "ok"
        assert left_over(lab) == []
        stages = {(stage.stage, stage.host) for stage in report.stages}
        return Known(bare.seen, again.seen, again.deciding, stages, commands, end_state(lab))


async def whole(lab: SimulatedLab, known: Known) -> list[str]:
    """Run plainly, and return what is not as if nothing had happened; empty when all is."""
    report = await brought_up(lab, Line())
    faults = [] if report.outcome == "ok" else [f"the plain run after it ended {report.outcome}"]
    faults += [f"{error.host}: {error.step}: {error.cause}" for error in report.errors][:3]
    return faults + left_over(lab) + differences(known.state, end_state(lab))[:6]


def after(known: Known, disturb: Disturb, cluster: Mapping[str, Any] | None = None, seconds: float = SECONDS) -> None:
    """Disturb a bare lab, run plainly, and compare with what was to be; all of it within so many seconds."""

    async def case() -> None:
        async with fresh(cluster) as lab:
            await disturb(lab)
            faults = await whole(lab, known)
            assert faults == [], "\n".join(faults)

    asyncio.run(asyncio.wait_for(case(), seconds))
