"""The order of a maintenance, who is left out, what is asked again, and how its report judges it."""

from __future__ import annotations

import io
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from flows import maintain as flow
from flows import waves
from flows.cli.maintain import COMMAND
from flows.cli.wave_order import show_order
from shipway.cluster_file import parse_cluster
from shipway.errors import ErrorReport, Refused
from shipway.facts.packages import Pending
from shipway.stage import StageName
from shipway.steps.maintain.pause import QuorumStays
from shipway.steps.maintain.restart import KernelHasModule, NobodyAtWork, NothingInhibits
from shipway.steps.upgrade import possible
from tasks.context import Run
from tasks.maintain import look
from tasks.passes.maintain import SystemState
from tasks.stage_result import CLUSTER, StageResult
from tasks.table import STAGES
from tasks.waves.report import WaveReport, wave_report
from tests.maintain.hosts import Family, Restarting
from tests.maintain.test_work import FILE, LIBC, a_run
from tests.retire.objects import Objects, node, pod
from tests.upgrade.stages import Stages

KERNEL = Pending("linux-image-amd64", "1", "2", "kernel")


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stages]:
    return lambda run, *failing: Stages(monkeypatch, flow, run, *failing)


async def test_all_is_fetched_then_a_backup_then_control_planes_then_waves(stages: Callable[..., Stages]) -> None:
    one = stages(a_run())
    await flow.go(one.run)
    assert sorted(one.ran[:4]) == [f"maintain_fetch {name}" for name in ("cp", "w1", "w2", "w3")]
    assert [line.split()[0] for line in one.ran[4:7]] == ["backup_possible", "backup_files", "take_backup"]
    assert one.ran[7:] == ["maintain_control_plane cp", *(f"maintain_worker {name}" for name in ("w1", "w2", "w3"))]


@pytest.mark.parametrize(
    ("fails", "last"),
    [
        ("maintain_fetch w3", "maintain_fetch"),
        ("take_backup cp", "take_backup"),
        ("maintain_control_plane cp", "maintain_control_plane"),
        ("maintain_worker w1", "maintain_worker"),
    ],
)
async def test_what_fails_ends_it_there(stages: Callable[..., Stages], fails: str, last: str) -> None:
    one = stages(a_run(), fails)
    await flow.go(one.run)
    assert one.ran[-1].split()[0] == last
    if last == "maintain_worker":
        assert one.of(last) == ["maintain_worker w1"], "the first worker stops all others"
        assert one.run.maintenance.stopped is not None
        assert (one.run.maintenance.stopped.code, one.run.maintenance.stopped.step) == (
            "SHW-797",
            "the order of the maintenance",
        )


async def test_a_host_of_which_nothing_is_to_be_changed_is_not_touched(stages: Callable[..., Stages]) -> None:
    run = a_run()
    for name in ("cp", "w2"):
        run.maintenance.hosts[name] = SystemState(running="6.1")
    look.make_order(run)
    one = stages(run)
    await flow.go(run)
    assert one.of("maintain_control_plane") == []
    assert sorted(one.of("maintain_worker")) == ["maintain_worker w1", "maintain_worker w3"]
    assert one.of("take_backup") == [], "no control plane is restarted"


async def test_nothing_to_do_is_nothing_done(stages: Callable[..., Stages]) -> None:
    run = a_run(packages="none")
    run.maintenance.hosts = {name: SystemState() for name in run.maintenance.hosts}
    look.make_order(run)
    one = stages(run)
    await flow.go(run)
    assert (one.ran, run.maintenance.order) == ([], [])


async def test_without_restarts_no_backup_is_needed(stages: Callable[..., Stages]) -> None:
    one = stages(a_run(reboot="never"))
    await flow.go(one.run)
    assert one.of("take_backup") == []


async def test_what_the_fetched_lists_add_is_looked_at_before_anything_changes(stages: Callable[..., Stages]) -> None:
    run = a_run()
    run.maintenance.hosts["w2"] = SystemState()
    look.make_order(run)
    one = stages(run, "maintain_possible cluster")

    def found(stage: str) -> None:
        if stage == "maintain_fetch w2":
            run.maintenance.hosts["w2"] = SystemState((LIBC,))

    one.then = found
    await flow.go(run)
    assert one.ran[-1] == "maintain_possible cluster"
    assert one.of("take_backup", "maintain_control_plane") == []


