"""Nodes, pods and GPUs of the simulated cluster behave as the real ones in the transcripts did."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.simulated.kube.hosts import SimpleHost
from lab.simulated.kube.joining import JoinRefusedError
from lab.simulated.kube.latencies import Latencies
from tests.places.kube import POD_NETWORK
from tests.simulated.test_kube_support import (
    FACTOR,
    Place,
    place,
    pod,
    until,
)

CRDS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %(plural)s.operator.tigera.io}
spec:
  group: operator.tigera.io
  scope: Cluster
  names: {kind: %(kind)s, plural: %(plural)s}
  versions: [{name: v1, served: true, storage: true, subresources: {status: {}}}]
"""
OPERATOR = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: tigera-operator, namespace: tigera-operator}
spec:
  selector: {matchLabels: {name: tigera-operator}}
  template:
    metadata: {labels: {name: tigera-operator}}
    spec:
      hostNetwork: true
      tolerations: [{operator: Exists}]
      containers: [{name: tigera-operator, image: "quay.io/tigera/operator:v1.30.4"}]
"""


def ready_message(where: Place, node: str) -> str:
    found = where.cluster.store.get("nodes", "", node) or {}
    return str(next(c["message"] for c in found["status"]["conditions"] if c["type"] == "Ready"))


def taints(where: Place, node: str) -> list[str]:
    spec = (where.cluster.store.get("nodes", "", node) or {})["spec"]
    return [f"{taint['key']}:{taint['effect']}" for taint in spec.get("taints", [])]


async def test_nodes_wait_for_a_pod_network_and_say_so(tmp_path: Path) -> None:
    async with place(tmp_path) as where:
        await where.join(SimpleHost("w1", "10.0.0.12"))
        await asyncio.sleep(0.1)
        assert where.ready("w1") == "False"
        assert ready_message(where, "w1") == (
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
            "message:Network plugin returns error: cni plugin not initialized"
        )
        assert taints(where, "cp1") == [
            "node-role.kubernetes.io/control-plane:NoSchedule",
            "node.kubernetes.io/not-ready:NoSchedule",
        ]
        await where.apply(POD_NETWORK)
        await until("w1 Ready", lambda: where.ready("w1") == "True")
        assert taints(where, "w1") == []
        await until("DNS", lambda: [d["status"].get("availableReplicas") for d in dns(where)] == [2])


def dns(where: Place) -> list[dict[str, Any]]:
    return [d for d in where.cluster.store.objects("deployments.apps", "kube-system") if "status" in d]


async def test_join_is_refused_in_kubeadms_words(tmp_path: Path) -> None:
    async with place(tmp_path) as where:
        cluster, host = where.cluster, SimpleHost("w1", "10.0.0.12")
        with pytest.raises(JoinRefusedError, match=r'could not find a JWS signature .* for token ID "abcdef"'):
            await cluster.join(host, "abcdef.0123456789abcdef")
        with pytest.raises(JoinRefusedError, match=r'none of the public keys "sha256:[0-9a-f]{64}" are pinned'):
            await cluster.join(host, cluster.init_token, "sha256:" + "0" * 64)
        await where.ready_with(host)
        with pytest.raises(JoinRefusedError, match='a Node with name "w1" and status "Ready" already exists'):
            await cluster.join(host, cluster.init_token)


async def test_tokens_are_made_expire_and_go(tmp_path: Path) -> None:
    async with place(tmp_path) as where:
        cluster = where.cluster
        short = cluster.create_token(ttl=1.2, description="lab")

        def there() -> bool:
            return cluster.store.get("secrets", "kube-system", f"bootstrap-token-{short[:6]}") is not None

        assert there()
        await until("the end of the token", lambda: not there())
        assert cluster.delete_token(cluster.init_token)
        assert not cluster.delete_token(cluster.init_token)
        with pytest.raises(ValueError, match="is not of the form"):
            cluster.create_token(token="short")  # noqa: S106 - no token at all


async def test_a_silent_host_is_not_ready_after_the_grace_period_and_ready_when_back(tmp_path: Path) -> None:
    async with place(tmp_path) as where:
        host = SimpleHost("w1", "10.0.0.12")
        await where.ready_with(host)
        await where.create_pod(pod("stays", "sleep", "86400"))
        await until("the pod", lambda: where.phase("stays") == "Running")
        clock = asyncio.get_running_loop().time
        host.reachable, start = False, clock()
        where.cluster.host_changed("w1")
        await until("NotReady", lambda: where.ready("w1") == "Unknown")
        assert clock() - start >= 40 * FACTOR * 0.75
        assert ready_message(where, "w1") == "Kubelet stopped posting node status."
        await until("both taints", lambda: len(taints(where, "w1")) == 2)
        host.reachable = True
        where.cluster.host_changed("w1")
        await until("Ready", lambda: where.ready("w1") == "True")
        assert taints(where, "w1") == []
        assert where.phase("stays") == "Running"


async def test_pods_of_a_node_silent_for_too_long_move(tmp_path: Path) -> None:
    quick = Latencies(factor=FACTOR, init=0.0, join=0.0, eviction=10.0)
    async with place(tmp_path, latencies=quick) as where:
        host = SimpleHost("w1", "10.0.0.12")
        await where.ready_with(host)
        spec = yaml.safe_load(POD_NETWORK)["spec"]
        spec["template"]["spec"] = {"containers": [{"name": "c", "image": "registry.example/tool:1"}]}
        head = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n"
        await where.apply(head + yaml.safe_dump({"spec": spec}))
        store = where.cluster.store
        await until("the pod", lambda: [p["status"]["phase"] for p in store.objects("pods", "default")] == ["Running"])
        host.kubelet_running = False
        where.cluster.host_changed("w1")
        await until("a second pod", lambda: len(store.objects("pods", "default")) == 2)
        host.kubelet_running = True
        where.cluster.host_changed("w1")
        await until("one pod", lambda: [p["status"]["phase"] for p in store.objects("pods", "default")] == ["Running"])


async def test_pods_end_as_their_commands_do_and_restart_by_their_policy(tmp_path: Path) -> None:
    async with place(tmp_path) as where:
        await where.ready_with(SimpleHost("w1", "10.0.0.12"))
        await where.create_pod(pod("good", "sh", "-c", "echo done; exit 0"))
        await where.create_pod(pod("bad", "sh", "-c", "echo no; exit 3"))
        await where.create_pod(pod("again", "sh", "-c", "sleep 1; exit 1", restartPolicy="Always"))
        await until("both ends", lambda: (where.phase("good"), where.phase("bad")) == ("Succeeded", "Failed"))
        assert await where.log("good") == "done\n"
        ended = (where.cluster.store.get("pods", "default", "bad") or {})["status"]["containerStatuses"][0]
        assert (ended["state"]["terminated"]["exitCode"], ended["state"]["terminated"]["reason"]) == (3, "Error")

        def state() -> dict[str, Any]:
            found = (where.cluster.store.get("pods", "default", "again") or {})["status"]
            return dict((found.get("containerStatuses") or [{"state": {}}])[0])

        await until("the back-off", lambda: state()["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff")
        assert state()["restartCount"] >= 1


async def test_an_image_that_cannot_be_pulled_backs_off(tmp_path: Path) -> None:
    async with place(tmp_path, image_fault=lambda node, image: f"{image}: not found on {node}") as where:
        await where.create_pod(pod("a", "true", hostNetwork=True, tolerations=[{"operator": "Exists"}]))
        text = 'Failed to pull image "registry.example/tool:1": registry.example/tool:1: not found on cp1'
        await until("the event", lambda: text in where.events("Failed"))
        code, answer = await where.call("GET", "/api/v1/namespaces/default/pods/a/log")
        assert (code, answer["message"]) == (400, 'container "c" in pod "a" is waiting to start: ImagePullBackOff')


async def test_a_removed_node_takes_its_pods_along_and_may_join_again(tmp_path: Path) -> None:
    async with place(tmp_path) as where:
        host = SimpleHost("w1", "10.0.0.12")
        await where.ready_with(host)
        store = where.cluster.store
        assert where.cluster.remove_node("w1")
        await until("no pods left", lambda: not store.indexed("pods", "node", "w1"))
        assert store.get("leases.coordination.k8s.io", "kube-node-lease", "w1") is None
        await where.join(host)
        await until("w1 Ready", lambda: where.ready("w1") == "True")


async def test_calico_comes_from_its_installation_once_the_operator_runs(tmp_path: Path) -> None:
    async with place(tmp_path) as where:
        await where.join(SimpleHost("w1", "10.0.0.12"))
        for kind, plural in (
            ("Installation", "installations"),
            ("APIServer", "apiservers"),
            ("TigeraStatus", "tigerastatuses"),
        ):
            await where.apply(CRDS % {"kind": kind, "plural": plural})
        served = where.cluster.world.resources.of_kind
        await until("the definitions", lambda: served("operator.tigera.io/v1", "TigeraStatus"))
        for kind in ("Installation", "APIServer"):
            await where.apply(
                f"{{apiVersion: operator.tigera.io/v1, kind: {kind}, metadata: {{name: default}}, spec: {{}}}}"
            )
        await asyncio.sleep(0.2)
        store = where.cluster.store
        assert store.objects("daemonsets.apps", "calico-system") == []
        await where.call("POST", "/api/v1/namespaces", {"metadata": {"name": "tigera-operator"}})
        await where.apply(OPERATOR)
        await until("w1 Ready", lambda: where.ready("w1") == "True")

        def available() -> list[str]:
            statuses = store.objects("tigerastatuses.operator.tigera.io")
            return sorted(
                status["metadata"]["name"]
                for status in statuses
                for entry in status["status"]["conditions"]
                if (entry["type"], entry["status"]) == ("Available", "True")
            )

        await until("both statuses", lambda: available() == ["apiserver", "calico"])


async def test_two_hundred_nodes_are_ready_within_seconds_and_then_cost_nothing(tmp_path: Path) -> None:
    async with place(tmp_path, pod_cidr="10.64.0.0/12") as where:
        await where.apply(POD_NETWORK)
        hosts = [SimpleHost(f"w{number}", f"10.1.0.{number}") for number in range(200)]
        await asyncio.gather(*(where.join(host) for host in hosts))
        await until("200 nodes Ready", lambda: all(where.ready(host.name) == "True" for host in hosts), 20)
        code, answer = await where.call("GET", "/api/v1/nodes")
        assert (code, len(answer["items"])) == (200, 201)
        await asyncio.sleep(0.3)
        quiet = where.cluster.store.version
        await asyncio.sleep(0.2)
        assert where.cluster.store.version == quiet
