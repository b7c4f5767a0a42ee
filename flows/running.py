"""What surrounds a run: the lock, the context that tasks find, progress, and the report at the end whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from uuid import UUID

from prefect import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.lock import held
from shipway.cluster import Cluster
from shipway.errors import ShipwayError
from tasks.artifacts import leave, progressing
from tasks.context import Mode, Run, opened
from tasks.report import Report, report_of
from tasks.secret_blocks import load_blocks


def run_name() -> str:
    """Give the flow run's name: "bootstrap te", "bootstrap te (plan)"."""
    given = flow_run.parameters
    path = Path(given["cluster_file"])
    try:
        name = Cluster.load(path).name
    except ShipwayError:
        name = path.name  # the run itself refuses the file, and says why
    return f"bootstrap {name}" + (" (plan)" if given.get("mode") == "plan" else "")


class Reporter(Protocol):
    """What makes a run's report."""

    def __call__(self, run: Run, *, broken_off: str = "") -> Report:
        """Give the report; `broken_off` says what ended the run before its time."""


@dataclass(frozen=True)
class Manner:
    """How a kind of run is surrounded: whether it only looks, and what makes and leaves its report."""

    only_looks: bool = False
    report: Reporter = report_of
    leave: Callable[[Run], Awaitable[None]] = leave


@asynccontextmanager
async def running(  # noqa: PLR0917 - the flow's parameters, in their order
    cluster_file: str,
    mode: Mode,
    hosts: Sequence[str],
    reset: Sequence[str],
    report_file: str | None,
    manner: Manner | None = None,
) -> AsyncIterator[Run]:
    """Give the run of a flow; its report is left as artifacts and, where asked for, in a file.

    Raises Refused for a bad cluster file, an unknown host, or while another run holds the cluster.
    """
    run = Run(Cluster.load(Path(cluster_file)), mode, hosts, reset)
    await load_blocks(run.cluster)
    manner = manner or Manner(only_looks=mode == "plan")
    run.flow_runs.append(UUID(flow_run.id))
    run.view.opened(run)
    with held(run.folder / "lock", run.cluster.name, shared=manner.only_looks):
        async with opened(run), progressing(run):
            try:
                yield run
            except BaseException as error:
                run.report = manner.report(run, broken_off=_why(error))
                raise
            else:
                run.report = manner.report(run)
            finally:
                _write(run, report_file)
    with contextlib.suppress(asyncio.CancelledError):
        await manner.leave(run)


def _why(error: BaseException) -> str:
    """Say what ended a run before its time."""
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return "the run was interrupted"
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_why(inner) for inner in error.exceptions)
    if isinstance(error, ShipwayError):
        return error.message
    return f"a fault in this program: {type(error).__name__}: {error}"


def _write(run: Run, report_file: str | None) -> None:
    """Write the report file where one was asked for; what keeps from it is told, and undoes no cluster."""
    if report_file and run.report:
        try:
            run.report.write(Path(report_file))
        except OSError as error:
            run.report = replace(run.report, warnings=(*run.report.warnings, f"no report file: {error}"))


def verdict(run: Run) -> State[Report]:
    """Give the flow run's final state, with the report: failed unless everything is as wanted (or planned)."""
    report = run.report or report_of(run)
    counted = ", ".join(f"{count} {outcome}" for outcome, count in report.counted.items())
    message = f"{report.outcome}: {len(report.hosts)} hosts; steps: {counted}; {run.proof_said}"
    if report.outcome in ("ok", "planned"):
        return Completed(message=message, data=report)
    return Failed(name=report.outcome.capitalize(), message=message, data=report)
