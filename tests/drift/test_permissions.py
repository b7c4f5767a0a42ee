"""What may be changed where and when: no act goes above what the file, the clock, running pods and a person allow."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shipway.errors import ApiUnavailable
from shipway.kube.client import Kube
from shipway.os.debian.apt import RepositoryIs
from shipway.os.debian.packages import BaseUpgraded, DpkgInOrder, PackagesHeld, PackagesInstalled, PackagesInVersion
from shipway.place import Place
from shipway.step import Check, Drift, Impact, StepResult, id_of, restart_of
from shipway.steps.kubernetes.init import ControlPlaneInitialised
from shipway.steps.kubernetes.join.worker import NoBootstrapCredentials, NodeJoined
from shipway.steps.system.kernel import SwapOff
from shipway.steps.system.services import CONTAINERD
from shipway.survey.first_look import Survey
from tasks import table as stages
from tasks.context import Run
from tasks.drift import permission as drift_permission
from tasks.drift.permission import (
    UNLISTED,
    Permission,
    entry_of,
    explain_kept,
    permission,
    permission_on,
    permit_of,
    repairable,
    withhold_unapproved,
)
from tasks.findings import Finding, find
from tasks.stage_result import CLUSTER
from tasks.stages import gpu_driver
from tasks.stages.listed import PREPARATION, name_of
from tasks.workloads import BESIDE, beside_pods, find_busy, permit_undisturbed
from tests.drift.test_parts import Pods, finding, pod, run_of

SATURDAY = datetime(2026, 11, 28, 2, 30)  # noqa: DTZ001 - local time, as a window is
NIGHT = {"repair": {"window": {"cron": "0 2 * * 6", "minutes": 60}}}
CLOSED = SATURDAY + timedelta(hours=2)
GPU_PODS = "1 GPUs held by running pods"
RESTART = "it runs its current configuration"
ALL = Permission(Impact.WORKLOADS, Impact.WORKLOADS)


@dataclass
class Machine(Place):
    """A host (or a node of the API) that steps are applied on."""

    name: str = "te2"
    applied: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Act:
    """It is done."""

    impact: Impact
    name: str = "it is done"
    restarts: str = ""

    @property
    def id(self) -> str:
        """Acts of other names are other acts."""
        return self.name

    async def check(self, on: Machine) -> Drift | None:
        """Look whether it was applied."""
        return None if self.name in on.applied else Drift("no", "yes")

    async def apply(self, on: Machine) -> None:
        """Do it."""
        on.applied.append(self.name)


def answered(
    monkeypatch: pytest.MonkeyPatch, run: Run, *pods: dict[str, Any], error: ApiUnavailable | None = None
) -> Run:
    """Return the run with te2 joined and an API that has these pods, or none that answers."""
    run.seen.surveys = {"te2": cast("Survey", SimpleNamespace(joined=True))}

    async def kube() -> Kube:
        if error:
            raise error
        return cast("Kube", Pods(*pods))

    monkeypatch.setattr(run, "kube", kube)
    return run


def gpu_pod() -> dict[str, Any]:
    """Return a running pod that holds a GPU of te2."""
    one = pod()
    one["spec"]["containers"] = [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]
    return one


def at(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    """Let it be another time."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> Clock:  # type: ignore[override]
            del tz
            return cls(now.year, now.month, now.day, now.hour, now.minute)

    monkeypatch.setattr(drift_permission, "datetime", Clock)


@pytest.mark.parametrize("asked", Impact)
@pytest.mark.parametrize(
    ("sections", "now", "most"),
    [(NIGHT, SATURDAY, Impact.WORKLOADS), (NIGHT, CLOSED, Impact.FILES), ({}, CLOSED, Impact.WORKLOADS)],
)
def test_outside_the_window_only_files_change(
    asked: Impact, sections: dict[str, Any], now: datetime, most: Impact
) -> None:
    allowed = permission(run_of(**sections), asked, now)
    assert (allowed.asked, allowed.now) == (asked, min(asked, most))
    assert bool(allowed.why) is (asked > most)
    assert not allowed.why or allowed.why.endswith("it opens 2026-12-05 02:00")


def test_a_window_that_never_opens_again_is_reported_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_permission, "next_opening", lambda *_: None)
    assert permission(run_of(**NIGHT), Impact.SERVICE, CLOSED).why.endswith("it never opens again")


