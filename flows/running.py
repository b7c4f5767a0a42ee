"""What surrounds a run: the lock, the context that tasks find, progress, and the report at the end whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar
from uuid import UUID

from prefect import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.lock import hold_lock, writable
from shipway.cluster.model import Cluster
from shipway.cluster_file import load_cluster
from shipway.errors import Refused, ShipwayError
from shipway.foreign.errors import describe_error
from tasks.artifacts import leave, progressing
from tasks.context import ON_OPEN, Run, open_run
from tasks.judging import report_of, report_of_verb
from tasks.leading import choose
from tasks.prefect_quirks import name_or_typed, tag_run, take_signals_back
from tasks.report import Report, report_refusal
from tasks.secret_blocks import load_blocks
from tasks.stage_result import Mode, causes

LEAVE_SECONDS = 10.0
P = ParamSpec("P")
T = TypeVar("T")


def run_name(what: str, mode: str = "") -> str:
    """Return the flow run's name, "bootstrap te (plan)", or the one that a person typed into its form."""
    path = Path(flow_run.parameters["cluster_file"])
    try:
        name = load_cluster(path).name
    except ShipwayError:
        name = path.name  # the run itself refuses the file, and says why
    return name_or_typed(f"{what} {name}" + (f" ({mode})" if mode else ""))


def as_states(flow: Callable[P, Coroutine[Any, Any, State[T]]]) -> Callable[P, Coroutine[Any, Any, State[T]]]:
    """Return the flow's function with a refusal as its final state: named Refused, one sentence, no traceback.

    The report of the refusal is written where the run was asked for one (`report_file`).
    """

    @wraps(flow)
    async def stated(*args: P.args, **kwargs: P.kwargs) -> State[T]:
        try:
            return await flow(*args, **kwargs)
        except Refused as error:
            given = signature(flow).bind(*args, **kwargs).arguments
            await asyncio.to_thread(_write_refusal, error, given)
            return Failed(name="Refused", message=str(error), data=error)

    # Prefect reads the parameters' types with the names of this module, where the flow's own are not known.
    plain = signature(flow, eval_str=True)
    stated.__signature__ = plain  # type: ignore[attr-defined]
    stated.__annotations__ = {name: one.annotation for name, one in plain.parameters.items()}
    return stated


def _write_refusal(error: Refused, given: Mapping[str, Any]) -> None:
    """Write the report of a run that was refused; what keeps from it is logged."""
    if path := given.get("report_file"):
        mode: Mode = "drift" if "repair" in given else "plan" if given.get("mode") == "plan" else "bootstrap"
        try:
            report_refusal(error, mode).write(Path(path))
        except OSError as fault:
            get_run_logger().warning("no report file: %s", fault)


class Reporter(Protocol):
    """What makes a run's report."""

    def __call__(self, run: Run, *, broken_off: str = "") -> Report:
        """Return the report; `broken_off` says what ended the run before its time."""


@dataclass(frozen=True)
class Manner:
    """How a kind of run is surrounded: whether it only looks, and what makes and leaves its report."""

    only_looks: bool = False
    report: Reporter = report_of
    leave: Callable[[Run], Awaitable[None]] = leave
    kind: str = ""  # what the run is called where its mode does not say it
    declared: Callable[[Cluster], Cluster] = lambda cluster: cluster  # what a run takes the file to say


@asynccontextmanager
async def running(  # noqa: PLR0917 - the flow's parameters, in their order
    cluster_file: str,
    mode: Mode,
    hosts: Sequence[str],
    reset: Sequence[str],
    report_file: str | None,
    manner: Manner | None = None,
) -> AsyncIterator[Run]:
    """Yield the run of a flow; its report is left as artifacts and, where asked for, in a file.

    Raises Refused for a bad cluster file, an unknown host, or while another run holds the cluster.
    """
    manner = manner or Manner(only_looks=mode == "plan")
    run = Run(manner.declared(load_cluster(Path(cluster_file))), mode, hosts, reset)
    await load_blocks(run.cluster)
    run.kind, run.file = manner.kind or mode, cluster_file
    run.flow_runs.append(UUID(flow_run.id))
    take_signals_back()
    if (heard := ON_OPEN.get(None)) is not None:
        heard(run)
    run.view.begin_run(run)
    await tag_run(run.flow_runs[0], (f"cluster:{run.cluster.name}", f"mode:{run.kind}"))
    if mode in ("bootstrap", "remove", "reset", "upgrade", "maintain"):
        writable(run.folder)
    with hold_lock(run.folder / "lock", run.cluster.name, shared=manner.only_looks, warned=run.warned.append):
        async with open_run(run), progressing(run):
            try:
                if run.kind not in ("bootstrap", "plan"):  # those look at all hosts before they choose
                    await choose(run, everyone=True)
                yield run
            except BaseException as error:
                run.report = manner.report(run, broken_off=_why(error))
                _write(run, report_file)
                await _leave_at_once(run, manner)
                raise
            else:
                run.report = manner.report(run)
                _write(run, report_file)
    with contextlib.suppress(asyncio.CancelledError):
        await manner.leave(run)


async def _leave_at_once(run: Run, manner: Manner) -> None:
    """Leave the artifacts of a run that was broken off: who cancels it from the UI looks for them there.

    Prefect's runner kills a cancelled run's process 30 s after it asked it to end (runner, grace_seconds).
    """
    with contextlib.suppress(Exception, asyncio.CancelledError):
        async with asyncio.timeout(LEAVE_SECONDS):
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
    """Write the report file where one was asked for; what keeps from it is reported, and undoes no cluster."""
    if report_file and run.report:
        try:
            run.report.write(Path(report_file))
        except OSError as error:
            run.report = replace(
                run.report, warnings=(*run.report.warnings, f"no report file: {describe_error(error)}")
            )


def verdict(run: Run) -> State[Report]:
    """Return the flow run's final state, with the report: failed unless everything is as wanted (or planned)."""
    report = run.report or report_of(run)
    counted = ", ".join(f"{count} {outcome}" for outcome, count in report.counted.items())
    retires = run.retirement.whole or (run.retirement.host and run.proof is None)
    proof = "" if retires else f"; {run.proof_said}"
    message = f"{report.outcome}: {len(report.hosts)} hosts; steps: {counted}{proof}"
    if report.errors:
        message = f"{report.outcome}: {causes(report.errors)}; {len(report.hosts)} hosts; steps: {counted}"
    return final_state(report, message)


def final_state(report: Report, message: str) -> State[Any]:
    """Return a flow run's final state: completed where all is as wanted (or planned), else failed by its outcome."""
    if report.outcome in ("ok", "planned"):
        return Completed(message=message, data=report)
    return Failed(name=report.outcome.capitalize(), message=message, data=report)


def end_by_steps(run: Run) -> State[Report]:
    """Return the final state of a verb's flow run, whose message counts steps, or names what ended it."""
    report = run.report or report_of_verb(run)
    counted = ", ".join(f"{count} {outcome}" for outcome, count in report.counted.items())
    return final_state(report, f"{report.outcome}: {causes(report.errors) if report.errors else f'steps: {counted}'}")
