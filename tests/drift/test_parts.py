"""Parts of drift repair on their own: what became of findings, what is allowed, when repairs are ended."""

from __future__ import annotations

import ast
import asyncio
import inspect
import pkgutil
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows import drift_passes
from flows.drift_passes import Breaker
from shipway import steps
from shipway.cluster.model import Cluster
from shipway.converge import look_at_all
from shipway.errors import PostconditionFailed, Refused, Unreachable
from shipway.facts.commands import Says
from shipway.facts.services import UnitInfo
from shipway.kube.client import Kube
from shipway.kube.reads import Reads
from shipway.place import Place
from shipway.stage import StageName
from shipway.step import Drift, Impact, StepResult, restart_of
from shipway.steps.authority.left import NoneLeftBehind
from shipway.steps.kubernetes.health import expires
from shipway.steps.kubernetes.health_cluster import ACCEPTED, NodeOpen, NodeReady
from shipway.steps.kubernetes.retire import NodeDrained
from shipway.steps.runtime.pause_image import SandboxImageAgrees
from shipway.survey.first_look import Survey
from tasks.context import Run
from tasks.drift import repair
from tasks.drift.artifacts import drift_markdown, trend_markdown
from tasks.drift.parts import cluster_parts, host_parts
from tasks.drift.permission import Permission, explain_kept, repairable
from tasks.drift.repair import became, outcome_of
from tasks.drift.report import drift_report, findings_of
from tasks.findings import Finding, distinct, find, sort_left
from tasks.stage_result import StageResult, StepRow
from tasks.stages import container_runtime, nvidia_runtime
from tasks.stages.listed import ADD_ONS, PREPARATION, name_of
from tasks.table import STAGES
from tasks.workloads import BESIDE, OWN_NAMESPACES, find_busy
from tests.places.facts import DEBIAN
from tests.places.kube import cluster_of
from tools.traps import sources


def finding(
    host: str = "te2", step: str = "swap is off", impact: str = "SERVICE", stage: str = "prepare_system"
) -> Finding:
    return Finding(host, stage, step, "on", "off", impact)


def run_of(**sections: object) -> Run:
    cluster: Cluster = cluster_of(("te1", "te2", "te3"), **sections)
    return Run(cluster, "drift")


def test_what_became_of_findings() -> None:
    gone, again, broke, kept = (finding(step=step) for step in ("gone", "again", "broke", "kept"))
    drift = Drift("on", "off")
    results = [
        StepResult("gone", "changed", Impact.SERVICE, drift),
        StepResult("again", "changed", Impact.SERVICE, drift),
        StepResult("broke", "failed", Impact.SERVICE, drift, PostconditionFailed("it did not end")),
        StepResult("kept", "failed", Impact.NOTHING, None, PostconditionFailed("a look that failed is no repair")),
    ]
    new = finding(step="new")
    after = {one.key: one for one in (again, broke, kept, new)}
    ends = {one.step: one.action for one in became([gone, again, broke, kept], after, results)}
    assert ends == {"gone": "repaired", "again": "came back", "broke": "failed", "kept": "reported", "new": "reported"}


def test_beside_gpu_pods_nothing_that_runs_is_restarted_unless_the_host_may_be_disturbed() -> None:
    run = run_of()
    run.seen.busy = {"te2": "1 GPUs held by running pods"}
    allowed = Permission(Impact.SERVICE, Impact.SERVICE)
    assert not repairable(run, allowed, finding(), Impact.WORKLOADS)
    assert repairable(run, allowed, finding(impact="FILES"), Impact.WORKLOADS)
    assert repairable(run, allowed, finding("te3"), Impact.WORKLOADS)
    held = explain_kept(run, allowed, [finding()], "te.yaml")[0]
    assert (held.action, held.why) == ("held back", "1 GPUs held by running pods")
    assert held.command == "python -m flows.drift_repair te.yaml --repair workloads --host te2"
    free = run_of(repair={"disturb": ["te2"]})
    free.busy = run.seen.busy
    assert repairable(free, allowed, finding(), Impact.WORKLOADS)