@pytest.mark.parametrize("now", Impact)
def test_without_a_drain_nothing_that_ends_workloads_is_allowed_and_never_more_than_the_clock_leaves(
    now: Impact,
) -> None:
    run = run_of(repair={"disturb": ["te3"]})
    run.seen.busy = {"te2": GPU_PODS, "te3": GPU_PODS}
    allowed = Permission(Impact.WORKLOADS, now)
    assert allowed.of(run, "te1") == allowed.of(run, "te3") == min(now, Impact.SERVICE)
    assert allowed.of(run, "te2") == min(now, Impact.START)


def test_what_is_of_the_whole_cluster_is_never_repaired_by_a_drain() -> None:
    run = run_of()
    assert not ALL.drains(run, finding(CLUSTER, impact="WORKLOADS"))
    assert not repairable(run, ALL, finding(CLUSTER, impact="WORKLOADS"), Impact.WORKLOADS)
    assert repairable(run, ALL, finding(CLUSTER), Impact.WORKLOADS)
    assert repairable(run, ALL, finding(impact="WORKLOADS"), Impact.WORKLOADS)
    service = Permission(Impact.WORKLOADS, Impact.SERVICE)
    assert not repairable(run, service, finding(impact="WORKLOADS"), Impact.WORKLOADS)


def test_no_repair_goes_above_what_its_part_may_have_and_none_that_was_withheld_is_tried_again() -> None:
    run = run_of()
    assert repairable(run, ALL, finding(), Impact.SERVICE)
    assert not repairable(run, ALL, finding(), Impact.FILES)
    run.drift.withheld = {finding().key: UNLISTED}
    assert not repairable(run, ALL, finding(), Impact.SERVICE)
    assert repairable(run, ALL, finding("te3"), Impact.SERVICE)


