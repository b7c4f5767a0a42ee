"""Drift on the SIMULATED lab: what the container lab's shared kernel and clock cannot show, and passes of the flow."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType

from flows import approval
from flows.drift_repair import drift_repair
from lab.simulated.control import ask
from shipway.cluster_file import load_cluster
from shipway.gpu.nvidia.answers import NVIDIA, VARIABLE
from shipway.steps.gpu.toolkit import CONFIG as TOOLKIT_CONFIG
from tasks.drift import permission as drift_permission
from tasks.drift.report import DriftReport
from tasks.findings import Finding
from tests.drift.page import keep
from tests.drift.scene import Scene
from tests.places.prefect import rows

pytestmark = pytest.mark.xdist_group("drift")


def ends(report: DriftReport) -> dict[tuple[str, str], str]:
    return {(finding.host, finding.step): finding.action for finding in report.findings}


def test_an_untouched_cluster_shows_no_drift_and_costs_one_task_a_host(scene: Scene) -> None:
    report = scene.passed("none")
    assert (report.outcome, report.findings, report.exit_code) == ("ok", (), 0)
    sql = "select name from task_run where flow_run_id = ? and name like 'look on %'"  # of this pass alone
    ends_at = time.monotonic() + 20
    while len(names := [n for (n,) in rows(scene.home, sql, str(scene.flow_run))]) < 3 and time.monotonic() < ends_at:
        time.sleep(0.2)  # Prefect records them in batches
    assert sorted(names) == ["look on te1", "look on te2", "look on te3"]
    assert all(host.round_trips <= 3 for host in report.hosts)


REPAIRED = {
    "swap is on": ("swap-on", {}, "swap is off"),
    "inotify's limit is changed live": (
        "sysctl",
        {"key": "fs.inotify.max_user_watches", "value": "8192"},
        "kernel settings are live",
    ),
    "a hold is lost (SIMULATED)": ("unhold", {"package": "kubelet"}, "kubelet, kubeadm, kubectl are held"),
    "containerd is stopped (SIMULATED)": ("stop", {"unit": "containerd.service"}, "containerd runs"),
    "the kubelet is disabled (SIMULATED)": ("disable", {"unit": "kubelet.service"}, "kubelet is enabled"),
    "a file is removed": ("remove", {"path": "/etc/sysctl.d/k8s.conf"}, "kernel settings last"),
    "the toolkit takes GPUs asked for by a variable": (
        "edit",
        {"path": TOOLKIT_CONFIG, "old": f"{VARIABLE} = false", "new": f"{VARIABLE} = true"},
        "no container sees a GPU that it was not given",
    ),
}


@pytest.mark.parametrize("what", REPAIRED)
def test_what_drifts_on_a_host_is_repaired_in_the_next_pass(scene: Scene, what: str) -> None:
    kind, values, step = REPAIRED[what]
    scene.drift("te2", kind, **values)
    report = scene.passed("service")
    assert ends(report).get(("te2", step)) == "repaired", ends(report)
    assert report.outcome == "ok", report.findings
    keep(what, next(f for f in report.findings if (f.host, f.step) == ("te2", step)), "simulated")
    assert scene.passed("none").findings == ()


REPORTED = {
    "a clock is off": ("skew", {"seconds": 90}, {"seconds": 0}, "the clocks agree"),
    "a disk is nearly full": ("disk", {"free_kib": 9_000_000}, {"free_kib": 200_000_000}, "disks have room"),
}


@pytest.mark.parametrize("what", REPORTED)
def test_what_no_step_can_repair_is_reported(scene: Scene, what: str) -> None:
    kind, bad, good, step = REPORTED[what]
    scene.drift("te3", kind, **bad)
    try:
        report = scene.passed("workloads")
    finally:
        scene.drift("te3", kind, **good)
    assert ends(report) == {("te3", step): "reported"}
    keep(what, report.findings[0], "simulated")
    assert (report.outcome, report.exit_code) == ("drifted", 2)


def test_a_host_that_was_opened_to_every_container_is_found_reported_and_closed_as_a_file(scene: Scene) -> None:
    """The toolkit reads its settings at each container's start: closing it restarts nothing, also beside GPU pods."""
    step = "no container sees a GPU that it was not given"
    scene.drift("te2", "edit", path=TOOLKIT_CONFIG, old=f"{VARIABLE} = false", new=f"{VARIABLE} = true")
    scene.gpu_pod("te2")  # admitted after the plugin that makes mounts: it needs no variable
    (found,) = scene.passed("none").findings
    assert (found.host, found.step, found.impact, found.action) == ("te2", step, "FILES", "reported")
    assert (found.have, found.want) == (f"{VARIABLE} = true", "false")
    assert found.command.endswith("--repair files --host te2")
    report = scene.passed("files")
    assert ends(report) == {("te2", step): "repaired"}
    scene.no_gpu_pod()
    assert scene.passed("none").findings == ()


