"""The order of an upgrade, what stops it, and how its report judges it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from flows import drift_passes, waves
from flows import upgrade as flow
from flows.cli.upgrade import COMMAND
from flows.cli.wave_order import show_order
from shipway.cluster_file import parse_cluster
from shipway.converge import look_at_all
from shipway.errors import Blocked, ErrorReport, Refused
from shipway.gpu.jobs import GpuJob
from shipway.ownership.evidence import Evidence
from shipway.stage import StageName
from shipway.step import Drift, Impact, StepResult
from shipway.steps.kubernetes.skew import VersionDeclared
from shipway.steps.kubernetes.webhooks import WebhooksAnswer
from shipway.steps.upgrade.possible import EtcdFits, NewestPatchFirst, NobodyAsksRemoved, NoneLeftBehind
from tasks.context import Run
from tasks.findings import find
from tasks.passes.upgrade import HostVersions
from tasks.stage_result import CLUSTER, StageResult
from tasks.stages.listed import ADD_ONS, name_of
from tasks.upgrade import look
from tasks.waves import forbids, hosts, turn
from tasks.waves.report import WaveReport, wave_report
from tests.kubernetes.test_pressure import pressed
from tests.retire.objects import Objects, meta, node, pod
from tests.retire.test_webhooks import PODS, config, ends
from tests.upgrade.stages import Stages

FILE = """
name: te
profile: seed
kubernetes: {version: 1.32.0}
upgrade: {soak_seconds: 0, hosts_at_once: 2}
hosts:
- {name: cp, address: 192.0.2.1}
- {name: w1, address: 192.0.2.2, gpus: 1}
- {name: w2, address: 192.0.2.3, gpus: 1}
- {name: w3, address: 192.0.2.4, gpus: 1}
"""
OLD, NEW = "1.31.7", "1.32.0"
PARTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")


def versions(version: str, *, control: bool = False) -> HostVersions:
    return HostVersions(version, version, tuple((part, f"v{version}") for part in PARTS) if control else ())


def a_run(mode: Any = "upgrade", **upgrade: Any) -> Run:
    """Return a run whose looks are done: all hosts have the old version."""
    cluster = parse_cluster(FILE)
    settings = cluster.upgrade.model_copy(update=upgrade)
    run = Run(cluster.model_copy(update={"upgrade": settings}), mode)
    for host in run.cluster.hosts:
        run.upgrade.hosts[host.name] = versions(OLD, control=host.name == "cp")
        run.upgrade.kubelets[host.name], run.upgrade.cordons[host.name] = OLD, ""
    run.upgrade.have = OLD
    look.make_order(run)
    return run


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stages]:
    return lambda run, *failing: Stages(monkeypatch, flow, run, *failing)


async def test_all_is_fetched_before_anything_changes_and_workers_come_last(stages: Callable[..., Stages]) -> None:
    one = stages(a_run())
    await flow.go(one.run)
    names = [line.split()[0] for line in one.ran]
    assert names[:3] == ["backup_possible", "backup_files", "take_backup"]
    assert sorted(one.of("upgrade_fetch")) == [f"upgrade_fetch {name}" for name in ("cp", "w1", "w2", "w3")]
    assert names.index("upgrade_control_plane") == 7
    add_ons = [name_of(module) for module in ADD_ONS]
    assert names[8:-3] == ["upgrade_addons", *add_ons]
    assert one.ran[-3:] == ["upgrade_worker w1", "upgrade_worker w2", "upgrade_worker w3"]
    assert one.run.upgrade.stopped is None


PLANES = ("cp1", "cp2", "cp3")


def behind(server: str, endpoint: str = "{kind: external, name: lb.site}", mode: Any = "upgrade") -> Run:
    """Return a run on three control planes whose kubelets ask the API by this name."""
    hosts = "".join(
        f"- {{name: {name}, address: 192.0.2.{n}, roles: [control_plane]}}\n" for n, name in enumerate(PLANES, 1)
    )
    kubernetes = f"{{version: {NEW}, api_endpoint: {endpoint}}}"
    text = f"name: te\nprofile: seed\nkubernetes: {kubernetes}\nhosts:\n{hosts}- {{name: w1, address: 192.0.2.9}}\n"
    run = Run(parse_cluster(text), mode)
    for number, host in enumerate(run.cluster.hosts, 1):
        shown = Evidence(host.name, server=server.format(number))
        run.seen.surveys[host.name] = cast("Any", SimpleNamespace(evidence=shown, joined=True))
        run.upgrade.hosts[host.name] = versions(OLD, control=host.name in PLANES)
        run.upgrade.kubelets[host.name], run.upgrade.cordons[host.name] = OLD, ""
    run.upgrade.have = OLD
    look.make_order(run)
    return run


async def test_behind_a_load_balancer_no_control_planes_kubelet_comes_before_the_last_api_server(
    stages: Callable[..., Stages],
) -> None:
    one = stages(behind("https://lb.site:6443"))
    await flow.go(one.run)
    assert one.of("upgrade_control_plane", "upgrade_kubelet", "upgrade_worker") == [
        *(f"upgrade_control_plane {name}" for name in PLANES),
        *(f"upgrade_kubelet {name}" for name in PLANES),
        "upgrade_worker w1",
    ]
    assert any("after the last API server: they ask by lb.site" in note for note in one.run.upgrade.notes)
    stopped = stages(behind("https://lb.site:6443"), "upgrade_control_plane cp3")
    await flow.go(stopped.run)
    assert stopped.of("upgrade_kubelet") == []


@pytest.mark.parametrize(
    ("server", "endpoint"),
    [
        ("https://192.0.2.{}:6443", "{kind: external, name: lb.site}"),  # as kubeadm writes it from 1.33 on
        ("https://127.0.0.1:6443", "{kind: external, name: lb.site}"),
        ("https://api.te.internal:6443", "{kind: node_local}"),  # a name of ours is the host itself there
    ],
)
async def test_a_kubelet_that_asks_its_own_api_server_comes_right_after_it(
    stages: Callable[..., Stages], server: str, endpoint: str
) -> None:
    one = stages(behind(server, endpoint))
    await flow.go(one.run)
    assert one.of("upgrade_kubelet") == []
    assert len(one.of("upgrade_control_plane")) == 3


async def asked_on_control(run: Run, monkeypatch: pytest.MonkeyPatch) -> dict[type, Any]:
    """Return by its class what a control plane's host is asked before an upgrade."""
    asked: list[Any] = []

    async def look_at(checks: Sequence[Any], *_: Any) -> list[StepResult]:
        asked.extend(checks)
        return []

    monkeypatch.setattr(look, "look_at_all", look_at)
    monkeypatch.setattr(run, "session", lambda name: SimpleNamespace(name=name))
    await look._on_control(run, "upgrade_possible")
    return {type(one): one for one in asked}


