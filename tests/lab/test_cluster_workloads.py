"""Drift repair beside real workloads: a GPU pod lives on, a drain keeps budgets, a killed pass is finished."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.containers.kubernetes import chosen
from shipway.cluster_file import load_cluster
from shipway.gpu.jobs import ANNOTATION
from tasks.drift import repair as drift_repair
from tests.drift.rows import KUBECTL, ROWS
from tests.lab.conftest import ROOT, Site
from tests.lab.drifting import passed

pytestmark = pytest.mark.lab
BUDGETS = "policy/v1" if chosen().minor >= 21 else "policy/v1beta1"  # the API of disruption budgets
WAL = 8  # MiB that SQLite's write-ahead log may hold
PASSES = int(os.environ.get("SHIPWAY_DRIFT_PASSES", "6"))
TOUCH = "echo '# edited' >> /etc/containerd/config.toml"
EVICT = {"annotations": {ANNOTATION: "evict"}}  # no pass waits for a pod that holds a GPU
QUICK = ("swap", "kernel", "hosts", "hold", "apt", "containerd's file", "RuntimeClass", "kubelet's configuration")


def pod(image: str, **spec: object) -> dict[str, object]:
    """Return a pod template that sleeps, and ends at once when it is asked to."""
    sleeps = {"name": "c", "image": image, "command": ["sh", "-c", "sleep 86400"]}
    return {"terminationGracePeriodSeconds": 1, "containers": [{**sleeps, **spec}]}


def image_of(site: Site) -> str:
    return load_cluster(site.folder / "cluster.yaml").gpu.verify_image


def applied(site: Site, *objects: dict[str, object]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    site.lab.exec("cp1", "sh", "-c", f"{KUBECTL} apply -f -", give=text)


def open_everywhere(site: Site) -> bool:
    return "SchedulingDisabled" not in site.kubectl("get nodes --no-headers")


def gone(site: Site, which: str) -> None:
    """Wait until no such pod is left; the API gives a deployment's deletion back before its pods have ended."""
    ends = time.monotonic() + 90
    while site.kubectl(f"get pods {which} --no-headers --ignore-not-found"):
        assert time.monotonic() < ends, site.kubectl(f"get pods {which} -o wide")
        time.sleep(0.5)