@pytest.mark.parametrize(
    ("restarts", "impact", "sections", "held"),
    [
        ("containerd", "SERVICE", {}, True),
        ("containerd", "SERVICE", {"repair": {"disturb": ["te2"]}}, False),
        ("kubelet", "SERVICE", {}, False),
        ("", "SERVICE", {}, False),
        ("", "FILES", {}, False),
    ],
)
async def test_beside_pods_without_a_gpu_only_a_restart_of_containerd_is_held_back(
    restarts: str, impact: str, sections: dict[str, object], *, held: bool
) -> None:
    """Whatever the step's sentence says."""
    run = run_of(**sections)
    run.seen.podded = {"te2": "3 pods run there"}
    one, other = (
        replace(finding(host, "a containerd of any words", impact), restarts=restarts) for host in ("te2", "te3")
    )
    allowed = Permission(Impact.SERVICE, Impact.SERVICE)
    assert repairable(run, allowed, one, Impact.WORKLOADS) is not held
    assert repairable(run, allowed, other, Impact.WORKLOADS)
    (heard,) = explain_kept(run, allowed, [one], "te.yaml")
    assert heard.action == ("held back" if held else "reported")
    drained = Permission(Impact.WORKLOADS, Impact.WORKLOADS)
    assert drained.drains(run, one) is held


def test_which_steps_restart_what() -> None:
    """Each step whose own commands restart a unit says so, and so do those that containerd's restart follows."""
    cluster = run_of().cluster
    runtime = [
        step
        for module in (container_runtime, nvidia_runtime)
        for step in module.steps(cluster, cluster.hosts[1], DEBIAN)
    ]
    heard = {step.name for step in runtime if restart_of(step) == "containerd" and step.impact is Impact.SERVICE}
    assert heard == {
        "containerd is installed",
        "containerd uses the systemd cgroup driver and our sandbox image",
        "containerd has the nvidia runtime",
        "containerd runs its current configuration",
        "containers may lock memory without a limit",
    }
    assert restart_of(SandboxImageAgrees(Says(("true",)))) == "containerd"
    silent = []
    modules = [import_module(one.name) for one in pkgutil.walk_packages(steps.__path__, f"{steps.__name__}.")]
    assert len(modules) >= 30
    for module in modules:
        for kind in vars(module).values():
            act = vars(kind).get("apply") if isinstance(kind, type) else None
            text = inspect.getsource(act) if act is not None else ""
            restarting = re.search(r'\brestart\(on|"restart"', text) and 'verb="reload"' not in text
            if restarting and not hasattr(kind, "restarts"):
                silent.append(kind.__name__)
    assert silent == []


async def test_what_is_found_says_what_its_repair_restarts() -> None:
    step = SandboxImageAgrees(Says(("true",)))
    (result,) = await look_at_all([step], cast("Any", Unasked()))
    assert result.restarts == "containerd"
    heard = find("te2", "container_runtime", result)
    assert heard is not None
    assert heard.restarts == "containerd"


class Unasked(Place):
    """A host that answers nothing."""

    name = "te2"

    async def read(self, *_: object) -> None:
        """Be away."""
        raise Unreachable("no answer")