async def test_etcds_floor_is_that_of_the_oldest_control_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    """One was brought to the new minor by hand, and its API server is the one that answers."""
    run = behind("https://192.0.2.{}:6443")
    run.upgrade.hosts["cp1"], run.upgrade.have = versions(NEW, control=True), NEW
    assert (await asked_on_control(run, monkeypatch))[EtcdFits].have == OLD
    run.upgrade.hosts["cp2"] = HostVersions(static=(("kube-apiserver", "latest"), ("etcd", "3.4.13-0")))
    run.upgrade.hosts["cp3"] = versions(NEW, control=True)
    assert run.upgrade.oldest() == NEW, "what is no version says nothing"


async def test_the_newest_patch_comes_first_unless_the_file_says_otherwise_or_it_has_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def offered(_: Any, names: Sequence[str]) -> dict[str, list[str]]:
        return {name: ["1.31.9-1.1"] for name in names}

    run = a_run()
    run.seen.families["cp"] = cast("Any", SimpleNamespace(offered=offered))
    check = (await asked_on_control(run, monkeypatch))[NewestPatchFirst]
    assert list(await check.offers(cast("Any", SimpleNamespace(name="cp")))) == ["1.31.9-1.1"]
    for told in (a_run(despite=("older_patch",)), a_run()):
        told.upgrade.begun = not told.cluster.upgrade.despite
        assert NewestPatchFirst not in await asked_on_control(told, monkeypatch)


def test_what_clients_ask_for_is_refused_unless_the_file_says_otherwise() -> None:
    run, told = a_run(), a_run(despite=("removed_apis",))
    for one in (run, told):
        one.upgrade.gone = ["flowcontrol.apiserver.k8s.io/v1beta3 flowschemas (gone since 1.32)"]
        look.make_order(one)
        assert any("clients still ask for APIs" in note for note in one.upgrade.notes)
    assert [one.asked for one in look._checks(run) if isinstance(one, NobodyAsksRemoved)] == [run.upgrade.gone]
    assert not [one for one in look._checks(told) if isinstance(one, NobodyAsksRemoved)]
    assert [one for one in look._checks(run) if isinstance(one, NoneLeftBehind)] == [NoneLeftBehind(NEW)]