async def test_pods_that_started_since_the_pass_began_are_seen_right_before_an_act(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = answered(monkeypatch, run_of(), gpu_pod())
    run.allow = Impact.SERVICE
    permit = permit_of(run, "te2")
    assert run.seen.busy == {}
    assert await permit(Act(Impact.SERVICE)) is Impact.START
    assert run.drift.withheld == {("te2", "it is done"): GPU_PODS}
    assert (await permission_on(run, "te2")).of(run, "te2") is Impact.START
    assert await permit(Act(Impact.START, "a service runs")) is Impact.START
    assert list(run.drift.withheld) == [("te2", "it is done")]
    assert await permit(Act(Impact.FILES, "a file is so")) is Impact.FILES


async def test_a_restart_beside_pods_without_a_gpu_is_withheld_right_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    run = answered(monkeypatch, run_of(), pod())
    run.allow = Impact.SERVICE
    permit = permit_of(run, "te2")
    assert await permit(Act(Impact.SERVICE, RESTART, "containerd")) is Impact.START
    assert "1 pods run there" in run.drift.withheld["te2", RESTART]
    assert await permit(Act(Impact.SERVICE)) is Impact.SERVICE


async def test_what_only_pods_kept_from_may_be_tried_again_and_what_the_window_kept_from_may_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = answered(monkeypatch, run_of(**NIGHT), gpu_pod())
    run.allow, permit = Impact.WORKLOADS, permit_of(run, "te2")
    at(monkeypatch, SATURDAY)
    await permit(Act(Impact.SERVICE, "beside pods"))
    at(monkeypatch, CLOSED)
    await permit(Act(Impact.SERVICE, "too late"))
    assert list(run.drift.withheld) == [("te2", "beside pods"), ("te2", "too late")]
    assert run.drift.release("te2")
    assert list(run.drift.withheld) == [("te2", "too late")]


async def test_once_withheld_a_step_stays_so_when_the_pods_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    run = answered(monkeypatch, run_of())
    run.allow = Impact.SERVICE
    run.drift.withheld = {("te2", "it is done"): "why"}
    assert await permit_of(run, "te2")(Act(Impact.SERVICE)) is Impact.NOTHING
    assert await permit_of(run, "te2")(Act(Impact.FILES)) is Impact.NOTHING
    assert run.drift.withheld == {("te2", "it is done"): "why"}


async def test_a_step_is_withheld_under_the_key_of_its_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were built in two places: where one was changed, what nobody had approved was repaired."""
    run, step = answered(monkeypatch, run_of(**NIGHT)), SwapOff()
    run.allow = Impact.WORKLOADS
    at(monkeypatch, CLOSED)
    assert await permit_of(run, "te2")(step) is Impact.FILES
    result = StepResult("in other words", "drifted", step.impact, Drift("on", "off"), id=id_of(step))
    seen = find("te2", "prepare_system", result)
    assert seen
    assert seen.key in run.drift.withheld


@pytest.mark.parametrize("drained", [False, True])
async def test_a_window_that_closed_meanwhile_withholds_what_is_more_than_files(
    monkeypatch: pytest.MonkeyPatch, *, drained: bool
) -> None:
    run = answered(monkeypatch, run_of(**NIGHT))
    run.allow = Impact.WORKLOADS
    permit = permit_of(run, "te2", drained=drained)
    at(monkeypatch, SATURDAY)
    assert await permit(Act(Impact.SERVICE, "the first")) is (Impact.WORKLOADS if drained else Impact.SERVICE)
    at(monkeypatch, CLOSED)
    assert await permit(Act(Impact.SERVICE)) is Impact.FILES
    assert "outside the maintenance window" in run.drift.withheld["te2", "it is done"]
    assert await permit(Act(Impact.FILES, "a file is so")) is Impact.FILES
    assert await permit(Act(Impact.START, "a service runs")) is Impact.FILES, "a person may have stopped it"


async def test_on_a_drained_host_pods_that_came_again_keep_nothing_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    run = answered(monkeypatch, run_of(), gpu_pod())
    run.allow = Impact.WORKLOADS
    assert await permit_of(run, "te2", drained=True)(Act(Impact.WORKLOADS)) is Impact.WORKLOADS
    assert await permit_of(run, "te2")(Act(Impact.WORKLOADS)) is Impact.START
    run.seen.podded = {"te2": "pods"}
    assert await permit_of(run, "te2", drained=True)(Act(Impact.SERVICE, RESTART, "containerd")) is Impact.WORKLOADS


def looked_at(run: Run, **joined: bool) -> None:
    """Let the run have looked at these hosts."""
    run.seen.surveys = {name: cast("Survey", SimpleNamespace(joined=one)) for name, one in joined.items()}


def on(node: str, one: dict[str, Any]) -> dict[str, Any]:
    """Return a pod on another node."""
    return {**one, "spec": {**one["spec"], "nodeName": node}}


async def test_pods_of_the_hosts_that_are_asked_about_are_reported_and_what_is_known_of_others_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = answered(monkeypatch, run_of(), gpu_pod(), on("te3", gpu_pod()), on("te1", pod()))
    looked_at(run, te1=False, te2=True, te3=True)
    run.allow = Impact.SERVICE
    run.seen.busy, run.seen.podded = {"te2": "old", "te3": "old"}, {"te2": "old", "te3": "old"}
    await find_busy(run, "te2")
    beside = BESIDE.format(count=1)
    assert run.seen.busy == {"te2": GPU_PODS, "te3": "old"}
    assert run.seen.podded == {"te2": beside, "te3": "old"}
    await find_busy(run)
    assert run.seen.busy == {"te2": GPU_PODS, "te3": GPU_PODS}
    assert run.seen.podded == {"te2": beside, "te3": beside}, "te1 has not joined"


@pytest.mark.parametrize(("allow", "joined"), [(Impact.NOTHING, True), (Impact.SERVICE, False)])
async def test_where_nothing_may_change_or_has_joined_nobody_is_asked_for_pods(
    monkeypatch: pytest.MonkeyPatch, allow: Impact, *, joined: bool
) -> None:
    run, asked = run_of(), list[bool]()

    async def kube() -> Kube:
        asked.append(True)
        return cast("Kube", Pods())

    monkeypatch.setattr(run, "kube", kube)
    looked_at(run, te2=joined)
    run.allow = allow
    await find_busy(run)
    assert (asked, run.seen.busy, run.seen.podded) == ([], {}, {})


async def test_a_plan_asks_for_pods_for_it_says_what_a_run_would_withhold(monkeypatch: pytest.MonkeyPatch) -> None:
    run = answered(monkeypatch, Run(run_of().cluster, "plan"), gpu_pod())
    assert run.allow is Impact.NOTHING
    await find_busy(run)
    assert run.seen.busy == {"te2": GPU_PODS}


async def test_a_host_whose_pods_have_gone_is_busy_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    run = answered(monkeypatch, run_of())
    run.allow = Impact.SERVICE
    run.seen.busy, run.seen.podded = {"te2": "old"}, {"te2": "old"}
    await find_busy(run)
    assert (run.seen.busy, run.seen.podded) == ({}, {})


async def test_a_host_that_was_reset_since_is_busy_no_more_and_a_silent_one_stays_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = answered(monkeypatch, run_of())
    looked_at(run, te2=False)
    run.allow = Impact.WORKLOADS
    run.seen.busy, run.seen.podded = {"te2": "old", "te3": "old"}, {"te2": "old", "te3": "old"}
    await find_busy(run, "te2")
    assert (run.seen.busy, run.seen.podded) == ({"te3": "old"}, {"te3": "old"})


async def test_where_the_api_cannot_tell_every_joined_host_is_busy_but_that_of_the_control_plane(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = answered(monkeypatch, run_of(), error=ApiUnavailable("it is down"))
    looked_at(run, te1=True, te2=True, te3=False)
    run.allow = Impact.SERVICE
    await find_busy(run)
    assert list(run.seen.busy) == ["te2"]


async def test_pods_are_looked_at_anew_whatever_is_known_of_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    run, forgotten = answered(monkeypatch, run_of()), list[bool]()
    run.allow = Impact.SERVICE
    monkeypatch.setattr(Pods, "forget", lambda _: forgotten.append(True))
    await find_busy(run)
    assert forgotten == [True]


async def test_files_cost_no_question_for_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    run = answered(monkeypatch, run_of(), gpu_pod())
    run.allow = Impact.FILES
    await permission_on(run, "te2")
    run.allow = Impact.SERVICE
    assert await permit_of(run, "te2")(Act(Impact.FILES)) is Impact.FILES
    assert run.seen.busy == {}


async def test_where_nothing_is_allowed_pods_allow_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    run = answered(monkeypatch, run_of())
    run.seen.podded, run.allow = {"te2": "3 pods run there"}, Impact.NOTHING
    assert await permit_of(run, "te2")(Act(Impact.SERVICE, RESTART, "containerd")) is Impact.NOTHING


async def test_the_strongest_reason_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    run = answered(monkeypatch, run_of(), error=ApiUnavailable("it is down"))
    run.allow = Impact.SERVICE
    assert await permit_of(run, "te2")(Act(Impact.SERVICE)) is Impact.START
    assert "it is down" in run.drift.withheld["te2", "it is done"]


def test_what_a_person_did_not_approve_is_withheld_and_nothing_where_nobody_was_asked() -> None:
    run, known, other = run_of(), finding(), finding("te3")
    withhold_unapproved(run, [known, other])
    assert run.drift.withheld == {}
    run.drift.approved = frozenset({entry_of(known)})
    withhold_unapproved(run, [known, other])
    assert run.drift.withheld == {other.key: UNLISTED}
    changed = Finding(known.host, known.stage, known.step, "something else", known.want, known.impact)
    withhold_unapproved(run, [changed])
    assert known.key in run.drift.withheld


@pytest.mark.parametrize(
    ("one", "allowed", "action", "why"),
    [
        (finding(stage="join_worker", impact="WORKLOADS"), ALL, "reported", "joining is a bootstrap's work"),
        (finding(stage="join_worker", impact="FILES"), ALL, "reported", ""),
        (finding(stage="gpu_driver", impact="WORKLOADS"), ALL, "reported", "the driver of a host in service is"),
        (finding(stage="gpu_driver", impact="FILES"), ALL, "reported", ""),
        (finding(stage="prepare_system", impact="WORKLOADS"), ALL, "reported", ""),
        (finding(impact="NOTHING"), Permission(Impact.NOTHING, Impact.NOTHING), "reported", ""),
        (finding(), Permission(Impact.NOTHING, Impact.NOTHING), "reported", "this pass only looks"),
        (finding(), Permission(Impact.FILES, Impact.FILES), "reported", "repairs of service are not allowed"),
        (finding(impact="START"), Permission(Impact.FILES, Impact.FILES), "reported", "repairs of service are not"),
        (finding(), Permission(Impact.SERVICE, Impact.SERVICE), "reported", ""),
        (finding(), Permission(Impact.SERVICE, Impact.FILES, "it is day"), "held back", "it is day"),
        (finding(impact="FILES"), Permission(Impact.SERVICE, Impact.FILES, "it is day"), "reported", ""),
    ],
)
def test_what_is_not_repaired_is_reported_with_the_reason(
    one: Finding, allowed: Permission, action: str, why: str
) -> None:
    (heard,) = explain_kept(run_of(), allowed, [one], "te.yaml")
    assert heard.action == action
    assert heard.why.startswith(why)
    assert bool(heard.why) is bool(why)


@pytest.mark.parametrize(
    ("host", "impact", "asks_for"),
    [
        ("te2", "FILES", "files"),
        ("te2", "START", "service"),
        ("te2", "SERVICE", "workloads"),
        ("te2", "WORKLOADS", "workloads"),
        ("te1", "SERVICE", "service"),
        ("te1", "WORKLOADS", "workloads"),
        ("te3", "SERVICE", "service"),  # may be disturbed
    ],
)
def test_beside_gpu_pods_the_advised_repair_asks_for_a_drain_only_where_nothing_less_would_do(
    host: str, impact: str, asks_for: str
) -> None:
    run = run_of(repair={"disturb": ["te3"]})
    run.seen.busy = {"te2": GPU_PODS, "te3": GPU_PODS}
    (heard,) = explain_kept(run, Permission(Impact.NOTHING, Impact.NOTHING), [finding(host, impact=impact)], "te.yaml")
    assert heard.command.endswith(f"--repair {asks_for} --host {host}")


def test_the_window_is_reported_before_pods_and_an_act_withheld_with_its_own_reason() -> None:
    run = run_of()
    run.drift.withheld = {finding().key: UNLISTED}
    (heard,) = explain_kept(run, ALL, [finding()], "te.yaml")
    assert (heard.action, heard.why) == ("held back", UNLISTED)
    run.seen.busy = {"te2": GPU_PODS}
    (heard,) = explain_kept(run, Permission(Impact.SERVICE, Impact.FILES, "it is day"), [finding()], "te.yaml")
    assert heard.why == "it is day"
    (heard,) = explain_kept(
        run, Permission(Impact.SERVICE, Impact.FILES, "it is day"), [finding(step="a file", impact="FILES")], "te.yaml"
    )
    assert heard.action == "reported"
    run.seen.busy, run.drift.withheld, run.seen.podded = {}, {}, {"te2": "3 pods run there"}
    (heard,) = explain_kept(
        run, Permission(Impact.SERVICE, Impact.SERVICE), [replace(finding(), restarts="containerd")], "te.yaml"
    )
    assert heard.command.endswith("--repair workloads --host te2")


@pytest.mark.parametrize(
    ("step", "impact"),
    [
        (ControlPlaneInitialised, Impact.WORKLOADS),
        (NodeJoined, Impact.WORKLOADS),
        (PackagesInVersion, Impact.WORKLOADS),
        (BaseUpgraded, Impact.WORKLOADS),
        (PackagesInstalled, Impact.SERVICE),
        (DpkgInOrder, Impact.SERVICE),
        (PackagesHeld, Impact.FILES),
        (RepositoryIs, Impact.FILES),
        (NoBootstrapCredentials, Impact.FILES),
    ],
)
def test_what_may_end_pods_or_services_says_so(step: Any, impact: Impact) -> None:
    assert step.impact is impact


def test_finishing_what_dpkg_began_counts_as_a_restart_of_containerd() -> None:
    """Beside running pods it was done unasked, though the package that it configures may be containerd's."""
    assert restart_of(DpkgInOrder()) == CONTAINERD


def staged(monkeypatch: pytest.MonkeyPatch, run: Run, host: Machine) -> None:
    """Let the run's sessions be this machine."""
    monkeypatch.setattr(run, "session", lambda _: host)


def module(*acts: Act) -> Any:
    """Return a stage's module with these steps."""
    return SimpleNamespace(steps=lambda _cluster, _host, _family: list[Check[Any]](acts))


# The driver's stage has a rule of its own: tests/gpu/test_driver_stage.py.
@pytest.mark.parametrize("name", [name_of(stage) for stage in PREPARATION if stage is not gpu_driver])
@pytest.mark.parametrize("joined", [True, False, None])
async def test_no_stage_ends_workloads_on_a_host_that_has_joined_or_of_which_nobody_knows(
    monkeypatch: pytest.MonkeyPatch, name: str, *, joined: bool | None
) -> None:
    run, host = Run(run_of().cluster, "bootstrap"), Machine()
    answered(monkeypatch, run)
    staged(monkeypatch, run, host)
    run.seen.surveys = {} if joined is None else {"te2": cast("Survey", SimpleNamespace(joined=joined))}
    work = cast("Any", stages.STAGES[name].work)
    assert work.func is stages._on_host
    acts = (Act(Impact.FILES, "a file"), Act(Impact.SERVICE, "a service"), Act(Impact.WORKLOADS, "a package"))
    results: list[StepResult] = await work.func(module(*acts), run, name, "te2")
    assert host.applied == ["a file", "a service", *(["a package"] if joined is False else [])]
    assert results[2].outcome == ("changed" if joined is False else "drifted")


@pytest.mark.parametrize(
    ("busy", "applied"), [(True, ["a file", "a start"]), (False, ["a file", "a start", "a service"])]
)
async def test_a_bootstrap_disturbs_no_gpu_pods_that_started_meanwhile(
    monkeypatch: pytest.MonkeyPatch, applied: list[str], *, busy: bool
) -> None:
    run, host = Run(run_of().cluster, "bootstrap"), Machine()
    answered(monkeypatch, run, *([gpu_pod()] if busy else []))
    staged(monkeypatch, run, host)
    acts = (Act(Impact.FILES, "a file"), Act(Impact.START, "a start"), Act(Impact.SERVICE, "a service"))
    await stages._on_host(module(*acts), run, "prepare_system", "te2")
    assert host.applied == applied


async def test_a_bootstrap_does_not_restart_containerd_beside_pods_that_started_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = answered(monkeypatch, Run(run_of().cluster, "bootstrap"), pod())
    permit = permit_undisturbed(run, "te2")
    assert await permit(Act(Impact.FILES, RESTART, CONTAINERD)) is Impact.WORKLOADS
    assert await permit(Act(Impact.START)) is Impact.WORKLOADS
    assert run.seen.podded == {}, "what disturbs nothing costs no question"
    assert await permit(Act(Impact.SERVICE, RESTART, CONTAINERD)) is Impact.START
    assert await permit(Act(Impact.SERVICE)) is Impact.WORKLOADS
    run.allow = Impact.NOTHING
    assert await permit(Act(Impact.SERVICE, RESTART, CONTAINERD)) is Impact.NOTHING


@pytest.mark.parametrize(
    ("host", "restarts", "impact", "kept"),
    [
        ("te2", CONTAINERD, Impact.SERVICE, "pods"),
        ("te3", CONTAINERD, Impact.SERVICE, ""),  # may be disturbed
        ("te1", CONTAINERD, Impact.SERVICE, ""),  # has none
        ("te2", "kubelet", Impact.SERVICE, ""),
        ("te2", CONTAINERD, Impact.FILES, ""),
        ("te2", CONTAINERD, Impact.WORKLOADS, ""),  # decided by its impact alone
    ],
)
def test_only_a_restart_of_containerd_is_kept_from_pods(host: str, restarts: str, impact: Impact, kept: str) -> None:
    run = run_of(repair={"disturb": ["te3"]})
    run.seen.podded = {"te2": "pods", "te3": "pods"}
    assert beside_pods(run, host, restarts, impact) == kept


async def test_a_plan_changes_nothing_on_any_host(monkeypatch: pytest.MonkeyPatch) -> None:
    run, host = Run(run_of().cluster, "plan"), Machine()
    staged(monkeypatch, run, host)
    for joined in (True, False):
        run.seen.surveys = {"te2": cast("Survey", SimpleNamespace(joined=joined))}
        await stages._on_host(module(Act(Impact.FILES)), run, "prepare_system", "te2")
    assert host.applied == []