def test_missing_gpus_are_reported_with_the_link_that_broke(scene: Scene) -> None:
    scene.drift("te2", "gpu", state="Unhealthy")
    try:
        scene.usable("te2", 0)
        report = scene.passed("service")
    finally:
        scene.drift("te2", "gpu", state="Healthy")
        scene.usable("te2", 1)
    gpus = next(f for f in report.findings if (f.host, f.step) == ("te2", "every expected GPU is allocatable"))
    assert gpus.action == "reported"
    assert gpus.why.startswith("GPU: te2: ")
    assert " Next: " in gpus.why


PROVEN = "free GPUs were proven since their device plugin started"
WAITING = "no GPU waits for a proof that cannot be run now"


def test_gpus_of_a_plugin_that_was_started_anew_are_proven_before_they_count(scene: Scene) -> None:
    scene.plugin_started_anew("te2")
    (found,) = scene.passed("none").findings
    assert (found.host, found.step, found.action, found.impact) == ("cluster", PROVEN, "reported", "START")
    assert found.have.startswith("te2: 0 of 1 GPUs proven since its plugin was started anew")
    scene.gpu_pod("te2")
    (busy,) = scene.passed("service").findings
    assert (busy.step, busy.action) == (WAITING, "reported")
    assert busy.have.endswith("; pods hold 1 of them")
    scene.no_gpu_pod()
    report = scene.passed("service")
    assert (ends(report), report.outcome) == ({("cluster", PROVEN): "repaired"}, "ok")
    assert scene.passed("none").findings == ()


def test_a_plugin_that_a_repair_replaces_has_its_gpus_proven_in_the_same_pass(scene: Scene) -> None:
    name, namespace = NVIDIA.plugin.daemon_set, NVIDIA.plugin.namespace
    patch = {"spec": {"template": {"spec": {"priorityClassName": None}}}}
    scene.patched("DaemonSet", name, patch, namespace, "apps/v1")
    scene.rolled_out(name, namespace)
    report = scene.passed("service")
    assert report.outcome == "ok", report.findings
    assert set(ends(report).values()) == {"repaired"}
    assert scene.passed("none").findings == ()


def test_a_declared_host_that_never_joined_is_reported_with_the_bootstrap_that_joins_it(scene: Scene) -> None:
    report = scene.passed("workloads", scene.declared)
    assert [(f.host, f.step, f.action) for f in report.findings if f.host == "te4"] == [
        ("te4", "the node has joined", "reported"),
    ]
    finding = next(f for f in report.findings if f.host == "te4")
    assert finding.command == f"python -m flows.bootstrap {scene.declared} --host te4"
    keep("a declared host never joined (SIMULATED)", finding, "simulated")
    assert scene.passed("service").outcome == "ok", "te4 is taken out of /etc/hosts again"


def test_a_service_of_the_dashboard_that_was_edited_is_put_right(scene: Scene) -> None:
    ports = {"spec": {"ports": [{"port": 443, "targetPort": 8443, "nodePort": 31777}]}}
    scene.patched("Service", "kubernetes-dashboard", ports, "kubernetes-dashboard")
    report = scene.passed("service")
    assert [(finding.host, finding.action) for finding in report.findings] == [("cluster", "repaired")]
    assert "dashboard" in report.findings[0].step
    keep("the dashboard's service is edited (SIMULATED)", report.findings[0], "simulated")


def test_above_what_is_allowed_is_reported_with_its_command(scene: Scene) -> None:
    scene.drift("te2", "disable", unit="kubelet.service")
    report = scene.passed("files")
    found = [f for f in report.findings if f.step == "kubelet is enabled"]
    assert [f.action for f in found] == ["reported"]
    assert found[0].command == f"python -m flows.drift_repair {scene.file} --repair service --host te2"
    assert scene.passed("service").outcome == "ok"