class Pods(Reads):
    """An API that has these pods."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        super().__init__()
        self.pods = pods

    async def list_(self, *_: str, **__: str) -> list[dict[str, Any]]:
        """Return them."""
        return list(self.pods)


def pod(namespace: str = "default", phase: str = "Running", node: str = "te2", **meta: object) -> dict[str, Any]:
    metadata = {"name": "p", "namespace": namespace, **meta}
    return {"metadata": metadata, "spec": {"nodeName": node}, "status": {"phase": phase}}


DAEMON = [{"kind": "DaemonSet", "name": "d", "controller": True}]


@pytest.mark.parametrize(
    ("one", "counts"),
    [
        (pod(), True),
        (pod(ownerReferences=[{"kind": "ReplicaSet", "name": "r", "controller": True}]), True),
        (pod(phase="Pending"), True),
        (pod(phase="Succeeded"), False),
        (pod(ownerReferences=DAEMON), False),
        (pod(annotations={"kubernetes.io/config.mirror": "x"}), False),
        (pod("kube-system"), False),
        (pod(node="elsewhere"), False),
    ],
)
@pytest.mark.parametrize("allowed", [False, True])
async def test_which_pods_keep_containerd_from_a_restart(
    monkeypatch: pytest.MonkeyPatch, one: dict[str, Any], *, counts: bool, allowed: bool
) -> None:
    run = run_of(repair={"restart_beside_pods": allowed})
    run.allow = Impact.SERVICE
    run.seen.surveys = {"te2": cast("Survey", SimpleNamespace(joined=True))}

    async def kube() -> Kube:
        return cast("Kube", Pods(one))

    monkeypatch.setattr(run, "kube", kube)
    await find_busy(run, "te2")
    assert (run.seen.podded, run.seen.busy) == ({"te2": BESIDE.format(count=1)} if counts and not allowed else {}, {})


def test_workloads_allowed_a_busy_host_is_drained_for_a_service() -> None:
    run = run_of()
    run.seen.busy = {"te2": "1 GPUs held by running pods"}
    allowed = Permission(Impact.WORKLOADS, Impact.WORKLOADS)
    assert allowed.drains(run, finding())
    assert not allowed.drains(run, finding("te3"))
    assert allowed.drains(run, finding("te3", impact="WORKLOADS"))


def test_what_no_step_can_repair_and_joins_are_never_repaired() -> None:
    run, allowed = run_of(), Permission(Impact.WORKLOADS, Impact.WORKLOADS)
    assert not repairable(run, allowed, finding(impact="NOTHING"), Impact.WORKLOADS)
    joining = finding(step="the node has joined", impact="WORKLOADS", stage="join_worker")
    assert not repairable(run, allowed, joining, Impact.SERVICE)
    assert explain_kept(run, allowed, [joining], "te.yaml")[0].command == "python -m flows.bootstrap te.yaml --host te2"


async def always(_host: str) -> str:
    return "repair"


@pytest.mark.parametrize(
    ("ends", "tried"), [("bad bad good good", 2), ("bad good bad good", 4), ("good good bad bad", 4)]
)
async def test_two_repairs_in_a_row_that_leave_their_host_worse_end_them(
    monkeypatch: pytest.MonkeyPatch, ends: str, tried: int
) -> None:
    run, seen = run_of(), []

    async def on(_stage: str, host: str) -> str | None:
        seen.append(host)
        return "state" if ends.split()[len(seen) - 1] == "good" else None

    monkeypatch.setattr(drift_passes, "on", on)
    breaker = Breaker(run)
    await breaker.repair(["a", "b", "c", "d"], 1, always)
    assert len(seen) == tried
    assert bool(breaker.why) == ("bad bad" in ends)


@pytest.mark.parametrize("at_once", [1, 2])
async def test_at_most_so_many_hosts_are_repaired_at_once(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    under_way, most = 0, 0

    async def on(_stage: str, _host: str) -> str:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return "state"

    monkeypatch.setattr(drift_passes, "on", on)
    await Breaker(run_of()).repair(["a", "b", "c", "d", "e"], at_once, always)
    assert most == at_once


class Turns:
    """A pass whose hosts' turns are only written down; `during` happens in each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, run: Run, left: Sequence[str] = ()) -> None:
        self.taken: list[tuple[str, str]] = []
        self.opened: list[str] = []
        self.during: Callable[[str, str], None] = lambda _stage, _host: None
        self.why = "repair by Shipway (since 2026)"
        self.looked_again: list[bool] = []

        async def nothing(*_: object) -> None: ...

        async def cluster(_: object, *, opened: bool) -> None:
            self.looked_again.append(opened)

        async def left_cordoned(_: object) -> dict[str, str]:
            return dict.fromkeys(left, self.why)

        async def opened(_: object, name: str) -> None:
            self.opened.append(name)

        async def on(stage: str, host: str) -> str:
            self.taken.append((stage, host))
            self.during(stage, host)
            return "state"

        async def permission_on(run: Run, _host: str) -> Permission:
            return drift_passes.permission_now(run)

        fakes = {"find_busy": nothing, "new_lease": nothing, "_cluster": cluster, "find_left_cordoned": left_cordoned}
        more = {"still_alone": lambda _: None, "keep_history": lambda *_: None, "permission_on": permission_on}
        for name, fake in {**fakes, **more, "uncordon": opened, "on": on}.items():
            monkeypatch.setattr(drift_passes, name, fake)
        monkeypatch.setattr(run, "kube", lambda: asyncio.sleep(0, SimpleNamespace(forget=lambda: None)))