async def test_nothing_is_done_where_all_is_of_the_version(stages: Callable[..., Stages]) -> None:
    run = a_run()
    for host in run.cluster.hosts:
        run.upgrade.hosts[host.name], run.upgrade.kubelets[host.name] = versions(NEW, control=host.name == "cp"), NEW
    look.make_order(run)
    one = stages(run)
    await flow.go(run)
    assert one.ran == ["upgrade_addons cluster"]
    assert run.upgrade.order == []


async def test_a_host_that_a_killed_run_left_without_holds_is_held(stages: Callable[..., Stages]) -> None:
    """Nothing else tells it from one that is whole: a package's own script has started the new kubelet."""
    run = a_run()
    for host in run.cluster.hosts:
        seen = versions(NEW, control=host.name == "cp")
        run.upgrade.hosts[host.name], run.upgrade.kubelets[host.name] = replace(seen, held=host.name != "w1"), NEW
    look.make_order(run)
    one = stages(run)
    await flow.go(run)
    assert one.ran == ["upgrade_held w1", "upgrade_addons cluster"]


@pytest.mark.parametrize(
    ("fails", "last"),
    [
        ("take_backup cp", "take_backup"),
        ("upgrade_fetch w3", "upgrade_fetch"),
        ("upgrade_control_plane cp", "upgrade_control_plane"),
        ("upgrade_addons cluster", "upgrade_addons"),
        ("pod_network cluster", "pod_network"),
        ("upgrade_worker w1", "upgrade_worker"),
    ],
)
async def test_what_fails_ends_it_there(stages: Callable[..., Stages], fails: str, last: str) -> None:
    one = stages(a_run(), fails)
    await flow.go(one.run)
    assert one.ran[-1].split()[0] == last
    if last == "upgrade_worker":
        assert one.of("upgrade_worker") == ["upgrade_worker w1"], "the first worker stops all others"
        assert one.run.upgrade.stopped is not None
        assert one.run.upgrade.stopped.code == "SHW-797"


async def test_a_wave_ends_with_all_that_it_began_and_the_budget_decides_about_the_next(
    stages: Callable[..., Stages],
) -> None:
    strict = stages(a_run(hosts_at_once=1), "upgrade_worker w2")
    await waves.go_through_workers(strict.run, look.waves_in_order(strict.run))
    assert strict.ran == ["upgrade_worker w1", "upgrade_worker w2"]
    assert strict.run.upgrade.stopped is not None
    lenient = stages(a_run(hosts_at_once=1, failures=1), "upgrade_worker w2")
    await waves.go_through_workers(lenient.run, look.waves_in_order(lenient.run))
    assert lenient.ran == ["upgrade_worker w1", "upgrade_worker w2", "upgrade_worker w3"]
    together = stages(a_run(), "upgrade_worker w2")
    await waves.go_through_workers(together.run, look.waves_in_order(together.run))
    assert together.ran == ["upgrade_worker w1", "upgrade_worker w2", "upgrade_worker w3"]


async def test_what_an_earlier_run_began_comes_first(stages: Callable[..., Stages]) -> None:
    run = a_run()
    run.upgrade.cordons["w3"] = "ours"
    run.upgrade.hosts["w2"] = HostVersions(NEW, OLD)
    run.upgrade.hosts["cp"], run.upgrade.kubelets["cp"] = versions(NEW, control=True), NEW
    assert look.control_planes_in_order(run) == []
    assert look.waves_in_order(run)[0] == ("w2",)
    assert look.waves_in_order(run)[1] == ("w3", "w1")
    one = stages(run)
    look.make_order(run)
    await flow.go(run)
    assert one.of("upgrade_control_plane") == []