def test_a_host_that_cannot_be_reached_is_an_error_and_the_others_are_repaired(scene: Scene) -> None:
    scene.drift("te3", "unhold", package="kubelet")
    ask(scene.lab, do="cut", host="te2", refuse=True)
    try:
        report = scene.passed("service")
    finally:
        ask(scene.lab, do="plug", host="te2")
    assert (report.outcome, report.exit_code) == ("partial", 2)
    assert [error.host for error in report.errors] == ["te2"]
    assert ends(report)[("te3", "kubelet, kubeadm, kubectl are held")] == "repaired"


def test_three_repairs_of_one_thing_in_a_day_are_reported_as_a_fight(scene: Scene) -> None:
    for _ in range(3):
        scene.drift("te1", "remove", path="/etc/modules-load.d/k8s.conf")
        report = scene.passed("files")
    assert any("te1: kernel modules load at boot: repaired 3 times" in line for line in report.fights)


def test_outside_its_window_a_pass_repairs_files_only(scene: Scene) -> None:
    data = yaml.safe_load(scene.file.read_text(encoding="utf-8"))
    shut = scene.file.with_name("shut.yaml")
    rule = {"rrule": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYHOUR=3;BYMINUTE=0;BYSECOND=0", "minutes": 1}
    shut.write_text(yaml.safe_dump({**data, "repair": {"window": rule}}), encoding="utf-8")
    scene.drift("te2", "unhold", package="kubelet")
    scene.drift("te2", "disable", unit="kubelet.service")
    report = scene.passed("service", shut)
    assert ends(report)[("te2", "kubelet, kubeadm, kubectl are held")] == "repaired"
    held: list[Finding] = [f for f in report.findings if f.action == "held back"]
    assert {f.step for f in held} == {"kubelet is enabled"}
    assert all("outside the maintenance window; it opens 20" in f.why for f in held)
    assert scene.passed("service").outcome == "ok"


async def answered(scene: Scene, answer: dict[str, Any], meanwhile: Callable[[], object] = lambda: None) -> DriftReport:
    """Return the report of a pass that asks, answered as the form in the UI does; `meanwhile` happens before that."""
    flying = asyncio.create_task(drift_repair(str(scene.file), "service", ask=True, return_state=True))
    async with get_client() as client:
        paused = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))
        async with asyncio.timeout(60):
            while not (found := await client.read_flow_runs(flow_run_filter=paused)):  # noqa: ASYNC110
                await asyncio.sleep(0.2)  # there is no event to wait for: the API is asked
        await asyncio.to_thread(meanwhile)
        await client.resume_flow_run(found[0].id, run_input=answer)
    report = await (await flying).aresult(raise_on_failure=False)
    assert isinstance(report, DriftReport), report
    return report


def test_a_pass_that_asks_repairs_only_what_was_approved(scene: Scene) -> None:
    scene.drift("te2", "unhold", package="kubelet")
    scene.drift("te3", "unhold", package="kubelet")
    refused = asyncio.run(answered(scene, {"approve": False, "comment": "not today"}))
    assert set(ends(refused).values()) == {"held back"}
    assert {finding.why for finding in refused.findings} == {"not approved: not today"}
    partly = asyncio.run(answered(scene, {"approve": True, "leave_out": ["te3"]}))
    assert {finding.host: finding.action for finding in partly.findings} == {"te2": "repaired", "te3": "held back"}
    assert scene.passed("service").outcome == "ok"


YES = {"approve": True}


