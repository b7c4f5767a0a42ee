"""A stage as a Prefect task: retried for what may pass, cut off at its limit, and nothing builds on what failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from prefect import State, flow

from shipway.cluster_file import parse_cluster
from shipway.errors import LoginRefused, Unreachable
from shipway.step import Impact, StepResult
from tasks import run_stage as running
from tasks.context import Run, open_run
from tasks.run_stage import on
from tasks.stage import Stage
from tasks.table import STAGES
from tests.places.prefect import Place, rows

pytestmark = pytest.mark.xdist_group("prefect")

FILE = "name: fake\nprofile: seed\nhosts:\n- {name: one, address: 192.0.2.1}\n- {name: two, address: 192.0.2.2}\n"
Answers = list[list[StepResult] | Exception | float]


def stage_of(name: str, answers: Answers, seconds: float = 20.0) -> Stage:
    """Return a stage whose attempts give these results, raise these errors, or sleep so many seconds."""

    async def work(_run: Run, _stage: str, _host: str) -> list[StepResult]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            return []
        return answer

    return Stage(name, work, lambda _: seconds)


@pytest.fixture
def fly(
    prefect_place: Place, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, Stage], Callable[[], Awaitable[Any]]], Run]:
    """Return what runs an order of fake stages as a flow, and gives its run."""
    assert prefect_place.api.own
    hurried = running.run_stage.with_options(retry_delay_seconds=0, retry_jitter_factor=None)
    monkeypatch.setattr(running, "run_stage", hurried)
    running.stage_task.cache_clear()

    def flown(stages: dict[str, Stage], order: Callable[[], Awaitable[Any]]) -> Run:
        for name, stage in stages.items():
            monkeypatch.setitem(STAGES, name, stage)

        @flow(name="fake")
        async def fake() -> None:
            async with open_run(run):
                await order()

        run = Run(parse_cluster(FILE), "bootstrap")
        asyncio.run(fake())
        return run

    return flown


Fly = Callable[[dict[str, Stage], Callable[[], Awaitable[Any]]], Run]
CHANGED = StepResult("it is so", "changed", Impact.FILES)
OK = StepResult("it is so", "ok", Impact.FILES)


def test_what_may_pass_is_tried_again_and_what_an_earlier_try_changed_counts_as_changed(fly: Fly) -> None:
    lost = StepResult("the rest", "failed", error=Unreachable("gone"))
    flaky: Answers = [[CHANGED, lost], Unreachable("gone"), [OK, StepResult("the rest", "ok")]]
    run = fly({"flaky": stage_of("flaky", flaky)}, lambda: on("flaky", "one"))
    assert not flaky
    assert [(row.step, row.outcome) for row in run.results[0].rows] == [("it is so", "changed"), ("the rest", "ok")]
    assert (len(run.results), run.results[0].outcome) == (1, "changed")


def test_what_does_not_pass_is_tried_once_and_nothing_builds_on_it(fly: Fly) -> None:
    refusals: Answers = [LoginRefused("no such key"), []]
    states: list[State[Any] | None] = []

    async def order() -> None:
        states.append(await on("barred", "one"))
        states.append(await on("later", "one", states[0]))
        states.append(await on("later", "two"))

    run = fly({"barred": stage_of("barred", refusals), "later": stage_of("later", [[OK]])}, order)
    assert len(refusals) == 1
    assert [state is None for state in states] == [True, True, False]
    barred, later, other = run.results
    assert (barred.outcome, barred.errors[0].code, barred.errors[0].host) == ("failed", "SHW-302", "one")
    assert (later.outcome, later.rows[0].why) == ("unknown", "not tried: an earlier stage did not succeed")
    assert other.outcome == "ok"


def test_a_stage_that_hangs_is_cut_off_and_says_what_was_seen_last(fly: Fly) -> None:
    hanging = replace(stage_of("hanging", [60.0], seconds=0.5), retries=0)

    def order() -> Awaitable[Any]:
        return on("hanging", "one")

    run = fly({"hanging": hanging}, order)
    assert run.results[0].errors[0].cause == "not done after 0 s; last seen: nothing yet"
    assert (run.results[0].outcome, run.results[0].errors[0].code) == ("failed", "SHW-203")


def test_a_fault_of_the_program_is_no_result_but_ends_the_run(fly: Fly) -> None:
    with pytest.raises(ZeroDivisionError):
        fly({"faulty": stage_of("faulty", [ZeroDivisionError("a fault")])}, lambda: on("faulty", "one"))


def test_a_failed_stages_state_says_why_and_holds_no_secret(fly: Fly, prefect_place: Place) -> None:
    said = "kubeadm join --token abcdef.0123456789abcdef failed"
    run = fly({"telling": stage_of("telling", [LoginRefused(said)])}, lambda: on("telling", "one"))
    assert prefect_place.api.drain([], 0) == ""
    assert "abcdef.0123456789abcdef" not in run.results[0].said
    assert "[SHW-302]" in run.results[0].said
    assert rows(prefect_place.home, "select count(*) from flow_run where state_type is not null")[0][0] > 0