@pytest.mark.parametrize(
    ("allow", "impact", "taken", "opened"),
    [
        (Impact.WORKLOADS, "SERVICE", [("repair_drained", "te2")], []),
        (Impact.WORKLOADS, "FILES", [("repair", "te2"), ("repair", "te2")], ["te2"]),
        (Impact.SERVICE, "SERVICE", [("repair", "te2")], ["te2"]),
    ],
)
async def test_a_node_that_a_killed_pass_left_cordoned_stays_so_until_its_turn_where_hosts_are_drained(
    monkeypatch: pytest.MonkeyPatch, allow: Impact, impact: str, taken: list[tuple[str, str]], opened: list[str]
) -> None:
    """Opened first, it is given pods that hold its repair back, or that are evicted a moment later."""
    run = run_of()
    run.allow, run.drift.findings = allow, {"te2": [finding(impact=impact)]}
    turns = Turns(monkeypatch, run, left=["te2"])
    await drift_passes.repair_all(run, "te.yaml", None)
    assert (turns.taken, turns.opened, turns.looked_again) == (taken, opened, [bool(opened)])


@pytest.mark.parametrize("note", ["upgrade to 1.32.0 by Shipway", "maintenance by Shipway"])
async def test_a_node_that_a_run_in_waves_left_closed_is_opened_by_the_next_one_alone(
    note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not proven there: a repair knows nothing of that."""
    run = run_of()
    run.allow, run.drift.findings = Impact.SERVICE, {}
    turns = Turns(monkeypatch, run, left=["te2"])
    turns.why = f"{note} (since 2026)"
    await drift_passes.repair_all(run, "te.yaml", None)
    assert turns.opened == []


async def test_a_node_that_was_opened_is_looked_at_again_though_nothing_else_was_repaired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pass opened it, and reported it as cordoned, with the advice to open it."""
    run, taken = run_of(), list[str]()

    async def on(stage: str, _host: str) -> None:
        taken.append(stage)

    monkeypatch.setattr(drift_passes, "on", on)
    for opened in (False, True):
        await drift_passes._cluster(run, opened=opened)
    assert taken == ["repair_cluster"]


async def test_a_drain_that_is_refused_opens_the_node_that_a_killed_pass_left_cordoned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, opened = run_of(), list[str]()

    async def refused(*_: object, **__: object) -> None:
        raise Refused("a drain of te2 would destroy default/late", code="SHW-337")

    async def uncordoned(_: object, node: str) -> None:
        opened.append(node)

    monkeypatch.setattr(run, "kube", lambda: asyncio.sleep(0, SimpleNamespace()))
    monkeypatch.setattr(repair, "new_lease", lambda _: asyncio.sleep(0))
    monkeypatch.setattr(NodeDrained, "check", refused)
    monkeypatch.setattr(repair, "uncordon", uncordoned)
    with pytest.raises(Refused, match="would destroy"):
        await repair.repair_drained(run, "repair_drained", "te2")
    assert opened == ["te2"]


def test_only_what_a_repair_set_counts_as_repaired_and_a_fight_has_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPUs that are offered again, four times a day, were a fight of Shipway's; an absent finding had only its id."""
    run = run_of(state_dir=str(tmp_path))
    monkeypatch.setattr(drift_passes, "explain", lambda *_: None)
    follows, mended = finding(step="GPUs are offered", impact="NOTHING"), replace(finding(), id="Swap")
    for _ in range(3):
        run.drift.findings = {"te2": [follows.became("repaired"), mended.became("repaired")]}
        drift_passes.keep_history(run, "te.yaml")
    run.drift.findings = {}
    run.results.append(StageResult("te2", "look", "ok", (StepRow("swap is off", "ok", id="Swap"),)))
    drift_passes.keep_history(run, "te.yaml")
    (fight,) = run.drift.fights
    assert fight.startswith("te2: swap is off: repaired 3 times")


async def test_a_node_left_cordoned_whose_turn_does_not_come_is_opened_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = run_of()
    run.allow = Impact.WORKLOADS
    run.drift.findings = {name: [finding(name)] for name in ("te1", "te2", "te3")}
    turns = Turns(monkeypatch, run, left=["te3"])
    run.seen.busy = dict.fromkeys(("te1", "te2"), "1 GPUs held by running pods")

    async def worse(stage: str, host: str) -> None:
        turns.taken.append((stage, host))

    monkeypatch.setattr(drift_passes, "on", worse)
    await drift_passes.repair_all(run, "te.yaml", None)
    assert (turns.taken, turns.opened) == ([("repair_drained", "te1"), ("repair_drained", "te2")], ["te3"])


@pytest.mark.parametrize(("allow", "drained"), [(Impact.WORKLOADS, True), (Impact.SERVICE, False)])
async def test_what_pods_kept_from_in_the_middle_of_a_turn_is_repaired_on_a_drained_host_where_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, allow: Impact, *, drained: bool
) -> None:
    run = run_of()
    run.allow, run.drift.findings = allow, {"te2": [finding()]}
    turns = Turns(monkeypatch, run)

    def pods_come(_stage: str, host: str) -> None:
        run.seen.busy = {host: "1 GPUs held by running pods"}
        run.drift.withheld[finding(host).key] = run.seen.busy[host]
        run.drift.beside_pods.add(finding(host).key)

    turns.during = pods_come
    await drift_passes.repair_all(run, "te.yaml", None)
    assert turns.taken == [("repair", "te2"), *([("repair_drained", "te2")] if drained else [])]


