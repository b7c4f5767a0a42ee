"""How a stage tells of its progress, waits for a check, and works on the API where there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shipway.converge import On, converge, wait_until
from shipway.errors import DeadlineExceeded, ShipwayError
from shipway.known_failures.catalogue import explain
from shipway.kube.client import Kube
from shipway.step import Check, Impact, StepResult, id_of
from tasks.context import Run
from tasks.stage_result import CLUSTER


def hear_results(run: Run, stage: str, host: str) -> Callable[[StepResult], None]:
    """Return what hears the results of a stage's steps."""

    def hear(result: StepResult) -> None:
        run.last_said[host] = f"{result.step}: {result.outcome}"
        run.view.show_step(host, stage, result)

    return hear


def hear_waits(run: Run, stage: str, host: str) -> Callable[[str], None]:
    """Return what hears the sentences of a wait."""

    def hear(sentence: str) -> None:
        run.last_said[host] = sentence
        run.view.show_wait(host, stage, sentence)

    return hear


async def by_api(run: Run, stage: str, steps: Sequence[Check[Kube]], host: str = CLUSTER) -> list[StepResult]:
    """Converge on the API; a plan of a cluster that is not there yet says so of every step.

    Raises Blocked and the SSH errors where a bootstrap finds no API.
    """
    if not steps:
        return []
    try:
        kube = await run.kube()
    except ShipwayError as error:
        if run.allow is not Impact.NOTHING:
            raise
        return [StepResult(step.name, "unknown", error=error, id=id_of(step)) for step in steps]
    kube.forget()
    return await converge(steps, kube, run.allow, hear_results(run, stage, host))


async def wait_for(run: Run, stage: str, check: Check[On], on: On, *, seconds: float) -> StepResult:
    """Return the result of waiting until a check is as wanted, within so many seconds."""
    try:
        await wait_until(check, on, seconds=seconds, every=1.0, on_wait=hear_waits(run, stage, on.name))
    except ShipwayError as error:
        if isinstance(error, DeadlineExceeded):
            explain(error, error.message)
        result = StepResult(check.name, "failed", error=error.at(host=on.name, step=check.name))
    else:
        result = StepResult(check.name, "ok")
    hear_results(run, stage, on.name)(result)
    return result