def test_a_gpu_pod_lives_through_a_service_pass_and_its_host_is_held_back(drifting: Site) -> None:
    limits = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
    spec = {**pod(image_of(drifting), **limits), "nodeName": "w1", "runtimeClassName": "nvidia"}
    meta = {"name": "holds-a-gpu", "namespace": "default"}
    applied(drifting, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    drifting.kubectl("wait --for=condition=Ready pod/holds-a-gpu --timeout=90s")
    identity = "get pod holds-a-gpu -o jsonpath={.status.containerStatuses[0].containerID}"
    since = "systemctl show -p ActiveEnterTimestampMonotonic containerd kubelet"
    before = drifting.kubectl(identity), drifting.on("w1", since)
    drifting.on("w1", f"{TOUCH}; rm /etc/modules-load.d/k8s.conf")
    ends = {finding.step: finding for finding in passed(drifting, "service").findings}
    assert ends["kernel modules load at boot"].action == "repaired"
    held = ends["containerd runs its current configuration"]
    assert held.action == "held back"
    assert "GPUs held by running pods" in held.why
    assert "--repair workloads --host w1" in held.command
    assert (drifting.kubectl(identity), drifting.on("w1", since)) == before


def test_a_service_that_stands_still_is_started_beside_a_gpu_pod(drifting: Site) -> None:
    identity = "get pod holds-a-gpu -o jsonpath={.status.containerStatuses[0].containerID}"
    before = drifting.kubectl(identity)
    drifting.on("w1", "systemctl stop containerd")
    ends = {finding.step: finding.action for finding in passed(drifting, "service").findings}
    assert ends["containerd runs"] == "repaired"
    assert drifting.kubectl(identity) == before


def test_a_gpu_pod_that_is_waited_for_holds_a_drain_back_with_its_name(drifting: Site) -> None:
    drifting.on("w1", TOUCH)
    report = passed(drifting, "workloads")
    ends = {finding.step: finding for finding in report.findings}
    held = ends["containerd runs its current configuration"]
    assert (held.action, report.errors) == ("held back", ())
    assert "default/holds-a-gpu" in held.why
    assert open_everywhere(drifting)


def test_a_pod_that_nothing_would_start_again_is_not_evicted(drifting: Site) -> None:
    drifting.kubectl(f"annotate pod holds-a-gpu {ANNOTATION}=evict")
    drifting.on("w1", TOUCH)
    report = passed(drifting, "workloads")
    assert report.outcome == "partial"
    assert any("default/holds-a-gpu" in error.cause for error in report.errors)
    assert open_everywhere(drifting)
    drifting.kubectl("delete pod holds-a-gpu --wait=true")


def test_a_drain_keeps_a_disruption_budget_and_opens_the_host_again(
    drifting: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {"app": "kept"}
    limits = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
    spec = {**pod(image_of(drifting), **limits), "runtimeClassName": "nvidia"}
    selector = {"kubernetes.io/hostname": "w1"}
    template = {"metadata": {"labels": labels, **EVICT}, "spec": {**spec, "nodeSelector": selector}}
    meta = {"name": "kept", "namespace": "default"}
    deployment = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    budget = {"minAvailable": 1, "selector": {"matchLabels": labels}}
    applied(
        drifting,
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": deployment},
        {"apiVersion": BUDGETS, "kind": "PodDisruptionBudget", "metadata": meta, "spec": budget},
    )
    drifting.kubectl("rollout status deployment/kept --timeout=90s")
    drifting.on("w1", TOUCH)
    monkeypatch.setattr(drift_repair, "DRAIN_SECONDS", 8.0)
    report = passed(drifting, "workloads")
    assert any("default/kept" in error.cause and "disruption budget" in error.cause for error in report.errors)
    assert open_everywhere(drifting)
    drifting.kubectl("delete pdb kept")
    monkeypatch.setattr(drift_repair, "DRAIN_SECONDS", 90.0)
    again = passed(drifting, "workloads")  # the pod waits for w1 meanwhile, and comes back to it
    assert again.outcome == "ok", (again.errors, again.findings)
    drifting.kubectl("rollout status deployment/kept --timeout=90s")
    assert open_everywhere(drifting)


def test_a_pod_that_tolerates_everything_does_not_hold_a_drain_up(
    drifting: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves, comes back through the cordon, and the repair goes on; nobody blames a budget that is not there."""
    drifting.kubectl("delete deployment kept --ignore-not-found")
    gone(drifting, "-l app=kept")
    labels, limits = {"app": "stays"}, {"resources": {"limits": {"nvidia.com/gpu": 1}}}
    spec = {**pod(image_of(drifting), **limits), "runtimeClassName": "nvidia", "tolerations": [{"operator": "Exists"}]}
    place = {"nodeSelector": {"kubernetes.io/hostname": "w1"}}
    template = {"metadata": {"labels": labels, **EVICT}, "spec": {**spec, **place}}
    meta = {"name": "stays", "namespace": "default"}
    deployment = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    applied(drifting, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": deployment})
    drifting.kubectl("rollout status deployment/stays --timeout=90s")
    identity = "get pods -l app=stays -o jsonpath={.items[*].metadata.uid}"
    before = drifting.kubectl(identity)
    drifting.on("w1", TOUCH)
    monkeypatch.setattr(drift_repair, "DRAIN_SECONDS", 60.0)
    report = passed(drifting, "workloads")
    assert report.outcome == "ok", (report.errors, report.findings)
    assert before not in drifting.kubectl(identity)
    assert open_everywhere(drifting)
    drifting.kubectl("delete deployment stays")
    gone(drifting, "-l app=stays")


def test_a_pass_that_is_killed_in_the_middle_of_a_drain_is_finished_by_the_next(drifting: Site) -> None:
    limits = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
    spec = {**pod(image_of(drifting), **limits), "runtimeClassName": "nvidia"}
    template = {
        "metadata": {"labels": {"app": "kept"}, **EVICT},
        "spec": {**spec, "nodeSelector": {"kubernetes.io/hostname": "w1"}},
    }
    deployment = {"replicas": 1, "selector": {"matchLabels": {"app": "kept"}}, "template": template}
    meta = {"name": "kept", "namespace": "default"}
    applied(drifting, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": deployment})
    drifting.kubectl("rollout status deployment/kept --timeout=90s")
    drifting.on("w1", TOUCH)
    env = {**os.environ, "PREFECT_HOME": str(drifting.folder / "killed")}
    words = (sys.executable, "-m", "flows.drift_repair", str(drifting.folder / "cluster.yaml"), "--repair", "workloads")
    process = subprocess.Popen(words, cwd=ROOT, env=env, start_new_session=True)
    ends = time.monotonic() + 120
    while open_everywhere(drifting):
        assert process.poll() is None
        assert time.monotonic() < ends
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not open_everywhere(drifting)
    report = passed(drifting, "workloads")
    assert report.outcome == "ok", (report.errors, report.findings)
    assert open_everywhere(drifting)
    drifting.kubectl("delete deployment kept")
    gone(drifting, "-l app=kept")  # until then it holds its GPU, and w1 is rightly held back


def test_passes_with_random_drift_lose_nothing_and_do_not_grow(drifting: Site) -> None:
    """`SHIPWAY_DRIFT_PASSES=100` for the long form."""
    rows = [row for row in ROWS if row.end == "repaired" and not row.until and any(word in row.what for word in QUICK)]
    seed = random.randrange(2**32)  # noqa: S311 - it is reported, so that the passes can be had again
    chooser = random.Random(seed)  # noqa: S311
    print(f"seed {seed}")
    seen, before = [], database()
    for number in range(PASSES):
        broken = chooser.sample(rows, chooser.choice((0, 1, 2)))
        for row in broken:
            drifting.lab.exec(row.on, "bash", "-c", row.script)
        report = passed(drifting, "service")
        found = {finding.step for finding in report.findings}
        for row in broken:
            assert any(step.startswith(row.step) for step in found), (row.what, found)
        allowed = tuple(text for row in broken for text in (row.step, *row.also))
        assert all(step.startswith(allowed) for step in found), (found, [row.what for row in broken])
        assert report.outcome == "ok", report.findings
        seen.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        if number % 10 == 0:
            print(f"pass {number}: {seen[-1]} MiB")
    grown = database() - before
    print(f"{PASSES} passes: {seen[0]} MiB at first, {seen[-1]} MiB at last; database {grown / 2**20:+.1f} MiB")
    assert seen[-1] - seen[len(seen) // 2] < 60, seen  # MiB over the second half
    # A month of passes is what the server keeps; its write-ahead log comes and goes beside that.
    assert grown < (PASSES + WAL) * 2**20, "a pass leaves more than a MiB"


def database() -> int:
    """Return the size of Prefect's database, in bytes; earlier tests left their runs in it."""
    return sum(path.stat().st_size for path in Path(os.environ["PREFECT_HOME"]).glob("prefect.db*"))
