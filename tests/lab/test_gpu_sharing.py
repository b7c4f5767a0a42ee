"""Each way of sharing GPUs is declared, applied and proven, and changed into another one around a pod that runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lab.conftest import Ran, Site
from tests.lab.drifting import passed

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
CLASSES = {
    "turns": {"sharing": "time-slicing", "replicas": 3},
    "at-once": {"sharing": "mps", "replicas": 2},
}
JOB = """
apiVersion: v1
kind: Pod
metadata: {{name: job, namespace: default}}
spec:
  nodeName: w1
{runtime}  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:1
    command: [sleep, "86400"]
    resources: {{limits: {{{resource}: 1}}}}
"""


def shared(site: Site, gpu_class: str | None) -> Ran:
    """Run a bootstrap with every host in a class; None: with no class at all."""
    gpu: dict[str, Any] = {"mode": "runtime_class", "compute": "off"}
    site.cluster_file(gpu=gpu | ({"classes": CLASSES, "sharing": gpu_class} if gpu_class else {}))
    return site.run(seconds=560)


def start_job(site: Site, resource: str, runtime: str = "") -> tuple[str, int]:
    """Start a pod that holds a share or part of a GPU of w1; return its container."""
    text = JOB.format(resource=resource, runtime=runtime)
    site.on("cp1", f"cat > /tmp/job.yaml <<'END'\n{text}\nEND\n")
    site.kubectl("apply -f /tmp/job.yaml")
    site.kubectl("wait --for=condition=Ready pod/job --timeout=120s")
    return container(site)


def classes_of(site: Site) -> list[str]:
    """Return the classes that w1 and w2 are labelled with."""
    labels = "{.items[*].metadata.labels.shipway\\.dev/gpu-class}"
    return site.kubectl(f"get node w1 w2 -o jsonpath='{labels}'").split(" ")


def container(site: Site) -> tuple[str, int]:
    """Return the container of the pod that holds a share, and how often it was started again."""
    pod = json.loads(site.kubectl("get pod job -o json"))
    status = pod["status"]["containerStatuses"][0]
    return status["containerID"], status["restartCount"]


@pytest.mark.parametrize(("gpu_class", "replicas", "way"), [("turns", 3, "time slicing"), ("at-once", 2, "MPS")])
def test_a_class_is_declared_applied_and_proven(drifting: Site, gpu_class: str, replicas: int, way: str) -> None:
    ran = shared(drifting, gpu_class)
    assert ran.code == 0, ran.output
    gpus = ran.report["gpus"]
    assert (gpus["outcome"], gpus["expected"], gpus["verified"]) == ("ok", 4 * replicas, 4 * replicas)
    assert {device: gpus["devices"].count(device) for device in gpus["devices"]} == dict.fromkeys(
        gpus["devices"], replicas
    )
    assert all(f"by {way}, {replicas} pods on each" in told for told in gpus["shared"].values())
    assert set(gpus["shared"]) == {"w1", "w2"}
    assert [finding for finding in passed(drifting, "none").findings if finding.action != "ok"] == []
    again = drifting.run()
    assert [host["steps"]["changed"] for host in again.report["hosts"]] == [0, 0, 0]


def test_a_class_changes_into_another_around_a_pod_that_holds_a_share_and_goes_back(drifting: Site) -> None:
    assert shared(drifting, "turns").code == 0
    before = start_job(drifting, "nvidia.com/gpu.shared", "  runtimeClassName: nvidia\n")
    held = shared(drifting, "at-once")
    assert held.code == 2, held.output
    assert "GPUs are held by w1: default/job" in held.output
    assert container(drifting) == before
    assert classes_of(drifting) == ["turns", "at-once"]
    drifting.kubectl("delete pod job")
    ran = shared(drifting, "at-once")
    assert (ran.code, ran.report["gpus"]["verified"]) == (0, 8), ran.output
    back = shared(drifting, None)
    assert (back.code, back.report["gpus"]["verified"]) == (0, 4), back.output
    assert "shipway.dev/gpu-class" not in drifting.kubectl("get nodes --show-labels")
    sets = drifting.kubectl("-n kube-system get ds -l shipway.dev/gpu-class -o name")
    assert sets.strip() == ""
