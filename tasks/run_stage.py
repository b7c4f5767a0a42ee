"""A stage as a Prefect task run: one stage on one host, tried again only for what may pass."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

from prefect import State, Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.logging import get_run_logger
from prefect.states import Failed
from prefect.tasks import exponential_backoff

from shipway.errors import ShipwayError
from shipway.stage import StageName
from shipway.step import StepResult
from tasks.context import Run, current
from tasks.locking import still_alone
from tasks.returning import wait_for_lost
from tasks.stage import RETRIES
from tasks.stage_result import (
    CLUSTER,
    StageResult,
    StepRow,
    errors_of,
    find_lost,
    foreseen,
    report_redacted,
    report_timeout,
    worst,
)
from tasks.table import STAGES


class Returned:
    """Carries a stage's result out of its task.

    No dataclass, on purpose: Prefect draws an edge from a task to whoever is given one of the fields of its result,
    and two stages that share a host's name share that string.
    """

    def __init__(self, result: StageResult) -> None:
        self.result = result

    def __repr__(self) -> str:
        return f"<{self.result.stage} on {self.result.host}: {self.result.outcome}>"


async def _may_pass(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Say whether trying again can help; a coroutine, for Prefect gives a plain function no result to judge by."""
    data = await state.aresult(raise_on_failure=False)
    return isinstance(data, Returned) and data.result.may_pass


@task(
    cache_policy=NO_CACHE,  # "look again" must look again
    persist_result=False,
    task_run_name="{stage} on {host}",
    retries=RETRIES,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_jitter_factor=0.5,
    retry_condition_fn=_may_pass,
)
async def run_stage(stage: StageName, host: str) -> State[Returned] | Returned:
    """Run a stage of the current run on a host; gives the result, in a failed state where nothing may build on it."""
    run, log = current(), get_run_logger()
    run.view.begin_stage(host, stage)
    result, lost = await _do(run, stage, host)
    for row in (row for row in result.rows if row.outcome != "ok" or not STAGES[stage].terse):
        log.info("%s: %s%s", row.step, row.outcome, f" (was {row.have}; want {row.want})" if row.want else "")
    for error in result.errors:
        log.error("%s: %s [%s] Next: %s", error.step, error.cause, error.code, error.fix)
    run.view.end_stage(result)
    if STAGES[stage].retries:
        await wait_for_lost(run, stage, lost)
    return Returned(result) if result.stands else Failed(message=result.said, data=Returned(result))


async def _do(run: Run, stage: StageName, host: str) -> tuple[StageResult, frozenset[str]]:
    """Return how the stage ended, and what no longer answered; what is no error of ours goes on up."""
    session = run.session(host) if host in {spec.name for spec in run.cluster.hosts} else None
    before, started = session.round_trips if session else 0, time.monotonic()
    results: list[StepResult] = []
    try:
        still_alone(run)
        results = await STAGES[stage].work(run, stage, host)
        if run.mode == "plan":
            results = foreseen(host, results, pending=_pending(run, stage, host))
        errors = errors_of(host, results, run.allow)
    except ShipwayError as error:
        errors = (error.at(host=host, step=stage),)
    rows = tuple(_remember(run, stage, host, StepRow.of(result)) for result in results)
    outcome = "failed" if errors else worst([row.outcome for row in rows])
    trips = session.round_trips - before if session else 0
    seconds, reports = round(time.monotonic() - started, 3), tuple(report_redacted(error) for error in errors)
    return StageResult(host, stage, outcome, rows, trips, seconds, reports), find_lost(errors)


def _pending(run: Run, stage: StageName, host: str) -> bool:
    """Say whether a plan would change something before this stage, that may bring about what it checks."""
    if stage == StageName.PREFLIGHT:
        return False
    before = [result for result in run.results if host in (CLUSTER, result.host) or result.host == CLUSTER]
    return any(row.outcome in ("drifted", "unknown") for result in before for row in result.rows)


def _remember(run: Run, stage: str, host: str, row: StepRow) -> StepRow:
    """Return the row as `changed` where an earlier attempt of this stage changed it and this one found it in place."""
    changed = run.changed[stage, host]
    if row.outcome == "changed":
        changed.add(row.step)
    elif row.outcome == "ok" and row.step in changed:
        return StepRow(row.step, "changed", row.have, row.want, row.why, row.seconds)
    return row


@cache
def stage_task(stage: StageName, seconds: float) -> Task[[StageName, str], Any]:
    """Return the task of a stage, with the stage's name, limit in seconds and retries.

    It has no tags: for every tag Prefect asks its server for a concurrency slot before the task begins, once and
    without a retry, so that a server which restarts would end the run (see tasks/prefect_quirks.py).
    """
    retries = STAGES[stage].retries
    return run_stage.with_options(name=stage, timeout_seconds=seconds, retries=retries)


def edge(state: State[Any]) -> State[Any]:
    """Return the state so that waiting for it draws this one edge: with its data, Prefect would follow that as well.

    Completed states lose their data to True, for a state without any raises MissingResult where it is waited for.
    """
    return state.model_copy(update={"data": True}) if state.is_completed() else state


async def on(stage: StageName, host: str, *after: State[Any] | None) -> State[Any] | None:
    """Run a stage after the given ones; return its state when later stages may build on it, else None.

    The result is kept in the current run. Where one of `after` is None the stage is not run: whoever made that None
    has said why.
    """
    run = current()
    waits = [edge(state) for state in after if state is not None]
    if len(waits) < len(after):
        run.skip(host, stage)
        return None
    seconds = STAGES[stage].seconds(run.cluster)
    state: State[Any] = await stage_task(stage, seconds)(stage, host, wait_for=waits, return_state=True)  # type: ignore[misc]
    if state.state_details.task_run_id:
        run.task_runs.append(state.state_details.task_run_id)
    data = await state.aresult(raise_on_failure=False)
    if isinstance(data, Returned):
        run.results.append(data.result)
    elif state.name == "TimedOut":
        run.results.append(report_timeout(host, stage, seconds, run.last_said.get(host, "")))
        run.view.end_stage(run.results[-1])
    elif isinstance(data, BaseException):
        raise data  # no error of ours: a fault in this program, and Prefect holds its traceback
    return state if state.is_completed() else None