def test_a_finding_of_two_stages_is_one() -> None:
    assert len(distinct([finding(), finding(stage="nvidia_runtime"), finding("te3")])) == 2


def test_findings_stand_in_the_order_of_the_cluster_file_whoever_answered_first() -> None:
    run = run_of()
    run.drift.findings = {name: [finding(name)] for name in ("te3", "te1", "te2")}
    assert [one.host for one in findings_of(run)] == ["te1", "te2", "te3"]


def test_what_is_left_stands_worst_first() -> None:
    ends = [finding(step=action).became(action) for action in ("reported", "repaired", "failed", "held back")]  # type: ignore[arg-type]
    assert [one.action for one in sort_left(ends)] == ["failed", "held back", "reported"]


def test_the_report_of_a_pass_that_saw_nobody_failed() -> None:
    run = run_of()
    report = drift_report(run)
    assert (report.outcome, report.exit_code) == ("failed", 3)
    assert {host.outcome for host in report.hosts} == {"failed"}


def test_markdown_is_harmless_and_says_what_to_do() -> None:
    run = run_of()
    run.drift.findings["te2"] = [finding(step="a | b <script>").became("held back", "why", "python -m x")]
    text = drift_markdown(drift_report(run))
    assert "a \\| b &lt;script>" in text
    assert "*held back* on te2: why `python -m x`" in text
    assert findings_of(run)[0].action == "held back"


