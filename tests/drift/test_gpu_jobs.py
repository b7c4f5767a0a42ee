"""A repair drains a host only where what was decided of its GPU jobs allows it; else it is held back, with the job."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows import drift_passes
from shipway.errors import Refused
from shipway.gpu.chosen import VENDOR
from shipway.gpu.jobs import ANNOTATION
from shipway.kube import drain as drains
from shipway.step import Impact
from shipway.survey.first_look import Survey
from tasks.context import Run
from tasks.drift import repair
from tasks.drift.permission import explain_kept, find_kept, permission_now, repairable
from tests.drift.test_parts import Turns, finding, run_of
from tests.retire.objects import Object, Objects, node, pod

GPU = {"resources": {"limits": {VENDOR.resource: "1"}}}


def job(said: str = "", *, owner: str = "Job") -> Object:
    """Return a pod that holds a GPU of te2, annotated with what was decided of it."""
    one = pod("llm", "te2", owner=owner, container=GPU)
    one["metadata"]["annotations"] = {ANNOTATION: said} if said else {}
    return one


class Api(Objects):
    """An API that evicts what a drain asks it to, at once."""

    def __init__(self, *objects: Object) -> None:
        super().__init__(node("te2"), *objects)
        self.evicted: list[str] = []

    def forget(self) -> None:
        """Keep nothing."""

    @property
    def closed(self) -> bool:
        """Whether te2 takes no pods."""
        return bool(self.objects[0]["spec"].get("unschedulable"))


def placed(monkeypatch: pytest.MonkeyPatch, *pods: Object, **upgrade: Any) -> tuple[Run, Api]:
    """Return a pass that may drain hosts, with something to repair on te2, and its API."""
    run, api = run_of(**({"upgrade": upgrade} if upgrade else {})), Api(*pods)
    run.allow, run.drift.findings = Impact.WORKLOADS, {"te2": [finding(impact="WORKLOADS")]}
    run.seen.surveys = {"te2": cast("Survey", SimpleNamespace(joined=True))}

    async def kube() -> Any:
        return api

    async def evict(_: object, one: Object) -> str:
        api.evicted.append(one["metadata"]["name"])
        api.objects.remove(one)
        return ""

    monkeypatch.setattr(run, "kube", kube)
    monkeypatch.setattr(drains, "_evict", evict)
    return run, api


@pytest.mark.parametrize(
    ("pods", "upgrade", "word"),
    [
        ((), {}, ""),
        ((pod("web", "te2"),), {}, ""),
        ((job(),), {}, "wait"),
        ((job("never"),), {}, "never"),
        ((job("evict"),), {}, ""),
        ((job(),), {"gpu_jobs": "evict"}, ""),
        ((job("never"),), {"gpu_jobs": "evict"}, "never"),
        ((job(owner="ReplicaSet"),), {}, "no other replica is Ready"),
    ],
)
async def test_what_was_decided_of_gpu_jobs_forbids_a_drain_and_is_said(
    monkeypatch: pytest.MonkeyPatch, pods: tuple[Object, ...], upgrade: dict[str, str], word: str
) -> None:
    run, _ = placed(monkeypatch, *pods, **upgrade)
    await find_kept(run)
    allowed, (one,) = permission_now(run), run.drift.findings["te2"]
    assert repairable(run, allowed, one, Impact.WORKLOADS) is not bool(word)
    (told,) = explain_kept(run, allowed, [one], "te.yaml")
    assert (told.action, word in told.why) == ("held back" if word else "reported", True)
    assert not word or ("default/llm" in told.why and ANNOTATION in told.why)
    run.allow = Impact.SERVICE
    (told,) = explain_kept(run, permission_now(run), [one], "te.yaml")
    assert told.why == "repairs of workloads are not allowed", "no drain was asked for"


async def test_a_host_whose_job_is_over_is_drained_by_the_next_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    run, api = placed(monkeypatch, job("never"))
    await find_kept(run)
    assert run.drift.kept
    api.objects.pop()
    await find_kept(run, "te2")
    assert run.drift.kept == {}


async def test_a_host_that_does_not_tell_of_its_jobs_is_not_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = placed(monkeypatch)

    async def away() -> None:
        raise Refused("no answer")

    monkeypatch.setattr(run, "kube", away)
    await find_kept(run)
    assert run.drift.kept == {"te2": "the API cannot tell which GPU jobs run (no answer)"}


@pytest.mark.parametrize(("said", "taken"), [("never", []), ("evict", [("repair_drained", "te2")])])
async def test_the_turn_of_a_host_comes_only_where_its_jobs_may_go(
    monkeypatch: pytest.MonkeyPatch, said: str, taken: list[tuple[str, str]]
) -> None:
    run, _ = placed(monkeypatch, job(said))
    kube = run.kube
    turns = Turns(monkeypatch, run)
    monkeypatch.setattr(run, "kube", kube)
    await drift_passes.repair_all(run, "te.yaml", None)
    assert turns.taken == taken


async def test_a_node_that_a_killed_pass_left_closed_is_opened_where_its_jobs_forbid_the_drain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, _ = placed(monkeypatch, job("never"))
    run.drift.findings = {"te2": [finding()]}
    kube = run.kube
    turns = Turns(monkeypatch, run, left=["te2"])
    monkeypatch.setattr(run, "kube", kube)
    await drift_passes.repair_all(run, "te.yaml", None)
    assert (turns.taken, turns.opened) == ([("repair", "te2")], ["te2"])


def repaired(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let repairs on te2 be written down only."""
    done: list[str] = []

    async def converge(_run: Run, _stage: str, _host: str, _allow: Impact, *, drained: bool = False) -> list[Any]:
        done.append("drained" if drained else "as it is")
        return []

    async def ready(*_: object, **__: object) -> Any:
        return SimpleNamespace(outcome="ok")

    monkeypatch.setattr(repair, "new_lease", lambda _: asyncio.sleep(0))
    monkeypatch.setattr(repair, "_converge", converge)
    monkeypatch.setattr(repair, "_again", lambda *_: asyncio.sleep(0))
    monkeypatch.setattr(repair, "wait_for", ready)
    return done