async def test_a_closed_window_begins_no_further_host(
    stages: Callable[..., Stages], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waves, "closed_until", lambda _: "the maintenance window is closed; it opens 2026-12-05 02:00")
    one = stages(a_run())
    await flow.go(one.run)
    assert one.of("maintain_control_plane", "maintain_worker") == []
    assert one.run.maintenance.stopped is not None
    assert one.run.maintenance.stopped.code == "SHW-798"


class Nodes(Objects):
    """Objects that are read anew each time."""

    def forget(self) -> None:
        """Know nothing."""


async def learned(run: Run, *objects: Any) -> Run:
    run.maintenance.skipped = {}
    await look._learn(run, cast("Any", Nodes(*objects)))
    look.make_order(run)
    return run


def closed_with(name: str, why: str) -> Any:
    made = node(name, closed=True)
    made["metadata"]["annotations"] = {"shipway.dev/cordoned-by": f'{{"by": "shipway", "why": "{why}", "since": "x"}}'}
    return made


async def test_who_was_taken_out_by_somebody_else_is_left_alone_control_planes_too() -> None:
    quarantined = node("w2", taints=[{"key": "site.example.com/quarantine", "effect": "NoSchedule"}])
    run = await learned(a_run(), node("cp", closed=True), node("w1", closed=True), quarantined, node("w3", ready=False))
    assert sorted(run.maintenance.skipped) == ["cp", "w1", "w2", "w3"]
    assert "somebody else closed its node" in run.maintenance.skipped["cp"]
    assert "site.example.com/quarantine" in run.maintenance.skipped["w2"]
    assert "maintain.taints" in run.maintenance.skipped["w2"]
    assert run.maintenance.order == []
    assert wave_report(run).outcome == "partial"
    assert len(wave_report(run).warnings) >= 4


async def test_a_control_plane_that_is_closed_and_ill_is_no_host_that_was_taken_out() -> None:
    run = await learned(a_run(), node("cp", closed=True, ready=False), node("w1"), node("w2"), node("w3"))
    assert run.maintenance.skipped == {}, "it is refused as not Ready, and not passed over"


async def test_who_needs_nothing_is_not_told_of() -> None:
    run = a_run()
    run.maintenance.hosts["w1"] = run.maintenance.hosts["cp"] = SystemState()
    quarantined = node("w1", taints=[{"key": "q", "effect": "NoExecute"}])
    await learned(run, node("cp", closed=True), quarantined, node("w2"))
    assert list(run.maintenance.skipped) == ["w3"], "it is no node"
    assert "while cp restarts" not in " ".join(run.maintenance.notes)
    assert run.maintenance.notes[-1].startswith("w3 is left out: it is no node")