def test_the_trend_is_a_bar_a_pass() -> None:
    text = trend_markdown([{"when": "2026-11-24T09:00:00+00:00", "repaired": 2, "reported": 1}, {"when": "2026-11-24"}])
    assert "| 11-24 09:00 | 3 | 1 | █░░ |" in text


@pytest.mark.parametrize(
    ("said", "when"),
    [
        ("notAfter=Nov 24 08:03:27 2027 GMT\n", 1827043407.0),
        ("notAfter=Nov  4 08:03:27 2027 GMT", 1825315407.0),
        ("", None),
        ("notAfter=never", None),
        ("Could not open file", None),
    ],
)
def test_the_end_of_a_certificate_is_read(said: str, when: float | None) -> None:
    assert expires(said) == when


def test_what_was_put_right_by_the_time_of_the_look_after_is_no_failed_repair() -> None:
    drift = Drift("0 of 3 ready", "3 of 3 ready")
    results = [
        StepResult("declared", "changed", Impact.SERVICE, drift),
        StepResult("runs everywhere", "drifted", Impact.NOTHING, drift),
        StepResult("ready", "failed", Impact.SERVICE, drift, PostconditionFailed("applied, and yet: 0 of 3 ready")),
        StepResult("stays broken", "failed", Impact.SERVICE, drift, PostconditionFailed("applied, and yet: broken")),
    ]
    after = [finding(step="ready").became("repaired"), finding(step="stays broken").became("failed", "broken")]
    assert [one.step for one in outcome_of(results, after)] == ["declared", "stays broken"]


def test_a_pass_that_only_looks_says_what_to_do_next() -> None:
    run = run_of()
    run.drift.findings["te2"] = [finding()]
    drift_passes.explain(run, "te.yaml")
    (heard,) = run.drift.findings["te2"]
    assert (heard.action, heard.why) == ("reported", "this pass only looks")
    assert heard.command == "python -m flows.drift_repair te.yaml --repair service --host te2"


@pytest.mark.parametrize(("note", "heard"), [("", True), ("  ", True), ("disk swap, ops", False)])
async def test_a_cordon_that_somebody_accepted_is_not_reported(note: str, heard: bool) -> None:  # noqa: FBT001
    node = {"metadata": {"name": "te2", "annotations": {ACCEPTED: note}}, "spec": {"unschedulable": True}}

    class Nodes:
        async def list_(self, *_: object) -> list[dict[str, object]]:
            return [node]

    drift = await NodeOpen("te2").check(Nodes())  # type: ignore[arg-type]
    assert (drift is not None) is heard
    assert drift is None or "cordon-accepted" in drift.want


STARTED = 1_795_903_200  # 2026-11-28T22:00:00Z


@pytest.mark.parametrize(
    ("posted", "since", "stale"),
    [
        ("2026-11-28T21:59:59Z", STARTED, True),
        ("2026-11-28T22:00:00Z", STARTED, False),
        ("2026-11-28T22:00:02Z", STARTED, False),
        ("2026-11-28T21:59:59Z", 0, False),
        (None, STARTED, True),
        ("soon", STARTED, True),
    ],
)
async def test_a_status_from_before_its_kubelet_started_is_not_believed(
    posted: str | None, since: int, *, stale: bool
) -> None:
    """A restarted kubelet's node stayed Ready with all of its GPUs, a pass ended by that, and the next found none."""
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": posted}
    node = {"metadata": {"name": "te2"}, "status": {"conditions": [ready]}}

    class Nodes:
        async def list_(self, *_: object) -> list[dict[str, object]]:
            return [node]

    drift = await NodeReady("te2", kubelet_since=since).check(Nodes())  # type: ignore[arg-type]
    assert (drift is not None) is stale
    assert drift is None or "no status since it started" in drift.have


