"""Objects of the cluster: applied once, no drift afterwards, drift named by field, definitions before their objects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import yaml

from lab.simulated.kube.faults import Fault
from shipway.cluster.model import Cluster
from shipway.converge import converge, wait_until
from shipway.errors import ApiUnavailable, Blocked, PostconditionFailed
from shipway.gpu.counts import GpusAllocatable, count_asked_gpus, count_gpus
from shipway.kube.client import Kube, Object
from shipway.kube.errors import KindMissing
from shipway.kube.manifests import render
from shipway.kube.status import differences, why_not_ready
from shipway.step import Check, Drift, Impact, Step, StepResult
from shipway.steps.gpu.classes import ClassesGone, NodeClass
from shipway.steps.kubernetes.cri_socket import ANNOTATION, SocketRemembered
from shipway.steps.kubernetes.nodes import NodeLabels, NodesReady, NodeUntainted, WorkloadRuns
from shipway.steps.kubernetes.objects import ObjectAbsent, ObjectsPresent
from tasks import gates
from tasks.stages import dashboard, device_plugin, pod_network
from tests.places.kube import POD_NETWORK, Place, cluster_of, gpu_host, place

DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ships.example.org}
spec:
  group: example.org
  scope: Cluster
  names: {kind: Ship, plural: ships, singular: ship, listKind: ShipList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""
SHIP: Object = {
    "apiVersion": "example.org/v1",
    "kind": "Ship",
    "metadata": {"name": "one"},
    "spec": {"masts": [{"h": 3}]},
}


@pytest.fixture
async def small() -> AsyncIterator[Place]:
    async with place(hosts=[gpu_host(1, 0), gpu_host(2, 1)], cluster=cluster_of(["te1", "te2"])) as made:
        yield made


async def run(kube: Kube, steps: list[Check[Kube]], allow: Impact = Impact.WORKLOADS) -> list[StepResult]:
    kube.forget()
    return await converge(steps, kube, allow)


def plugin_steps(cluster: Cluster) -> list[Any]:
    """Return the steps about the plugin itself; what is left of its classes is not among them."""
    return [step for step in device_plugin.steps(cluster) if not isinstance(step, ClassesGone)]


def outcomes(results: list[StepResult]) -> list[str]:
    return [f"{result.outcome}{f': {result.error}' if result.error else ''}" for result in results]


@pytest.mark.parametrize("version", ["v1.20.2", "v1.31.7", "v1.37.1"])
@pytest.mark.parametrize("mode", ["runtime_class", "default_runtime"])
async def test_the_device_plugin_is_applied_once_and_shows_no_drift_afterwards(version: str, mode: str) -> None:
    cluster = cluster_of(["te1", "te2"], gpu={"mode": mode})
    async with place(hosts=[gpu_host(1, 0), gpu_host(2, 1)], cluster=cluster, version=version) as made:
        steps = plugin_steps(cluster)
        assert all(isinstance(step, Step) for step in steps)
        assert set(outcomes(await run(made.kube, steps))) == {"changed"}
        assert set(outcomes(await run(made.kube, steps))) == {"ok"}


async def test_a_plan_names_what_is_missing_and_changes_nothing(small: Place) -> None:
    methods: list[str] = []
    small.simulated.set_faults(lambda method, _: methods.append(method))
    results = await run(small.kube, plugin_steps(small.cluster), Impact.NOTHING)
    assert {result.outcome for result in results} == {"drifted"}
    assert "RuntimeClass/nvidia: missing" in str(results[0].drift)
    assert set(methods) == {"GET"}


async def test_drift_is_named_by_field_and_repaired(small: Place) -> None:
    steps = plugin_steps(small.cluster)
    await run(small.kube, steps)
    found = await small.kube.get("apps/v1", "DaemonSet", device_plugin_name(), "kube-system")
    assert found
    containers = [{**found["spec"]["template"]["spec"]["containers"][0], "image": "other:1"}]
    changes = {"spec": {"template": {"spec": {"containers": containers}}}}
    await small.kube.patch("apps/v1", "DaemonSet", device_plugin_name(), changes, "kube-system")
    plan = await run(small.kube, steps, Impact.NOTHING)
    assert plan[0].outcome == "ok"
    assert str(plan[1].drift).startswith(
        f"have DaemonSet/kube-system/{device_plugin_name()}: spec.template.spec.containers[0].image;"
    )
    assert outcomes(await run(small.kube, steps)) == ["ok", "changed"]


def device_plugin_name() -> str:
    return "nvidia-device-plugin-daemonset"


async def test_fields_of_other_owners_are_no_drift(small: Place) -> None:
    steps = plugin_steps(small.cluster)
    await run(small.kube, steps)
    changes = {"metadata": {"annotations": {"example.org/owner": "somebody"}}}
    await small.kube.patch("apps/v1", "DaemonSet", device_plugin_name(), changes, "kube-system")
    assert set(outcomes(await run(small.kube, steps))) == {"ok"}


async def test_a_field_that_is_wanted_no_more_is_taken_away(small: Place) -> None:
    await run(small.kube, plugin_steps(small.cluster))
    other = cluster_of(["te1", "te2"], gpu={"mode": "default_runtime"})
    assert outcomes(await run(small.kube, plugin_steps(other))) == ["changed"]
    found = await small.kube.get("apps/v1", "DaemonSet", device_plugin_name(), "kube-system")
    assert found
    assert "runtimeClassName" not in found["spec"]["template"]["spec"]


async def test_a_definition_is_served_before_its_objects_are_applied(small: Place) -> None:
    step = ObjectsPresent("ships are there", [SHIP, yaml.safe_load(DEFINITION)])
    drift = await step.check(small.kube)
    assert drift
    assert "Ship/one: missing" in drift.have
    assert outcomes(await run(small.kube, [step])) == ["changed"]
    assert outcomes(await run(small.kube, [step])) == ["ok"]


async def test_an_object_of_an_unknown_kind_is_blocked(small: Place) -> None:
    with pytest.raises(KindMissing):
        await ObjectsPresent("a ship is there", [SHIP]).check(small.kube)
    plan = await run(small.kube, [ObjectsPresent("a ship is there", [SHIP])], Impact.NOTHING)
    assert plan[0].outcome == "unknown"


async def test_an_api_that_fails_for_a_moment_fails_the_step_for_another_try(small: Place) -> None:
    small.simulated.set_faults(lambda method, _p: Fault(status=503) if method == "PATCH" else None)
    results = await run(small.kube, plugin_steps(small.cluster))
    assert [result.outcome for result in results] == ["failed", "unknown"]
    assert isinstance(results[0].error, ApiUnavailable)
    small.simulated.set_faults(lambda _m, _p: None)
    assert set(outcomes(await run(small.kube, plugin_steps(small.cluster)))) == {"changed"}


async def test_an_unwanted_object_is_deleted(small: Place) -> None:
    await small.kube.apply(render("runtime-class/nvidia.yaml")[0])
    step = ObjectAbsent("no RuntimeClass", "node.k8s.io/v1", "RuntimeClass", "nvidia")
    assert outcomes(await run(small.kube, [step])) == ["changed"]
    assert outcomes(await run(small.kube, [step])) == ["ok"]
    assert await ObjectAbsent("no ship", "example.org/v1", "Ship", "one").check(small.kube) is None


def custom(**entry: Any) -> Object:
    return {"apiVersion": "operator.tigera.io/v1", "kind": "Installation", "metadata": {}, "spec": {"pools": [entry]}}


@pytest.mark.parametrize(
    ("live", "wanted", "places"),
    [
        (custom(cidr="a", added_by_operator=1), custom(cidr="a"), []),
        (custom(cidr="b"), custom(cidr="a"), ["spec.pools[0].cidr"]),
        ({"kind": "X", "spec": {"l": [{"a": 1, "b": 2}]}}, {"kind": "X", "spec": {"l": [{"a": 1}]}}, ["spec.l[0].b"]),
        ({"metadata": {"generation": 1, "labels": {"a": "1"}}}, {"metadata": {"generation": 2}}, ["metadata.labels"]),
        ({"status": {"a": 1}, "spec": {}}, {"status": {"a": 2}, "spec": {}}, []),
        ({"spec": {"l": [1]}}, {"spec": {"l": [1, 2]}}, ["spec.l"]),
        ({"data": {"password": "x"}}, {"data": {"password": "y"}}, ["data.password"]),
    ],
)
def test_differences_are_places_without_values(live: Object, wanted: Object, places: list[str]) -> None:
    assert differences(live, wanted) == places


# --- nodes and gates


async def test_nodes_are_ready_once_there_is_a_pod_network(small: Place) -> None:
    gate = NodesReady(("te1", "te2", "te9"))
    drift = await gate.check(small.kube)
    assert drift == Drift(
        "0 of 3 ready; te1: CNI not initialised; te2: CNI not initialised; te9: not registered", "3 of 3 ready"
    )
    await small.kube.apply(yaml.safe_load(POD_NETWORK))
    heard: list[str] = []
    await wait_until(NodesReady(("te1", "te2")), small.kube, seconds=20, every=0.05, on_wait=heard.append)
    assert all(line.startswith("waiting until every node is Ready: ") for line in heard)


async def test_the_api_and_etcd_are_asked_for_their_own_word(small: Place) -> None:
    assert await gates.ApiAnswers().check(small.kube) is None
    assert await gates.EtcdHealthy().check(small.kube) is None


class _Answer(Kube):
    """An API whose /readyz says what a test wants."""

    def __init__(self, code: int, text: str) -> None:
        self.answer = (code, text)

    async def raw(self, path: str, *, seconds: float = 1) -> tuple[int, str]:
        del path, seconds
        return self.answer


async def test_a_failing_etcd_is_named() -> None:
    # As a 1.20 API server words it.
    text = "[+]ping ok\n[-]etcd failed: reason withheld\n[+]poststarthook/a ok\nreadyz check failed\n"
    assert await gates.EtcdHealthy().check(_Answer(500, text)) == Drift("failing: etcd", "healthy")
    assert await gates.ApiAnswers().check(_Answer(500, text)) == Drift("not ready: etcd", "ready")
    with pytest.raises(ApiUnavailable):
        await gates.ApiAnswers().check(_Answer(503, "starting"))


async def test_a_node_gets_its_labels_and_keeps_the_others(small: Place) -> None:
    steps = gates.node_steps(small.cluster, small.cluster.host("te2"))
    assert outcomes(await run(small.kube, steps)) == ["ok", "changed", "ok"]
    node = await small.kube.get("v1", "Node", "te2")
    assert node
    assert node["metadata"]["labels"]["nvidia.com/gpu.present"] == "true"
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "te2"
    assert set(outcomes(await run(small.kube, steps))) == {"ok"}


def test_a_node_whose_bus_shows_no_gpu_is_not_labelled() -> None:
    cluster = cluster_of(["te1", "te2"])
    assert not [one for one in gates.node_steps(cluster, cluster.host("te2"), gpus=0) if isinstance(one, NodeLabels)]


async def test_labels_of_a_node_that_has_not_joined_are_blocked(small: Place) -> None:
    with pytest.raises(Blocked, match="te9 is not registered"):
        await NodeLabels("te9", {"a": "b"}).check(small.kube)


@pytest.mark.parametrize("version", ["v1.20.2", "v1.24.17", "v1.31.7"])
async def test_the_control_plane_takes_pods_where_that_is_wanted(version: str) -> None:
    cluster = cluster_of(["te1"])
    async with place(hosts=[gpu_host(1, 1)], cluster=cluster, version=version) as made:
        steps = gates.node_steps(cluster, cluster.hosts[0])
        assert [type(step) for step in steps] == [NodeClass, NodeLabels, NodeUntainted, SocketRemembered]
        assert outcomes(await run(made.kube, steps)) == ["ok", "changed", "changed", "ok"]
        node = await made.kube.get("v1", "Node", "te1")
        assert node
        keys = {taint["key"] for taint in node["spec"].get("taints") or ()}
        assert keys <= {"node.kubernetes.io/not-ready"}
        assert set(outcomes(await run(made.kube, steps))) == {"ok"}


@pytest.mark.parametrize(("version", "written"), [("1.20.2", ""), ("1.31.7", "unix://"), ("1.33.1", "unix://")])
async def test_a_join_that_the_kubelet_ended_by_itself_gets_its_socket_back(version: str, written: str) -> None:
    cluster = cluster_of(["te1"], kubernetes={"version": version})
    async with place(hosts=[gpu_host(1, 1)], cluster=cluster, version=f"v{version}") as made:
        (step,) = [one for one in gates.node_steps(cluster, cluster.hosts[0]) if isinstance(one, SocketRemembered)]
        assert outcomes(await run(made.kube, [step])) == ["ok"], "as kubeadm leaves it"
        for other in (None, "/var/run/dockershim.sock"):
            await made.kube.patch("v1", "Node", "te1", {"metadata": {"annotations": {ANNOTATION: other}}})
            assert outcomes(await run(made.kube, [step])) == ["changed"]
            found = await made.kube.get("v1", "Node", "te1", fresh=True)
            assert found
            assert found["metadata"]["annotations"][ANNOTATION] == f"{written}/run/containerd/containerd.sock"
            assert "volumes.kubernetes.io/controller-managed-attach-detach" in found["metadata"]["annotations"]
        other = "/run/containerd/containerd.sock" if written else "unix:///run/containerd/containerd.sock"
        await made.kube.patch("v1", "Node", "te1", {"metadata": {"annotations": {ANNOTATION: other}}})
        assert outcomes(await run(made.kube, [step])) == ["ok"], "the same socket, written another way"


async def test_since_kubeadm_keeps_the_socket_on_the_host_no_node_is_annotated() -> None:
    cluster = cluster_of(["te1"], kubernetes={"version": "1.34.1"})
    assert not [one for one in gates.node_steps(cluster, cluster.hosts[0]) if isinstance(one, SocketRemembered)]
    async with place(hosts=[gpu_host(1, 1)], cluster=cluster, version="v1.34.1") as made:
        found = await made.kube.get("v1", "Node", "te1")
        assert found
        assert ANNOTATION not in found["metadata"]["annotations"]


def node(**status: Any) -> Object:
    return {"metadata": {"name": "n"}, "status": status}


def test_what_nodes_and_pods_say_is_read_right() -> None:
    assert why_not_ready(None) == "not registered"
    assert why_not_ready(node()) == "no status yet"
    ready = {"type": "Ready", "status": "False", "message": "Kubelet stopped posting node status."}
    assert why_not_ready(node(conditions=[ready])) == "Kubelet stopped posting node status."
    assert why_not_ready(node(conditions=[{**ready, "status": "True"}])) == ""
    old = (
        "runtime network not ready: NetworkReady=false message:Network plugin returns error: cni plugin not initialized"
    )
    assert why_not_ready(node(conditions=[{**ready, "message": old}])) == "CNI not initialised"
    assert count_gpus(node(allocatable={"nvidia.com/gpu": "2"})) == 2
    assert count_gpus(node(allocatable={})) == 0
    spec = {"containers": [{"resources": {"limits": {"nvidia.com/gpu": "2"}}}, {"resources": {}}]}
    assert count_asked_gpus({"spec": spec, "status": {"phase": "Running"}}) == 2
    assert count_asked_gpus({"spec": spec, "status": {"phase": "Succeeded"}}) == 0


async def test_gpus_are_counted_by_what_the_kubelet_offers(small: Place) -> None:
    drift = await GpusAllocatable({"te2": 1}).check(small.kube)
    assert drift == Drift("0 of 1 GPUs; te2 has 0 of 1", "1 GPUs (nvidia.com/gpu)")


async def test_a_workload_that_does_not_come_up_says_why(small: Place) -> None:
    spec = yaml.safe_load(POD_NETWORK)
    spec["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "te2"}
    spec["spec"]["template"]["spec"]["runtimeClassName"] = "none"
    spec["metadata"]["name"] = "stuck"
    runtime_class = {**render("runtime-class/nvidia.yaml")[0], "metadata": {"name": "none"}, "handler": "none"}
    await small.kube.apply(runtime_class)
    await small.kube.apply(spec)
    gate = WorkloadRuns("DaemonSet", "stuck", "kube-system")

    with pytest.raises(PostconditionFailed, match='no runtime for "none" is configured') as heard:
        await wait_until(gate, small.kube, seconds=20, every=0.05)
    assert (heard.value.code, heard.value.host) == ("SHW-434", "te2")  # in seconds: waiting cannot help


# --- stages


def test_a_cluster_without_gpus_gets_no_plugin() -> None:
    hosts = [{"name": "te1", "address": "10.9.0.1", "gpus": 0}]
    assert device_plugin.steps(cluster_of([], hosts=hosts)) == []


@pytest.mark.parametrize(
    ("version", "mode", "selector"),
    [("0.17.1", "default_runtime", False), ("0.17.1", "runtime_class", True), ("0.18.0", "default_runtime", True)],
)
def test_the_plugin_keeps_off_nodes_without_gpus_where_it_must(version: str, mode: str, *, selector: bool) -> None:
    cluster = cluster_of(["te1"], gpu={"mode": mode}, device_plugin={"version": version})
    spec = device_plugin.daemon_set(cluster)[0]["spec"]["template"]["spec"]
    assert ("nodeSelector" in spec) is selector
    assert ("runtimeClassName" in spec) is (mode == "runtime_class")
    assert spec["containers"][0]["image"] == f"nvcr.io/nvidia/k8s-device-plugin:v{version}"


def test_calico_is_declared_as_the_cluster_file_says() -> None:
    steps = pod_network.steps(cluster_of(["te1", "te2"]))
    assert [step.name for step in steps] == [
        "Calico 3.26.1: tigera operator is in place",
        "the pod network is Calico's, 10.244.64.0/20",
        "Calico's own API is declared",
    ]
    installation = steps[1]
    assert isinstance(installation, ObjectsPresent)
    assert installation.objects[0]["spec"]["calicoNetwork"]["ipPools"] == [  # type: ignore[index]
        {
            "blockSize": 26,
            "cidr": "10.244.64.0/20",
            "encapsulation": "VXLANCrossSubnet",
            "natOutgoing": "Enabled",
            "nodeSelector": "all()",
        }
    ]


def test_newer_calico_has_its_definitions_first() -> None:
    names = [step.name for step in pod_network.steps(cluster_of(["te1"], profile="current"))]
    assert names[0].endswith("operator crds is in place")
    assert names[1].endswith("tigera operator is in place")


def test_the_dashboard_is_off_unless_asked_for() -> None:
    assert dashboard.steps(cluster_of(["te1"], dashboard={"enabled": False})) == []


class _Busy(Kube):
    """An API whose controller writes the object between our read and our dry run, as often as a test says."""

    def __init__(self, writes: int) -> None:
        self.version_now, self.writes = 1, writes

    def _now(self) -> Object:
        meta = {"name": "x", "namespace": "d", "resourceVersion": str(self.version_now)}
        return {**DEPLOYMENT, "metadata": {**meta, "annotations": {"revision": str(self.version_now)}}}

    async def get(
        self, api_version: str, kind: str, name: str, namespace: str = "", *, fresh: bool = False
    ) -> Object | None:
        del api_version, kind, name, namespace, fresh
        return self._now()

    async def apply(self, obj: Any, *, dry_run: bool = False) -> Object:
        del obj
        assert dry_run
        if self.writes:
            self.version_now, self.writes = self.version_now + 1, self.writes - 1
        return self._now()


DEPLOYMENT: Object = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "x", "namespace": "d"},
    "spec": {},
}


@pytest.mark.parametrize("writes", [0, 1, 3])
async def test_what_a_controller_writes_meanwhile_is_no_drift(writes: int) -> None:
    assert await ObjectsPresent("x is there", [DEPLOYMENT]).check(_Busy(writes)) is None