async def test_taints_of_kubernetes_of_gpus_and_of_the_file_keep_nobody_out() -> None:
    own = [
        {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
        {"key": "nvidia.com/gpu", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"},
        {"key": "team", "effect": "NoSchedule"},
        {"key": "soft", "effect": "PreferNoSchedule"},
    ]
    run = await learned(a_run(taints=("team",)), *(node(name, taints=own) for name in ("cp", "w1", "w2", "w3")))
    assert run.maintenance.skipped == {}
    run = await learned(a_run(), node("cp"), node("w1", taints=own), node("w2"), node("w3"))
    assert "team" in run.maintenance.skipped["w1"]


async def test_a_node_that_another_kind_of_run_closed_is_named_with_its_note_and_ours_comes_first() -> None:
    theirs, ours = closed_with("w1", "upgrade to 1.32.0 by Shipway"), closed_with("w3", look_note())
    run = await learned(a_run(), node("cp"), theirs, node("w2"), ours)
    assert "upgrade to 1.32.0 by Shipway" in run.maintenance.skipped["w1"]
    assert look.waves_in_order(run)[0] == ("w3",)
    assert run.maintenance.begun


def look_note() -> str:
    return f"{look.MAINTAINING} by Shipway"


async def test_a_host_that_was_left_closed_comes_though_nothing_of_it_is_pending() -> None:
    run = a_run()
    run.maintenance.hosts["w3"] = SystemState()
    await learned(run, node("cp"), node("w1"), node("w2"), closed_with("w3", look_note()))
    row = next(row for row in run.maintenance.order if row.host == "w3")
    assert row.want == "its proof, for it was left closed"


async def test_the_plan_says_what_becomes_of_each_host() -> None:
    run = a_run("plan")
    run.maintenance.hosts["w1"] = SystemState((LIBC, KERNEL), ("the system asks for it",), "6.1", kernel=False)
    run.maintenance.hosts["w2"] = SystemState((), (), "6.1", ("containerd.io 1.6.20-1", "1.7.27"))
    run.maintenance.hosts["w3"] = SystemState((Pending("curl", "1", "2"),), (), "6.1")
    holding = pod("a", "w1", owner="Job", container={"resources": {"limits": {"nvidia.com/gpu": "1"}}})
    await learned(run, node("cp"), node("w1"), node("w2"), node("w3"), holding)
    rows = {row.host: row for row in run.maintenance.order}
    assert rows["cp"].want == "1 package (libc); a restart is likely"
    assert rows["w1"].want == "2 packages (libc, kernel); a restart: the system asks for it"
    assert rows["w2"].want == "containerd 1.7.27; a restart: containerd is another one"
    assert rows["w3"].want == "1 package"
    assert "Job default/" in rows["w1"].jobs[0]
    said = "\n".join(run.maintenance.notes)
    assert "while cp restarts, the API is away" in said
    assert "the kernel of w1 stays" in said
    assert "by the lists of packages that each host has" in said
    run.report = wave_report(run)
    assert isinstance(run.report, WaveReport)
    console = Console(file=io.StringIO(), width=240)
    show_order(console, run.report)
    assert "2 packages (libc, kernel)" in cast("io.StringIO", console.file).getvalue()
    assert run.waves.said(rows["w3"]) == "gets 1 package"
    assert "by the lists" not in " ".join((await learned(a_run(), node("cp"))).maintenance.notes)
    never = a_run("plan", reboot="never", packages="none")
    assert len(never.maintenance.notes) == 1, "of the waves alone"
    never.maintenance.hosts["w1"] = SystemState(runtime=("a", "b"))
    assert look.describe(never, never.maintenance.hosts["w1"]) == "containerd b"
    assert look.describe(never, never.maintenance.hosts["cp"]) == "1 package (libc)"


# --- the look at a host, and all refusals at once


async def test_a_plan_names_every_refusal_of_a_host_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run, family = a_run("plan"), Family()
    family.waiting, family.reasons = [LIBC], ["the system asks for it"]
    one = Restarting(family)
    monkeypatch.setattr(run, "session", lambda _: one)

    async def recognised(_: Any) -> Any:
        return family

    async def surveyed(_: Any) -> Any:
        return SimpleNamespace(joined=True, gpus=1)

    async def fine(*_: Any) -> None:
        return None

    def refuse(code: str) -> Any:
        async def check(*_: Any) -> None:
            raise Refused("a cause", code=code)

        return check

    monkeypatch.setattr(look, "recognise", recognised)
    monkeypatch.setattr(look, "survey", surveyed)
    for check, code in (
        (possible.RoomThere, "SHW-787"),
        (possible.NothingExpired, "SHW-788"),
        (KernelHasModule, "SHW-820"),
        (NothingInhibits, "SHW-821"),
        (NobodyAtWork, "SHW-822"),
    ):
        monkeypatch.setattr(check, "check", refuse(code))
    results = await look.look_at_system(run, "maintain_look", "w1")
    assert sorted(one.error.code for one in results if one.error) == [f"SHW-{n}" for n in (787, 788, 820, 821, 822)]
    family.waiting = family.reasons = []
    monkeypatch.setattr(possible.NothingExpired, "check", fine)
    assert [one.outcome for one in await look.look_at_system(run, "maintain_look", "w1")] == ["ok"], "nothing is asked"
    assert run.maintenance.hosts["w1"].needs is False


async def test_a_host_that_has_not_joined_is_left_out_and_a_control_plane_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, family = a_run("plan"), Family()
    monkeypatch.setattr(run, "session", lambda _: Restarting(family))

    async def recognised(_: Any) -> Any:
        return family

    async def surveyed(_: Any) -> Any:
        return SimpleNamespace(joined=False, gpus=0)

    monkeypatch.setattr(look, "recognise", recognised)
    monkeypatch.setattr(look, "survey", surveyed)
    await look.look_at_system(run, "maintain_look", "w1")
    assert "has not joined" in run.maintenance.skipped["w1"]
    with pytest.raises(Refused) as raised:
        await look.look_at_system(run, "maintain_look", "cp")
    assert raised.value.code == "SHW-784"


@pytest.mark.parametrize(
    ("code", "objects"),
    [
        ("SHW-784", [node("cp", ready=False)]),
        ("SHW-790", []),
        ("SHW-337", [pod("bare", "w3", owner="")]),
        ("SHW-786", [pod("kept", "w3", labels={"app": "x"})]),
    ],
)
async def test_what_the_cluster_says_forbids_it(code: str, objects: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run()
    nodes = {name: node(name) for name in ("cp", "w1", "w2", "w3")} | {
        one["metadata"]["name"]: one for one in objects if one["kind"] == "Node"
    }
    for name in ("w1", "w2"):
        nodes[name]["status"]["allocatable"] = {"nvidia.com/gpu": "0" if code == "SHW-790" else "1"}
    budget = {
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}},
        "status": {"disruptionsAllowed": 0},
    }
    api = Nodes(*nodes.values(), budget, *(one for one in objects if one["kind"] == "Pod"))

    async def kube() -> Any:
        return api

    async def fine(*_: Any) -> None:
        return None

    monkeypatch.setattr(run, "kube", kube)
    monkeypatch.setattr(run, "session", lambda _: Restarting(Family()))
    monkeypatch.setattr(possible.EtcdFits, "check", fine)
    monkeypatch.setattr(QuorumStays, "check", fine)
    run.maintenance.order = []
    results = await look.look_at_possible(run, "maintain_possible", CLUSTER)
    assert [row.host for row in run.maintenance.order] == ["cp", *(row.host for row in run.maintenance.order[1:])]
    assert [one.error.code for one in results if one.error] == [code]


@pytest.mark.parametrize(
    ("backup", "reboot", "asked"), [(True, "always", 0), (False, "always", 1), (False, "never", 0)]
)
async def test_etcd_its_quorum_and_a_backup_are_asked_for(
    reboot: str, asked: int, monkeypatch: pytest.MonkeyPatch, *, backup: bool
) -> None:
    run = a_run(reboot=reboot)
    run.maintenance.backup = backup
    monkeypatch.setattr(run, "session", lambda _: Restarting(Family()))

    def refuse(code: str) -> Any:
        async def check(*_: Any) -> None:
            raise Refused("a cause", code=code)

        return check

    monkeypatch.setattr(possible.EtcdFits, "check", refuse("SHW-782"))
    monkeypatch.setattr(QuorumStays, "check", refuse("SHW-823"))
    monkeypatch.setattr(possible.BackupYoung, "check", refuse("SHW-789"))
    found = [one.error.code for one in await look._on_control(run, "maintain_possible") if one.error]
    assert found == ["SHW-782", "SHW-823", *["SHW-789"] * asked]


# --- the command and the end


def test_the_command_says_what_the_flow_is_given() -> None:
    asked = COMMAND.parser().parse_args(["te.yaml", "--plan", "--no-backup", "--quiet"])
    assert (asked.plan, asked.no_backup, COMMAND.mode(asked)) == (True, True, "plan")
    assert COMMAND.mode(COMMAND.parser().parse_args(["te.yaml"])) == "maintain"


def test_a_run_is_judged_by_what_it_came_to() -> None:
    run = a_run()
    run.results = [StageResult("w1", StageName.MAINTAIN_WORKER, "ok")]
    run.maintenance.changed = True
    run.report = wave_report(run)
    assert run.report.outcome == "ok"
    assert "4 of 4 hosts had something to be done" in str(waves.end(run, flow.tell).message)
    errors = (ErrorReport("cp", "s", "SHW-824", "a cause", "a fix", retryable=False),)
    run.results = [StageResult("cp", StageName.MAINTAIN_CONTROL_PLANE, "failed", errors=errors)]
    assert wave_report(run).outcome == "failed"
    assert run.reported_mode == "maintain"


def test_a_host_has_time_to_come_back() -> None:
    run = a_run(reboot_minutes=60)
    stage = STAGES[StageName.MAINTAIN_WORKER]
    assert stage.seconds(run.cluster) - stage.seconds(a_run(reboot_minutes=1).cluster) == 59 * 60
    assert parse_cluster(FILE).maintain.reboot_minutes == 15