async def test_what_may_go_is_evicted_and_the_host_repaired_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    run, api = placed(monkeypatch, job("evict"), pod("web", "te2"))
    done = repaired(monkeypatch)
    await repair.repair_drained(run, "repair_drained", "te2")
    assert (sorted(api.evicted), done, api.closed) == (["llm", "web"], ["drained"], False)


@pytest.mark.parametrize("late", [False, True])
async def test_a_job_that_may_not_go_is_left_and_the_host_repaired_beside_it(
    monkeypatch: pytest.MonkeyPatch, *, late: bool
) -> None:
    """Also one that has come since the host's turn was decided, or since the node was closed."""
    run, api = placed(monkeypatch, pod("web", "te2"), *([] if late else [job()]))
    done, real = repaired(monkeypatch), repair.cordon

    async def cordon(*given: Any) -> bool:
        api.objects += [job("never")]
        return await real(*given)

    monkeypatch.setattr(repair, "cordon", cordon)
    await repair.repair_drained(run, "repair_drained", "te2")
    assert (api.evicted, done, api.closed) == ([], ["as it is"], False)
    (told,) = explain_kept(run, permission_now(run), run.drift.findings["te2"], "te.yaml")
    assert told.action == "held back"
    assert "default/llm" in told.why


async def test_only_a_joined_host_of_a_pass_that_may_drain_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = placed(monkeypatch, job())
    run.allow = Impact.SERVICE
    await find_kept(run)
    assert run.drift.kept == {}, "it drains nothing"
    run.allow, run.seen.surveys = Impact.WORKLOADS, {"te2": cast("Survey", SimpleNamespace(joined=False))}
    await find_kept(run)
    assert run.drift.kept == {}
    run.seen.surveys, run.drift.findings = {"te2": cast("Survey", SimpleNamespace(joined=True))}, {"te2": []}
    await find_kept(run)
    assert run.drift.kept == {}, "nothing drifted there"
