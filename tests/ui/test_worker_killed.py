"""A worker that is killed in the middle of a repair, with the run on it: the next pass finishes what it began."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from shipway.gpu.jobs import ANNOTATION
from shipway.kube.client import Kube
from shipway.kube.drain import find_left_cordoned
from tests.ui.site import Site

pytestmark = [
    pytest.mark.ui,
    pytest.mark.filterwarnings("ignore:.*<socket.socket:pytest.PytestUnraisableExceptionWarning"),
]
DRIFT = "drift-repair/drift-repair"
WORKLOADS = {"cluster_file": "cluster.yaml", "repair": "workloads"}
META = {"name": "kept", "namespace": "default"}
SELECTOR = {"matchLabels": {"app": "kept"}}
BUDGET = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": META}


def children(pid: int) -> list[int]:
    """Return the processes below one, the deepest last."""
    below = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text(encoding="utf-8").rpartition(")")[2].split()[1]) == pid:
                below.append(int(path.parent.name))
        except (OSError, IndexError):
            continue
    return [one for child in below for one in (child, *children(child))]


async def holds_a_gpu(kube: Kube) -> None:
    """Let a deployment hold te2's GPU, under a budget that allows no eviction."""
    container = {"name": "c", "image": "registry.example/web:1", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    spec = {"containers": [container], "hostNetwork": True, "nodeSelector": {"kubernetes.io/hostname": "te2"}}
    notes = {ANNOTATION: "evict"}  # a pass waits for no pod that holds a GPU
    template = {"metadata": {"labels": {"app": "kept"}, "annotations": notes}, "spec": spec}
    body = {"replicas": 1, "selector": SELECTOR, "template": template}
    await kube.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": META, "spec": body})
    await kube.apply({**BUDGET, "spec": {"minAvailable": 1, "selector": SELECTOR}})


async def pods(kube: Kube) -> list[Any]:
    """Return the pods of that deployment that run."""
    found = await kube.list_("v1", "Pod", "default", labels="app=kept")
    return [pod for pod in found if (pod.get("status") or {}).get("phase") == "Running"]


async def budget_gone(kube: Kube) -> None:
    """Let the budget allow evictions."""
    await kube.apply({**BUDGET, "spec": {"minAvailable": 0, "selector": SELECTOR}})


async def taken_away(kube: Kube) -> None:
    """Let the deployment hold nothing any more."""
    await kube.patch("apps/v1", "Deployment", "kept", {"spec": {"replicas": 0}}, "default")


def test_a_worker_killed_in_the_middle_of_a_drain_leaves_nothing_that_the_next_pass_does_not_finish(site: Site) -> None:
    site.kube(holds_a_gpu)
    site.until("the pod runs", lambda: site.kube(pods))
    site.drift("te2", "disable", unit="kubelet.service")
    run = site.begun(DRIFT, WORKLOADS)
    site.until("te2 is cordoned", lambda: "te2" in site.kube(find_left_cordoned))
    (worker,) = site.layout.holders(run)
    below = children(site.layout.workers[worker].pid)
    assert below, "the run is no process of the worker"
    for pid in (site.layout.workers[worker].pid, *below):
        os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    site.layout.end_worker(worker, signal.SIGKILL)
    assert "te2" in site.kube(find_left_cordoned), "the run had ended before it was killed"
    site.kube(budget_gone)
    site.layout.start_worker(worker)
    site.layout.healthy(worker)

    def finished() -> dict[str, Any] | None:
        """Begin passes as a schedule does, until Prefect lets one: its place is freed when its lease ends."""
        time.sleep(15)
        ended = site.waited(site.begun(DRIFT, WORKLOADS))
        print(
            f"    {time.monotonic() - killed:4.0f} s after the kill: {ended['state_name']}: {ended['state']['message']}"
        )
        return None if ended["state_name"] == "Cancelled" else ended

    ended = site.until("a pass is let", finished, seconds=600)
    # the cordon, and the kubelet that is not enabled
    assert (ended["state_name"], ended["state"]["message"]) == ("Completed", "ok: 4 hosts; 2 repaired")
    assert site.kube(find_left_cordoned) == {}
    print(f"    the killed run is {site.layout.ask(f'/flow_runs/{run}')['state_name']} to Prefect")
    site.kube(taken_away)
