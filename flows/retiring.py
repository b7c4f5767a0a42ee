"""What the flows that take a host out have in common: their run, and the locks taken before the first change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from prefect import State

from flows.running import Manner, running
from shipway.errors import Refused
from tasks.artifacts import leave
from tasks.context import Run
from tasks.locking import lease_or_host
from tasks.retire.report import retire_report
from tasks.stage_result import Mode, fail_by


@asynccontextmanager
async def retiring(cluster_file: str, verb: str, mode: Mode, report_file: str | None) -> AsyncIterator[Run]:
    """Yield the run of a verb, judged as one that takes a host out. Raises as `running` does."""
    manner = Manner(mode == "plan", retire_report, leave, verb)
    async with running(cluster_file, mode, (), (), report_file, manner) as run:
        yield run


async def hold(run: Run, host: str, may: State[Any] | None) -> State[Any] | None:
    """Hold the cluster where nothing forbids to go on; return None where it cannot be held, which is kept as an error.

    Raises Refused where another run holds it.
    """
    if may is None:
        return None
    kept_out = await lease_or_host(run, host)
    if isinstance(kept_out, Refused):
        raise kept_out
    if kept_out is not None:
        run.results.append(fail_by(kept_out, host, run.results[-1].stage, step="one run at a time"))
        return None
    return may
