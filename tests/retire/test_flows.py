"""The order in which a host is taken out, what ends it early, and how the report judges it."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.states import Completed

from flows import remove, reset, retiring, waves
from shipway.errors import ApiUnavailable, ErrorReport, Refused
from shipway.stage import StageName
from tasks.context import Run
from tasks.retire.report import retire_report
from tasks.retire.work import tell_closed
from tasks.stage_result import StageResult, StepRow
from tests.retire.joined_host import cluster
from tests.retire.objects import Objects, node

ORDER = ["may_remove te2", "drain_node te2", "stop_kubelet te2", "delete_node cluster", "reset_host te2"]


def staged(monkeypatch: pytest.MonkeyPatch, module: Any, fails: str = "", kept_out: Any = None) -> list[str]:
    """Let stages do nothing but be counted; one of them fails."""
    ran: list[str] = []

    async def on(stage: str, host: str, *after: Any) -> Any:
        if None in after:
            return None
        ran.append(f"{stage} {host}")
        return None if stage == fails else Completed()

    async def lease(run: Run, host: str) -> Any:
        assert host in ("te1", "te2")
        ran.append(f"lock of {run.cluster.name}")
        return kept_out

    for part in (module, waves):
        monkeypatch.setattr(part, "on", on)
    monkeypatch.setattr(retiring, "lease_or_host", lease)
    if module is remove:
        monkeypatch.setattr(remove, "tell_closed", told_closed)
    return ran


async def told_closed(run: Run) -> None:
    """Tell that it was asked for."""
    run.retirement.left.append("closed")


def a_run(mode: Any = "remove") -> Run:
    run = Run(cluster(), mode)
    run.retirement.host, run.file = "te2", "te.yaml"
    run.only = ("te2",)
    return run


async def test_a_worker_goes_in_order_and_the_lock_is_held_before_anything_is_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran, run = staged(monkeypatch, remove), a_run()
    await remove.remove_host(run, "te2")
    assert ran == [ORDER[0], "lock of te", *ORDER[1:]]
    assert run.retirement.left == [
        "te2 still stands in te.yaml: take it out of the file, or the next bootstrap joins it again"
    ]


PLANE = [
    "may_remove te2",
    "lock of te",
    "leave_api te3",
    "drain_node te2",
    "stop_kubelet te2",
    "leave_etcd cluster",
    "delete_node cluster",
    "reset_host te2",
]


def a_plane() -> Run:
    """Return the removal of a control plane from a cluster with one more worker."""
    run = a_run()
    third = run.cluster.hosts[1].model_copy(update={"name": "te3"})
    run.cluster = run.cluster.model_copy(update={"hosts": (*run.cluster.hosts, third)})
    run.retirement.control_plane = True
    return run


async def test_a_control_plane_leaves_the_api_then_its_pods_then_etcd(monkeypatch: pytest.MonkeyPatch) -> None:
    ran, run = staged(monkeypatch, remove), a_plane()
    await remove.remove_host(run, "te2")
    assert ran == PLANE
    ran.clear()
    run.retirement.dead = True
    await remove.remove_host(run, "te2")
    assert ran == [one for one in PLANE if one.split()[0] not in ("drain_node", "stop_kubelet", "reset_host")]


@pytest.mark.parametrize("fails", ["leave_api te3", "drain_node te2", "stop_kubelet te2"])
async def test_a_control_plane_stays_a_member_while_anything_keeps_it(
    monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    ran = staged(monkeypatch, remove, fails=fails.split(maxsplit=1)[0])
    await remove.remove_host(a_plane(), "te2")
    assert ran == PLANE[: PLANE.index(fails) + 1]


async def test_behind_a_load_balancer_of_the_site_a_person_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ran, run = staged(monkeypatch, remove), a_plane()
    kubernetes = run.cluster.kubernetes.model_copy(update={"api_endpoint": "lb.example:6443"})
    run.cluster = run.cluster.model_copy(update={"kubernetes": kubernetes})
    await remove.remove_host(run, "te2")
    assert "leave_api te3" not in ran
    assert "take te2 out of what stands behind it" in run.retirement.left[0]


@pytest.mark.parametrize("fails", range(len(ORDER)))
async def test_what_fails_ends_it_and_nothing_after_it_is_done(monkeypatch: pytest.MonkeyPatch, fails: int) -> None:
    ran, run = staged(monkeypatch, remove, fails=ORDER[fails].split()[0]), a_run()
    await remove.remove_host(run, "te2")
    assert [one for one in ran if not one.startswith("lock")] == ORDER[: fails + 1]
    assert ("lock of te" in ran) == (fails > 0), "what is refused holds nobody up"
    assert len(run.retirement.left) == (2 if fails else 1), "of what is refused nothing is to be done"
    assert run.retirement.left[0] == "closed"


async def test_of_a_dead_host_only_the_node_goes_and_the_report_says_what_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran, run = staged(monkeypatch, remove), a_run()
    run.retirement.dead, run.retirement.declared = True, False
    await remove.remove_host(run, "te2")
    assert ran == ["may_remove te2", "lock of te", "delete_node cluster"]
    assert len(run.retirement.left) == 1
    assert "keep it off the network until `shipway reset te.yaml te2`" in run.retirement.left[0]


async def test_another_run_is_not_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Refused("another run works on this cluster", code="SHW-102")
    ran = staged(monkeypatch, remove, kept_out=held)
    with pytest.raises(Refused):
        await remove.remove_host(a_run(), "te2")
    assert ran == ["may_remove te2", "lock of te"]


async def test_where_no_lock_can_be_had_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    ran, run = staged(monkeypatch, remove, kept_out=ApiUnavailable("away")), a_run()
    run.results.append(StageResult("te2", StageName.MAY_REMOVE, "ok"))
    await remove.remove_host(run, "te2")
    assert ran == ["may_remove te2", "lock of te"]
    assert retire_report(run).outcome == "refused"


async def test_a_reset_ends_with_a_preflight_and_a_plan_of_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = staged(monkeypatch, reset)
    await reset.clear(a_run("reset"), "te2")
    assert ran == ["may_reset te2", "lock of te", "reset_host te2", "preflight te2"]
    ran.clear()
    await reset.clear(a_run("plan"), "te2")
    assert ran == ["may_reset te2", "lock of te", "reset_host te2"]


async def test_the_kubeconfig_of_a_cluster_that_is_no_more_is_moved_aside(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    staged(monkeypatch, reset)
    run = Run(cluster().model_copy(update={"state_dir": str(tmp_path)}), "reset")
    run.folder.mkdir()
    (run.folder / "kubeconfig").write_text("kept")
    await reset.clear(run, "te2")
    assert (run.folder / "kubeconfig").exists(), "a worker's reset ends no cluster"
    await reset.clear(run, "te1")
    assert not (run.folder / "kubeconfig").exists()
    assert (run.folder / "kubeconfig.before-reset").read_text() == "kept"
    assert "kubeconfig.before-reset" in run.retirement.left[0]


CLOSED = {"shipway.dev/cordoned-by": '{"why": "removal by Shipway", "since": "then"}'}


@pytest.mark.parametrize(
    ("drained", "closed", "annotations", "told"),
    [
        ("ok", True, CLOSED, ["node te2 stays closed: removal by Shipway (since then); "]),
        ("ok", False, CLOSED, []),
        ("ok", True, {}, []),
        ("ok", None, {}, []),
        ("failed", True, CLOSED, []),
        ("", True, CLOSED, []),
        ("ok", ApiUnavailable("away"), {}, ["whether node te2 stays closed cannot be told: away; "]),
    ],
    ids=["ours", "opened", "a person's", "gone", "the drain opens it", "not drained", "nobody tells"],
)
async def test_a_node_that_stays_closed_is_told_of(
    drained: str, closed: Any, annotations: dict[str, str], told: list[str]
) -> None:
    run = a_run()
    if drained:
        run.results.append(result(StageName.DRAIN_NODE, drained, fails=drained == "failed"))

    class Nodes(Objects):
        def forget(self) -> None:
            """Be asked anew."""

    async def kube() -> Any:
        if isinstance(closed, ApiUnavailable):
            raise closed
        one = node("te2", closed=bool(closed))
        one["metadata"]["annotations"] = annotations
        return Nodes(*([] if closed is None else [one]))

    run.kube = kube  # type: ignore[method-assign]
    await tell_closed(run)
    ending = "the same command goes on, `kubectl uncordon te2` opens it"
    assert run.retirement.left == [f"{one}{ending}" for one in told]


def result(stage: StageName, outcome: Any, *, fails: bool = False) -> StageResult:
    errors = (ErrorReport("te2", stage, "SHW-702", "a cause", "a fix", retryable=False),) if fails else ()
    host = "cluster" if stage is StageName.DELETE_NODE else "te2"
    return StageResult(host, stage, outcome, (StepRow("a step", outcome),), errors=errors)


@pytest.mark.parametrize(
    ("mode", "results", "outcome", "code"),
    [
        ("remove", [result(StageName.MAY_REMOVE, "failed", fails=True)], "refused", 1),
        ("plan", [result(StageName.MAY_RESET, "failed", fails=True)], "refused", 1),
        ("plan", [result(StageName.MAY_RESET, "ok"), result(StageName.RESET_HOST, "drifted")], "planned", 0),
        ("remove", [result(StageName.MAY_REMOVE, "ok"), result(StageName.DELETE_NODE, "changed")], "ok", 0),
        (
            "remove",
            [result(StageName.DELETE_NODE, "changed"), result(StageName.RESET_HOST, "failed", fails=True)],
            "failed",
            3,
        ),
        (
            "reset",
            [result(StageName.RESET_HOST, "changed"), result(StageName.PREFLIGHT, "failed", fails=True)],
            "failed",
            3,
        ),
    ],
)
def test_the_outcome_says_whether_anything_was_changed(
    mode: Any, results: list[StageResult], outcome: str, code: int
) -> None:
    run = a_run(mode)
    run.results += results
    report = retire_report(run)
    assert (report.outcome, report.exit_code) == (outcome, code)
    (row,) = report.hosts
    assert (row.name, row.role) == ("te2", "worker")
    assert sum(row.steps.values()) == len(results), "what is done to the node counts for its host"


def test_a_run_that_was_broken_off_says_how_to_go_on() -> None:
    report = retire_report(a_run(), broken_off="the run was interrupted")
    assert report.outcome == "failed"
    assert "Run again" in report.errors[0].fix