async def test_a_closed_window_begins_no_further_host(
    stages: Callable[..., Stages], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ["", "", "the maintenance window is closed; it opens 2026-12-05 02:00"]
    monkeypatch.setattr(waves, "closed_until", lambda _: said.pop(0) if len(said) > 1 else said[0])
    one = stages(a_run())
    await flow.go(one.run)
    assert one.of("upgrade_worker") == ["upgrade_worker w1"]
    assert one.run.upgrade.stopped is not None
    assert (one.run.upgrade.stopped.code, "opens 2026-12-05" in one.run.upgrade.stopped.cause) == ("SHW-798", True)
    plan = stages(a_run("plan"))
    await flow.go(plan.run)
    assert len(plan.of("upgrade_worker")) == 3, "a plan looks at all of them"


def test_the_window_is_that_of_repairs() -> None:
    run = a_run()
    assert turn.closed_until(run) == ""
    window = parse_cluster(FILE + "repair: {window: {cron: '0 2 29 2 *'}}\n").repair
    run.cluster = run.cluster.model_copy(update={"repair": window})
    assert turn.closed_until(run) == "the maintenance window is closed; it opens 2028-02-29 02:00"
    hour = datetime.now().astimezone()
    always = parse_cluster(FILE + f"repair: {{window: {{cron: '{hour.minute} {hour.hour} * * *'}}}}\n").repair
    run.cluster = run.cluster.model_copy(update={"repair": always})
    assert turn.closed_until(run) == ""


async def test_each_wave_but_the_first_waits_for_an_approval(
    stages: Callable[..., Stages], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()

    async def ask(_: Run, text: str) -> bool:
        asked.append(text)
        return False

    monkeypatch.setattr(waves, "ask_wave", ask)
    one = stages(a_run(approve=True))
    await waves.go_through_workers(one.run, look.waves_in_order(one.run))
    assert one.ran == ["upgrade_worker w1"]
    assert "- **w2** has v1.31.7: 0 pods leave; no GPU job" in asked[0]
    assert one.run.upgrade.stopped is not None
    assert one.run.upgrade.stopped.code == "SHW-799"
    plan = stages(a_run("plan", approve=True))
    await waves.go_through_workers(plan.run, look.waves_in_order(plan.run))
    assert len(asked) == 1


async def test_a_first_worker_that_goes_bad_while_it_is_watched_stops_the_rest(
    stages: Callable[..., Stages], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wrong(*_: Any) -> str:
        return "not Ready: w1: Kubelet stopped posting"

    monkeypatch.setattr(waves, "watch_workers", wrong)
    one = stages(a_run())
    await waves.go_through_workers(one.run, look.waves_in_order(one.run))
    assert one.ran == ["upgrade_worker w1"]
    assert one.run.upgrade.stopped is not None
    assert "stopped posting" in one.run.upgrade.stopped.cause


async def test_workers_that_do_not_answer_are_left_out_and_control_planes_never(
    stages: Callable[..., Stages], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(_: Run) -> Any:
        return None

    async def agreed(_: Run) -> list[Any]:
        return []

    monkeypatch.setattr(waves, "lease", nothing)
    monkeypatch.setattr(waves, "disagreement", agreed)
    run = a_run()
    run.seen.surveys = dict.fromkeys(("cp", "w1", "w3"))  # type: ignore[arg-type]
    one = stages(run, "upgrade_look w2")
    assert await waves.may_go(run)
    assert list(run.upgrade.skipped) == ["w2"]
    assert all(result.host != "w2" for result in run.results)
    run = a_run()
    run.seen.surveys = dict.fromkeys(("w1", "w2", "w3"))  # type: ignore[arg-type]
    one = stages(run, "upgrade_look cp")
    assert not await waves.may_go(run)
    assert "upgrade_possible cluster" not in one.ran
    run = a_run()
    run.seen.surveys = dict.fromkeys(("cp", "w1", "w2", "w3"))  # type: ignore[arg-type]
    one = stages(run, "upgrade_look w2")
    assert not await waves.may_go(run), "one that was reached and is refused forbids all"
    run.seen.surveys = {}
    assert wave_report(run).outcome == "refused"


async def test_another_run_keeps_it_out(stages: Callable[..., Stages], monkeypatch: pytest.MonkeyPatch) -> None:
    async def held(_: Run) -> Any:
        return Refused("another run works on this cluster", code="SHW-102")

    async def agreed(_: Run) -> list[Any]:
        return []

    monkeypatch.setattr(waves, "lease", held)
    monkeypatch.setattr(waves, "disagreement", agreed)
    run = a_run()
    run.seen.surveys = dict.fromkeys(("cp", "w1", "w2", "w3"))  # type: ignore[arg-type]
    stages(run)
    with pytest.raises(Refused):
        await waves.may_go(run)


class Nodes(Objects):
    """Objects of a cluster of the old version."""

    async def raw(self, path: str) -> tuple[int, str]:
        """Answer /version."""
        del path
        return 200, f'{{"gitVersion": "v{OLD}"}}'

    def forget(self) -> None:
        """Know nothing."""


async def learned(run: Run, *objects: Any) -> Run:
    run.upgrade.hosts = {host.name: versions(OLD, control=host.name == "cp") for host in run.cluster.hosts}
    run.upgrade.skipped = {}
    await look._learn(run, cast("Any", Nodes(*objects)))
    look.make_order(run)
    return run


def old_node(name: str, **more: Any) -> Any:
    made = node(name, **more)
    made["status"]["nodeInfo"] = {"kubeletVersion": f"v{OLD}"}
    return made


async def test_hosts_that_others_closed_or_that_are_down_are_left_out_and_named() -> None:
    run = await learned(
        a_run(), old_node("cp"), old_node("w1", closed=True), old_node("w2", ready=False), old_node("w3")
    )
    assert [row.host for row in run.upgrade.order] == ["cp", "w3"]
    assert "somebody else closed" in run.upgrade.skipped["w1"]
    assert "not Ready" in run.upgrade.skipped["w2"]
    assert any(note.startswith("w1 is left out") for note in run.upgrade.notes)
    assert any(note.startswith("w1 is left out") for note in run.upgrade.notes)
    assert wave_report(run).outcome == "partial"
    short = old_node("w1")
    short["status"]["conditions"] += pressed("w1", "DiskPressure")["status"]["conditions"][1:]
    run = await learned(a_run(), old_node("cp"), short, old_node("w2"), old_node("w3"))
    assert [row.host for row in run.upgrade.order] == ["cp", "w2", "w3"]
    assert "DiskPressure" in run.upgrade.skipped["w1"]


async def test_the_plan_names_the_order_the_burden_and_the_point_of_no_return() -> None:
    run = a_run()
    run.upgrade.jobs = [GpuJob("default/a", "w1", "nvidia.com/gpu: 1", "Job default/llm", "wait")]
    run.upgrade.pods = {"w1": 3, "cp": 0}
    look.make_order(run)
    rows = [(row.host, row.wave, row.have, row.want) for row in run.upgrade.order]
    assert rows == [
        ("cp", "control plane 1", OLD, NEW),
        ("w2", "first alone", OLD, NEW),
        ("w3", "wave 1", OLD, NEW),
        ("w1", "wave 1", OLD, NEW),
    ]
    said = "\n".join(run.upgrade.notes)
    assert "the point of no return is cp, the last control plane: before it" in said
    assert "GPU jobs: wait, at most 240 minutes a host" in said
    run.report = wave_report(run)
    assert isinstance(run.report, WaveReport)
    console = Console(file=io.StringIO(), width=200)
    show_order(console, run.report)
    text = cast("io.StringIO", console.file).getvalue()
    assert "default/a of Job default/llm (nvidia.com/gpu: 1: wait)" in text
    assert "point of no return" in text
    show_order(console, WaveReport("te", "seed", "plan", "planned", 0.0))


async def test_webhooks_are_asked_before_any_host_is_drained_and_not_once_one_was_begun() -> None:
    run, nodes = a_run(), [old_node(name) for name in ("cp", "w1", "w2", "w3")]
    spaces = [{"kind": "Namespace", "metadata": meta("guard")}]
    await learned(run, *nodes, *spaces, config(PODS), ends("w1"))
    assert any(
        note.startswith("while w1 is drained nobody answers for the webhook guard/") for note in run.upgrade.notes
    )
    assert not any("while w2" in note for note in run.upgrade.notes)

    async def codes() -> list[str]:
        found = [one for one in forbids.shared_checks(run, look._resumed) if isinstance(one, WebhooksAnswer)]
        return [one.error.code for one in await look_at_all(found, cast("Any", Objects())) if one.error]

    assert await codes() == []
    await learned(run, *nodes, *spaces, config(PODS), ends())
    assert await codes() == ["SHW-830"]
    run.upgrade.cordons["w2"] = "ours"
    assert await codes() == [], "a host that was begun is seen to its end"


async def test_jobs_that_are_never_touched_keep_their_host_out() -> None:
    run = a_run(gpu_jobs="never")
    holding = pod("a", "w1", container={"resources": {"limits": {"nvidia.com/gpu": "1"}}})
    await learned(run, *(old_node(name) for name in ("cp", "w1", "w2", "w3")), holding)
    assert "never touched" in run.upgrade.skipped["w1"]


def judged(run: Run, *results: StageResult) -> str:
    run.results = list(results)
    return wave_report(run).outcome


def result(host: str, stage: str, *, fails: bool = False) -> StageResult:
    errors = (ErrorReport(host, stage, "SHW-784", "a cause", "a fix", retryable=False),) if fails else ()
    return StageResult(host, stage, "failed" if fails else "ok", errors=errors)


def test_a_run_is_judged_by_what_it_came_to() -> None:
    run = a_run()
    assert judged(run, result(CLUSTER, StageName.UPGRADE_POSSIBLE, fails=True)) == "refused"
    run.upgrade.changed = True
    assert judged(run, result("w1", StageName.UPGRADE_WORKER, fails=True)) == "partial"
    assert judged(run, result("cp", StageName.UPGRADE_CONTROL_PLANE, fails=True)) == "failed"
    assert judged(run, result(CLUSTER, StageName.UPGRADE_ADDONS, fails=True)) == "failed"
    assert judged(run, result("w1", StageName.UPGRADE_WORKER)) == "ok"
    assert wave_report(run, broken_off="the run was interrupted").outcome == "failed"
    assert judged(a_run("plan"), result("w1", StageName.UPGRADE_WORKER)) == "planned"
    waves.stop(run, "the window is closed", "SHW-798", "Run again then.")
    assert judged(run, result("w1", StageName.UPGRADE_WORKER)) == "partial"
    run.report = wave_report(run)
    assert "no further host was begun" in str(waves.end(run, flow.tell).message)


async def test_control_planes_of_two_versions_are_refused() -> None:
    run = a_run()
    run.upgrade.hosts["cp"] = HostVersions(OLD, OLD, (("kube-apiserver", f"v{NEW}"), ("kube-scheduler", f"v{OLD}")))
    await look.OneVersion(run).check(object())
    run.upgrade.hosts["cp"] = HostVersions(OLD, OLD, (("kube-apiserver", "v1.30.1"), ("kube-scheduler", f"v{OLD}")))
    with pytest.raises(Refused, match=r"different versions: cp: v1\.30\.1, v1\.31\.7"):
        await look.OneVersion(run).check(object())


def test_the_command_says_what_the_flow_is_given() -> None:
    asked = COMMAND.parser().parse_args(["te.yaml", "--plan", "--to", "1.32.0", "--no-backup", "--quiet"])
    assert (asked.plan, asked.to, asked.no_backup, COMMAND.mode(asked)) == (True, "1.32.0", True, "plan")
    cluster = parse_cluster(FILE)
    assert flow.declare(cluster, version=" v1.31.14 ").kubernetes.version == "1.31.14"
    assert flow.declare(cluster, version="") is cluster
    with pytest.raises(Refused):
        flow.declare(cluster, version="newest")


async def test_drift_is_judged_by_the_version_that_runs_and_the_files_is_one_finding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, looks = Run(parse_cluster(FILE), "drift"), list[str]()

    async def once(run: Run) -> None:
        looks.append(run.cluster.kubernetes.version)
        seen = VersionDeclared(run.drift.declared or run.cluster.kubernetes.version)
        drift = await seen.check(cast("Any", Nodes()))
        found = find(CLUSTER, StageName.HEALTH, StepResult(seen.name, "drifted", Impact.NOTHING, drift))
        run.drift.of_cluster = [found] if found and drift else []
        run.results.append(result("w1", StageName.LOOK, fails=len(looks) == 1))

    monkeypatch.setattr(drift_passes, "_look_once", once)
    await drift_passes.look(run)
    assert looks == [NEW, OLD]
    assert [one.have for one in run.drift.of_cluster] == [f"v{OLD}"]
    assert "shipway upgrade" in run.drift.of_cluster[0].want
    assert [one.stands for one in run.results] == [True]


def failing(*outcomes: str) -> list[StepResult]:
    return [StepResult("a step", cast("Any", outcome), drift=Drift("a", "b")) for outcome in outcomes]


def test_a_host_that_failed_in_the_middle_is_said_to_stay_closed() -> None:
    said: Sequence[StepResult] = turn.say_closed(a_run(), "w1", failing("failed"))
    assert said[-1].error is not None
    assert (said[-1].error.code, said[-1].error.host) == ("SHW-796", "w1")
    kept = failing("failed")
    assert turn.say_closed(a_run(), "cp", kept) == kept, "a control plane without pods of users was never closed"
    assert turn.say_closed(a_run("plan"), "w1", kept) == kept


def test_what_cannot_be_told_forbids_an_upgrade() -> None:
    blocked = StepResult("every member of etcd is healthy", "unknown", error=Blocked("etcd does not say"))
    away = StepResult("the host has joined a cluster", "unknown", drift=Drift("not joined", "joined"))
    assert [one.outcome for one in hosts.decided([blocked, away])] == ["failed", "unknown"]
