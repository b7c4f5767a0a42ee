"""Admission: which hosts a run may begin to change, decided by preflight on all of them at once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

from prefect import State

from shipway.errors import ShipwayError
from shipway.stage import StageName
from tasks.context import Run
from tasks.leading import known
from tasks.locking import lease
from tasks.ownership import disagreement, judge, keep
from tasks.run_stage import on
from tasks.stage_result import StageResult, report_redacted
from tasks.stages.preflight import compare
from tasks.workloads import find_busy

# Hosts are compared with each other before any is changed, but one that does not answer holds up the rest no longer
# than this; it is tried on meanwhile, and joins in late.
GRACE_SECONDS = 20.0


class Admission:
    """Preflight of every host of the run, under way; `of(host)` gives its state once it may be changed."""

    def __init__(self, run: Run, together: asyncio.TaskGroup) -> None:
        self._run, self._until = run, time.monotonic() + GRACE_SECONDS
        names = [host.name for host in run.hosts]
        self._looks = {name: together.create_task(on(StageName.PREFLIGHT, name)) for name in names}
        self._verdicts = {name: together.create_task(self._verdict(name)) for name in names}
        self._busy: asyncio.Task[None] | None = None
        self._lease: asyncio.Task[ShipwayError | None] | None = None
        self._owned: asyncio.Task[bool] | None = None

    async def of(self, name: str) -> State[Any] | None:
        """Return the preflight's state of a host that may be changed, else None.

        No host is changed where the control plane's own host is refused: there would be nothing to join.
        """
        if await self._contradicted(name):
            return None
        control = self._verdicts.get(self._run.control.name)
        if control is not None and await control is None:
            return None
        state = await self._verdicts[name]
        if state is None:
            return None
        await self._workloads_known()
        if (kept_out := await self._alone()) is not None:
            row = report_redacted(kept_out)
            error = replace(row, host=row.host or name, step=row.step or StageName.PREFLIGHT)
            self._run.results.append(StageResult(name, StageName.PREFLIGHT, "failed", errors=(error,)))
            return None
        self._run.admitted.add(name)
        return state

    async def contradicted(self) -> bool:
        """Say whether the file contradicts the hosts, asked for once and of all; the run knows its lead afterwards."""
        if self._owned is None:
            self._owned = asyncio.create_task(self._disagreeing())
        return await self._owned

    async def _contradicted(self, name: str) -> bool:
        """Say whether the file contradicts the hosts: then no host at all is changed.

        One that answers only after the grace is judged again, with what was seen of the others.
        """
        if await self.contradicted():
            return True
        await self._looks[name]
        late = tuple(fault for fault in judge(self._run) if fault.host == name)
        if late:
            self._run.results.append(StageResult(name, StageName.PREFLIGHT, "failed", errors=late))
        return bool(late)

    async def _disagreeing(self) -> bool:
        """Wait for the looks within the grace, and tell each contradiction once."""
        await asyncio.wait(self._looks.values(), timeout=max(0.0, self._until - time.monotonic()))
        planes = {host.name for host in self._run.cluster.control_planes}
        if not any(one.whole for name, one in known(self._run).items() if name in planes):
            # Where the cluster is may be known to the one that has not answered yet: none is made before it did.
            await asyncio.gather(*(look for name, look in self._looks.items() if name in planes))
        try:
            faults = await disagreement(self._run)
        except ShipwayError as error:
            faults = [report_redacted(error.at(host=self._run.control.name, step="whose the hosts are"))]
        return keep(self._run, faults)

    async def _alone(self) -> ShipwayError | None:
        """Hold the cluster, asked for once; return what keeps from it."""
        if self._lease is None:
            self._lease = asyncio.create_task(lease(self._run))
        return await self._lease

    async def _verdict(self, name: str) -> State[Any] | None:
        """Compare a host that passed with all that have answered within the grace."""
        state = await self._looks[name]
        await asyncio.wait(self._looks.values(), timeout=max(0.0, self._until - time.monotonic()))
        faults = tuple(fault for fault in compare(list(self._run.seen.surveys.values())) if fault.host == name)
        if state is None or not faults:
            return state
        self._run.results.append(StageResult(name, StageName.PREFLIGHT, "failed", errors=faults))
        return None

    async def _workloads_known(self) -> None:
        """Ask once which hosts run GPU workloads."""
        if self._busy is None:
            self._busy = asyncio.create_task(find_busy(self._run))
        await self._busy