@pytest.mark.parametrize(("skew", "kept"), [(0.0, {"te2": STARTED}), (-7200.0, {})])
async def test_the_start_of_a_kubelet_is_kept_after_a_repair_unless_the_clock_went_back(
    monkeypatch: pytest.MonkeyPatch, skew: float, kept: dict[str, int]
) -> None:
    run = run_of()
    unit = UnitInfo("loaded", "active", "running", "enabled", STARTED, needs_reload=False)

    class Session:
        async def read(self, _: object) -> UnitInfo:
            return unit

    async def look(run: Run, _stage: str, host: str) -> list[StepResult]:
        run.seen.surveys[host] = cast("Survey", SimpleNamespace(skew=skew))
        run.drift.findings[host] = []
        return []

    monkeypatch.setattr(repair, "look_at_host", look)
    monkeypatch.setattr(repair.time, "time", lambda: STARTED + 60.0)
    monkeypatch.setattr(run, "session", lambda _: Session())
    await repair._again(run, "repair", "te2", [StepResult("swap is off", "changed", Impact.SERVICE)])
    assert run.drift.kubelet_since == kept
    run.seen.surveys.clear()
    ready = [step for part in cluster_parts(run) for step in part.steps if isinstance(step, NodeReady)]
    assert {step.node: step.kubelet_since for step in ready if step.kubelet_since} == kept


def test_the_report_of_a_pass_counts_the_gpus_that_there_are() -> None:
    run = run_of()
    run.drift.allocatable = {"te1": 1, "te2": 1}
    report = drift_report(run)
    assert (report.gpus["expected"], report.gpus["allocatable"]) == (sum(map(run.provable, run.hosts)), 2)


def test_a_ca_that_an_earlier_rotation_left_is_looked_for_and_taken_out_by_its_verb_alone() -> None:
    run = run_of()
    (part,) = [part for part in cluster_parts(run) if part.stage == StageName.HEALTH]
    (check,) = [step for step in part.steps if isinstance(step, NoneLeftBehind)]
    assert [one.name for one in check.planes] == [one.name for one in run.cluster.control_planes]
    assert part.most is Impact.NOTHING


def test_every_listed_stage_is_in_the_table_and_is_looked_at_by_drift_repair() -> None:
    """One list: an add-on that was added by the book was never checked for drift, for drift kept a list of its own."""
    run = run_of()
    looked_on_hosts = {part.stage for host in run.hosts for part in host_parts(run, host)}
    assert {name_of(stage) for stage in PREPARATION} <= looked_on_hosts
    assert {name_of(stage) for stage in ADD_ONS} <= {part.stage for part in cluster_parts(run)}
    looked_at_alone = {StageName.HEALTH, StageName.KUBEADM}  # parts of a drift pass that no run brings about
    assert set(STAGES.complete()) == set(StageName) - looked_at_alone, "every stage has its place in one table"


async def test_what_a_kubelet_cannot_tell_yet_that_was_just_started_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = run_of()
    unseen = Finding("te2", "node_settings", "the kubelet runs what is declared", "cannot be determined", "", "NOTHING")
    looks = [[unseen], [unseen], []]

    async def look(run: Run, _stage: str, _host: str) -> list[StepResult]:
        run.drift.of_cluster = looks.pop(0)
        return []

    monkeypatch.setattr(repair, "look_at_cluster", look)
    monkeypatch.setattr(repair, "EVERY_SECONDS", 0.0)
    await repair._settle(run, "repair_cluster", seconds=60)
    assert (run.drift.of_cluster, looks) == ([], [])


def test_pods_that_a_proof_left_as_evidence_keep_no_repair_back() -> None:
    """An unpacked text is its letters: the proof's namespace was not our own, and its pods withheld restarts."""
    assert "shipway-verify" in OWN_NAMESPACES
    assert min(map(len, OWN_NAMESPACES)) > 1


def test_no_text_is_unpacked_into_its_letters() -> None:
    wrong = [
        f"{path.name}:{node.lineno}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Starred) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    assert wrong == []
