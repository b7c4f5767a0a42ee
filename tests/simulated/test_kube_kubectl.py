"""The real kubectl finds in the simulated API what it finds in a real one, on an old server and on a current one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from tests.simulated.test_kube_support import (
    PLUGIN,
    RUNTIME_CLASS,
    Place,
    gpu_host,
    kubectl,
    kubectl_path,
    place,
    until,
)

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: gpu}
spec:
  replicas: 2
  selector: {matchLabels: {app: gpu}}
  template:
    metadata: {labels: {app: gpu}}
    spec:
      runtimeClassName: nvidia
      containers:
      - name: c
        image: nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0
        command: [sh, -c, 'nvidia-smi -L; sleep 3600']
        resources: {limits: {nvidia.com/gpu: "1"}}
"""


@pytest.fixture(params=["v1.20.2", "v1.31.7"])
async def where(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    kubectl_path()
    async with place(tmp_path, version=request.param) as made:
        version = request.param
        await made.ready_with(gpu_host("w1", "10.0.0.12", kubelet_version=version))
        yield made


async def test_nodes_and_pods_print_the_columns_of_a_real_server(where: Place) -> None:
    old = where.cluster.config.minor == 20
    rows = [line.split() for line in (await kubectl(where, "get", "nodes", "-o", "wide")).splitlines()]
    assert rows[0][:7] == ["NAME", "STATUS", "ROLES", "AGE", "VERSION", "INTERNAL-IP", "EXTERNAL-IP"]
    roles = "control-plane,master" if old else "control-plane"
    cp1 = ["cp1", "Ready", roles, where.cluster.config.version, "10.0.0.11", "<none>"]
    assert rows[1][:3] + rows[1][4:7] == cp1
    assert rows[2][:3] == ["w1", "Ready", "<none>"]
    assert rows[2][-1] == "containerd://1.7.27"
    both = await kubectl(where, "get", "nodes,pods", "-A", "-o", "wide")
    assert "node/w1" in both
    pods = [line.split() for line in both.splitlines() if line.startswith("kube-system")]
    names = {row[1].removeprefix("pod/") for row in pods}
    parts = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
    assert {f"{part}-cp1" for part in parts} <= names
    assert sum(name.startswith("kube-proxy-") for name in names) == 2
    etcd = next(row for row in pods if row[1] == "pod/etcd-cp1")
    assert (etcd[2], etcd[3], etcd[6:8]) == ("1/1", "Running", ["10.0.0.11", "cp1"])


async def test_gpu_pods_are_described_and_read(where: Place) -> None:
    old = where.cluster.config.minor == 20
    await where.apply(RUNTIME_CLASS)
    plugin = yaml.safe_load(PLUGIN)
    plugin["spec"]["template"]["spec"]["runtimeClassName"] = "nvidia"
    await where.apply(yaml.safe_dump(plugin))
    await until("two gpus", lambda: where.gpus("w1") == "2")
    await where.apply(DEPLOYMENT)
    pods = where.cluster.store.objects
    await until("two pods", lambda: [p["status"].get("phase") for p in pods("pods", "default")] == ["Running"] * 2)
    assert "gpu    2/2     2            2" in await kubectl(where, "get", "deploy")
    assert (await kubectl(where, "logs", "deploy/gpu")).startswith("GPU 0: NVIDIA A10 (UUID: GPU-w1-")
    await where.apply(DEPLOYMENT.replace("replicas: 2", "replicas: 3"))
    await until("the refusal", lambda: where.events("FailedScheduling"))
    shown = await kubectl(where, "get", "events", "--field-selector", "reason=FailedScheduling")
    wording = (
        "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had taint "
        "{node-role.kubernetes.io/master: }, that the pod didn't tolerate."
        if old
        else "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint "
        "{node-role.kubernetes.io/control-plane: }. preemption: "
    )
    assert wording in shown
    described = await kubectl(where, "describe", "node", "w1")
    assert "nvidia.com/gpu     2 " in described
    assert "KubeletReady" in described
    assert "Normal  NodeReady" in described.replace("   ", "  ").replace("   ", "  ")


async def test_a_node_is_drained_opened_and_deleted(where: Place) -> None:
    text = await kubectl(where, "drain", "w1", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=20s")
    assert text.splitlines()[0] == "node/w1 cordoned"
    assert "SchedulingDisabled" in await kubectl(where, "get", "node", "w1")
    assert await kubectl(where, "uncordon", "w1") == "node/w1 uncordoned\n"
    assert await kubectl(where, "delete", "node", "w1") == 'node "w1" deleted\n'