def test_an_approval_after_the_window_has_closed_lets_only_files_change(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = yaml.safe_load(scene.file.read_text(encoding="utf-8"))
    file = scene.file.with_name("minute.yaml")
    file.write_text(yaml.safe_dump({**data, "repair": {"window": {"cron": "0 2 * * 6", "minutes": 1}}}), "utf-8")
    shut = threading.Event()
    monkeypatch.setattr(drift_permission, "open_now", lambda *_: not shut.is_set())
    scene.drift("te2", "unhold", package="kubelet")
    scene.drift("te2", "stop", unit="containerd.service")
    monkeypatch.setattr(scene, "file", file)
    report = asyncio.run(answered(scene, YES, shut.set))
    assert ends(report)[("te2", "kubelet, kubeadm, kubectl are held")] == "repaired"
    held = [f for f in report.findings if f.step == "containerd runs"]
    assert [(f.action, "outside the maintenance window" in f.why) for f in held] == [("held back", True)]
    shut.clear()
    assert scene.passed("service").outcome == "ok"


def test_what_drifts_while_an_approval_is_awaited_is_not_repaired_under_it(scene: Scene) -> None:
    scene.drift("te2", "unhold", package="kubelet")
    report = asyncio.run(
        answered(scene, YES, lambda: scene.drift("te2", "remove", path="/etc/modules-load.d/k8s.conf"))
    )
    assert ends(report)[("te2", "kubelet, kubeadm, kubectl are held")] == "repaired"
    (later,) = [f for f in report.findings if f.step == "kernel modules load at boot"]
    assert later.action == "held back"
    assert "not in what was approved" in later.why
    assert scene.passed("service").outcome == "ok"


def test_gpu_pods_that_start_while_an_approval_is_awaited_are_not_disturbed(scene: Scene) -> None:
    wrong = {"old": "SystemdCgroup = true", "new": "SystemdCgroup = false"}
    scene.drift("te2", "edit", path="/etc/containerd/config.toml", **wrong)
    scene.drift("te2", "stop", unit="kubelet.service")
    report = asyncio.run(answered(scene, YES, lambda: scene.gpu_pod("te2")))
    held = [f for f in report.findings if f.action == "held back"]
    assert held
    assert all("containerd" in f.step or "runtime" in f.step for f in held), held
    assert {f.why for f in held} == {"1 GPUs held by running pods"}
    assert ends(report)[("te2", "kubelet runs")] == "repaired", "starting what stands still disturbs none"
    scene.no_gpu_pod()
    assert scene.passed("service").outcome == "ok"


def test_containerd_is_not_restarted_beside_pods_without_a_gpu_unless_the_file_says_so(scene: Scene) -> None:
    scene.gpu_pod("te2", gpus=0)
    wrong = {"old": "SystemdCgroup = true", "new": "SystemdCgroup = false"}
    scene.drift("te2", "edit", path="/etc/containerd/config.toml", **wrong)
    scene.drift("te2", "disable", unit="kubelet.service")
    ends = {f.step: (f.action, f.why, f.command) for f in scene.passed("service").findings}
    held = [end for step, end in ends.items() if "containerd" in step or "runtime" in step]
    assert held
    assert {action for action, _, _ in held} == {"held back"}
    assert all("restart_beside_pods" in why for _, why, _ in held)
    assert all(command.endswith("--repair workloads --host te2") for _, _, command in held)
    assert ends["kubelet is enabled"][0] == "repaired", "only what restarts containerd is held back"
    scene.no_gpu_pod()
    assert scene.passed("service").outcome == "ok"


def test_no_answer_is_a_no(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approval, "APPROVAL_SECONDS", 3)
    scene.drift("te2", "unhold", package="kubelet")
    report = scene.passed("service", ask=True)
    (finding,) = report.findings
    assert (finding.action, finding.why) == ("held back", "not approved: no answer within 0 minutes")
    assert scene.passed("service").outcome == "ok"


def test_a_no_that_comes_before_the_run_has_paused_is_said_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approval, "APPROVAL_SECONDS", 0)
    monkeypatch.setattr(approval, "GRACE_SECONDS", 20)  # after which Prefect would fail the run
    scene.drift("te2", "unhold", package="kubelet")
    report = scene.passed("service", ask=True)
    assert [finding.action for finding in report.findings] == ["held back"]
    assert scene.passed("service").outcome == "ok"


def test_the_pass_leaves_its_artifacts(scene: Scene) -> None:
    scene.passed("none")
    sql = "select key, data from artifact where flow_run_id = ? and key like 'drift-%'"
    found = dict(rows(scene.home, sql, str(scene.flow_run)))
    name = load_cluster(scene.file).name
    assert {f"drift-{name}-{what}" for what in ("report", "findings", "trend", "gpus", "progress")} <= set(found)
    gpus = json.loads(json.loads(found[f"drift-{name}-gpus"]))
    assert [row["state"] for row in gpus] == ["ok"] * len(gpus)
