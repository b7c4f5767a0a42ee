"""GPUs that pods claim (DRA): proven by claims, never offered twice, and no node goes over beside a pod with a GPU."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from lab.simulated.kube.controllers.devices import Devices
from shipway.cluster.model import Cluster
from shipway.converge import converge, wait_until
from shipway.errors import Blocked, Refused
from shipway.gpu.claims import Device, see_devices
from shipway.gpu.classes import LABEL, claim_objects, daemon_sets
from shipway.gpu.counts import GpusAllocatable, find_lacking
from shipway.gpu.evidence import count_taken
from shipway.gpu.holders import gpu_holders
from shipway.gpu.measuring import FiguresHeard, measure_node, pod_that_measures
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.gpu.offers import count_places
from shipway.gpu.pods import NAMESPACE, AllRun, Said, apply_pods, pinned, pod_with_gpu
from shipway.gpu.proof import HostGpuFacts, Proof, make_space, prove
from shipway.gpu.proven import read_record
from shipway.gpu.result import not_as_claimed
from shipway.kube.client import Kube, Object
from shipway.step import Drift, Impact, StepResult
from shipway.steps.gpu.class_held import find_held
from shipway.steps.gpu.classes import BEFORE, KINDS, OF_CLAIMS, ClassesGone, NodeClass, PluginGone, class_of
from shipway.steps.gpu.device_list import needs_variable
from shipway.steps.gpu.plugin import PluginRunning
from shipway.steps.gpu.plugin_mode import plugin_mode
from shipway.steps.gpu.proven import prove_alone
from shipway.steps.kubernetes.nodes import NodesReady, WorkloadRuns
from shipway.steps.upgrade.proof import prove_host
from tasks import gates
from tasks.stages import device_plugin
from tests.gpu.claims import device, slice_of
from tests.gpu.test_cdi import hosts
from tests.gpu.test_proof import EXPECTED, NAMES, POD_NETWORK, declared
from tests.places.kube import Place, gpu_host, place

CLAIMS = NVIDIA.plugin.claims
assert CLAIMS is not None
DRIVER, PLUGIN, SYSTEM = CLAIMS.daemon_set, NVIDIA.plugin.daemon_set, NVIDIA.plugin.namespace
MOVED = "node te2 has its GPUs claimed (DRA)"
PREPARE = "Failed to prepare dynamic resources: prepare dynamic resources:"
RETIRED = "no device plugin is left that no node needs"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipway.gpu.proof.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("shipway.gpu.proof.SETTLE_SECONDS", 1.0)
    monkeypatch.setattr("shipway.gpu.proof.DECIDE_SECONDS", 1.0)
    monkeypatch.setattr("shipway.steps.gpu.classes.LOOK_SECONDS", 0.05)


def facts() -> dict[str, HostGpuFacts]:
    return {
        f"te{number}": HostGpuFacts(
            pci=2, driver=2, toolkit=True, handler=True, uuids=tuple(uuid for uuid, _ in gpu_host(number, 2).gpus)
        )
        for number in (2, 3)
    }


async def brought(made: Place, cluster: Cluster) -> dict[str, StepResult]:
    """Bring plugins and nodes to what a cluster file says, as a run does, in its order."""
    made.kube.forget()
    nodes = [step for host in cluster.hosts for step in gates.node_steps(cluster, host)]
    results = []
    for steps in (device_plugin.steps(cluster), nodes, device_plugin.leftovers(cluster)):
        made.kube.forget()
        results += await converge(steps, made.kube, Impact.WORKLOADS)
    return {one.step: one for one in results}


async def offered(made: Place, cluster: Cluster) -> None:
    for name in daemon_sets(cluster):
        await wait_until(WorkloadRuns("DaemonSet", name, SYSTEM), made.kube, seconds=30, every=0.05)
    await wait_until(GpusAllocatable(EXPECTED), made.kube, seconds=30, every=0.05)


async def started(made: Place) -> None:
    await made.kube.apply(yaml.safe_load(POD_NETWORK))
    await wait_until(NodesReady(NAMES), made.kube, seconds=30, every=0.05)
    await brought(made, made.cluster)
    await offered(made, made.cluster)


async def proven(made: Place, cluster: Cluster) -> Proof:
    return await prove(made.kube, cluster, EXPECTED, facts())


def claimer(name: str, count: int = 1) -> list[Object]:
    """Return a pod of somebody's that claims GPUs, with its template."""
    exactly = {"deviceClassName": "gpu.nvidia.com", "allocationMode": "ExactCount", "count": count}
    template = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}}},
    }
    container = {"name": "c", "image": "registry.example/x:1", "resources": {"claims": [{"name": "gpu"}]}}
    spec = {"containers": [container], "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": name}]}
    return [
        template,
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec},
    ]


async def hold(made: Place, *objects: Object) -> str:
    """Run a pod that holds a GPU; return its node."""
    for obj in objects:
        await made.kube.apply(obj)
    name = objects[-1]["metadata"]["name"]
    while True:
        pod = await made.kube.get("v1", "Pod", name, "default", fresh=True)
        if pod and pod["status"].get("phase") == "Running":
            return str(pod["spec"]["nodeName"])


def by_resource(name: str, node: str, runtime_class: str | None = None) -> Object:
    container = {"name": "c", "image": "registry.example/x:1", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    spec = {"nodeName": node, "containers": [container], "runtimeClassName": runtime_class}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def claimed_cluster(**changes: Any) -> Any:
    return place(hosts=hosts(**changes), cluster=declared(mode="dra"), version="v1.36.2")


async def test_every_gpu_is_proven_by_a_claim_and_nothing_is_left() -> None:
    async with claimed_cluster() as made:
        await started(made)
        assert await made.kube.get("apps/v1", "DaemonSet", PLUGIN, SYSTEM) is None
        assert await PluginRunning("dra", sets=(DRIVER,)).check(made.kube) is None
        proof = await proven(made, made.cluster)
        assert (proof.outcome, proof.error) == ("ok", None)
        assert (proof.expected, proof.allocatable, proof.verified, proof.compute) == (4, 4, 4, "passed")
        assert set(proof.devices.values()) == {uuid for host in made.hosts.values() for uuid, _ in host.gpus}
        assert proof.without == {"te2": 0, "te3": 0}
        made.kube.forget()
        assert await made.kube.get("v1", "Namespace", NAMESPACE) is None
        assert await made.kube.list_("resource.k8s.io/v1", "ResourceClaim") == []
        node = await made.kube.get("v1", "Node", "te2")
        record = read_record(node or {"metadata": {}})
        assert record
        assert sorted(record.devices) == sorted(uuid for uuid, _ in made.hosts["te2"].gpus)
        assert {one.outcome for one in (await brought(made, made.cluster)).values()} == {"ok"}


async def test_claims_of_others_are_left_to_them_and_counted() -> None:
    async with claimed_cluster() as made:
        await started(made)
        node = await hold(made, *claimer("train"))
        made.kube.forget()
        (holder,) = await gpu_holders(made.kube, node)
        assert holder.startswith("default/train (claim gpu: gpu-")
        assert (await count_taken(made.kube, EXPECTED))[node] == 1
        assert await count_places(made.kube) == {"te1": 0, "te2": 2, "te3": 2}
        proof = await proven(made, made.cluster)
        assert (proof.outcome, proof.verified, proof.expected) == ("ok", 3, 4)
        assert proof.notes == ("1 GPUs are held by pods of others: only the free ones were proven",)


async def test_a_slice_that_lacks_a_gpu_is_a_node_that_lacks_one() -> None:
    async with claimed_cluster() as made:
        await started(made)
        (mine,) = [
            one
            for one in await made.kube.list_("resource.k8s.io/v1", "ResourceSlice")
            if one["spec"]["nodeName"] == "te2"
        ]
        devices = [
            *mine["spec"]["devices"][:1],
            {**mine["spec"]["devices"][1], "taints": [{"key": "x", "effect": "NoSchedule"}]},
        ]
        change = {"spec": {"devices": devices}}
        await made.kube.patch("resource.k8s.io/v1", "ResourceSlice", mine["metadata"]["name"], change)
        made.kube.forget()
        assert await find_lacking(made.kube, EXPECTED) == {"te2": "te2 has 1 of 2"}
        proof = await proven(made, made.cluster)
        assert proof.outcome == "failed"
        assert proof.error
        assert "te2: expected 2 GPUs, but allocatable 1" in proof.error.message


async def test_a_pod_that_sees_another_gpu_than_it_claimed_is_a_failure() -> None:
    async with claimed_cluster() as made:
        await started(made)
        swapped = [(f"{uuid[:-1]}9", well) for uuid, well in made.hosts["te2"].gpus]
        for one in await made.kube.list_("resource.k8s.io/v1", "ResourceSlice"):
            if one["spec"]["nodeName"] == "te2":
                wrong = [
                    {**device, "attributes": {**device["attributes"], "uuid": {"string": uuid}}}
                    for device, (uuid, _) in zip(one["spec"]["devices"], swapped, strict=True)
                ]
                await made.kube.patch(
                    "resource.k8s.io/v1", "ResourceSlice", one["metadata"]["name"], {"spec": {"devices": wrong}}
                )
        made.kube.forget()
        proof = await proven(made, made.cluster)
        assert proof.outcome == "failed"
        assert proof.error
        assert "on te2 sees" in proof.error.message or "which te2 does not have" in proof.error.message


async def test_a_driver_that_does_not_answer_the_kubelet_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with claimed_cluster() as made:
        await started(made)
        monkeypatch.setattr(Devices, "unprepared", lambda *_: f"{PREPARE} DRA driver gpu.nvidia.com is not registered")
        proof = await proven(made, declared(mode="dra", verify_seconds=10))
        assert proof.outcome == "failed"
        assert proof.link
        assert "DRA driver gpu.nvidia.com is not registered" in proof.link.why


async def test_a_host_of_a_wave_is_proven_though_it_is_cordoned() -> None:
    async with claimed_cluster() as made:
        await started(made)
        await made.kube.patch("v1", "Node", "te2", {"spec": {"unschedulable": True}})
        await prove_host(made.kube, made.cluster, "te2", 2)
        node = await made.kube.get("v1", "Node", "te2", fresh=True)
        record = read_record(node or {"metadata": {}})
        assert record
        assert len(record.devices) == 2


async def test_nothing_needs_the_variable_where_gpus_are_claimed() -> None:
    async with claimed_cluster() as made:
        await started(made)
        node = await hold(made, *claimer("train"))
        made.kube.forget()
        assert await needs_variable(made.kube, node) == ""


async def test_a_node_goes_over_to_claims_once_no_pod_holds_a_gpu_and_the_plugin_goes_with_the_last() -> None:
    async with place(hosts=hosts(), cluster=declared(mode="cdi"), version="v1.36.2") as made:
        await started(made)
        await hold(made, by_resource("job", "te2"))
        after = declared(mode="dra")
        results = await brought(made, after)
        held = results[MOVED]
        assert held.outcome == "drifted"
        assert held.drift
        assert held.drift.have.startswith("whole GPUs; it stays so for now: GPUs are held by te2: default/job (")
        assert held.drift.want == "claimed GPUs (DRA)"
        assert results[RETIRED].outcome == "ok", "te2 needs it"
        assert set(await find_held(made.kube, after)) == {"te2"}
        await wait_until(WorkloadRuns("DaemonSet", DRIVER, SYSTEM), made.kube, seconds=30, every=0.05)
        await wait_until(GpusAllocatable(EXPECTED), made.kube, seconds=30, every=0.05)
        assert sorted(await see_devices(made.kube)) == ["te3"], "never both on one node"
        assert await plugin_mode(made.kube) == "cdi"
        proof = await proven(made, declared(mode="cdi"))
        assert (proof.outcome, proof.error, proof.verified) == ("ok", None, 3)
        pod = await made.kube.get("v1", "Pod", "job", "default", fresh=True)
        assert pod
        assert pod["status"]["phase"] == "Running"
        await made.kube.delete("v1", "Pod", "job", "default", grace=0)
        results = await brought(made, after)
        assert (results[MOVED].outcome, results[RETIRED].outcome) == ("changed", "changed")
        await offered(made, after)
        proof = await proven(made, after)
        assert (proof.outcome, proof.error, proof.verified) == ("ok", None, 4)


async def test_the_way_back_waits_for_claims_and_leaves_nothing_of_the_driver() -> None:
    async with claimed_cluster() as made:
        await started(made)
        node = await hold(made, *claimer("train"))
        before = declared(mode="cdi")
        results = await brought(made, before)
        held = results[f"node {node} offers whole GPUs"]
        assert held.outcome == "drifted"
        assert held.drift
        assert held.drift.have.startswith("claimed GPUs (DRA); it stays so for now: GPUs are held by")
        assert await made.kube.get("apps/v1", "DaemonSet", DRIVER, SYSTEM), "that node needs it"
        await made.kube.delete("v1", "Pod", "train", "default", grace=0)
        results = await brought(made, before)
        assert results[f"node {node} offers whole GPUs"].outcome == "changed"
        await offered(made, before)
        made.kube.forget()
        assert await made.kube.list_("resource.k8s.io/v1", "ResourceSlice") == []
        for api, kind in (
            ("apps/v1", "DaemonSet"),
            ("resource.k8s.io/v1", "DeviceClass"),
            ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
            ("rbac.authorization.k8s.io/v1", "ClusterRole"),
            ("v1", "ServiceAccount"),
        ):
            assert await made.kube.list_(api, kind, labels=f"{LABEL}=dra") == [], kind
        proof = await proven(made, before)
        assert (proof.outcome, proof.error, proof.verified) == ("ok", None, 4)


async def test_a_plugin_made_by_hand_leaves_the_nodes_before_they_go_over() -> None:
    async with place(hosts=hosts(), cluster=declared(mode="cdi"), version="v1.36.2") as made:
        await started(made)
        path = {"spec": {"template": {"spec": {"affinity": None}}}}
        await made.kube.patch("apps/v1", "DaemonSet", PLUGIN, path, SYSTEM)
        await offered(made, made.cluster)
        results = await brought(made, declared(mode="dra"))
        assert (
            results["a device plugin that is still there leaves the nodes whose GPUs are claimed"].outcome == "changed"
        )
        assert results[RETIRED].outcome == "changed"
        await offered(made, declared(mode="dra"))


def not_ready(hosts_: list[str]) -> str:
    return f"{', '.join(hosts_)}: containerd 1.7"


async def test_no_node_loses_its_plugin_while_the_driver_of_claims_is_held_back() -> None:
    async def unready(names: Any) -> str:
        return not_ready(sorted(names))

    async with place(hosts=hosts(), cluster=declared(mode="cdi"), version="v1.36.2") as made:
        await started(made)
        after = declared(mode="dra")
        made.kube.forget()
        (driver,) = [
            one
            for one in await converge(device_plugin.steps(after, unready), made.kube, Impact.WORKLOADS)
            if "driver of claims 0.4.1" in one.step
        ]
        assert driver.outcome == "drifted"
        assert "it stays so for now: te2, te3: containerd 1.7" in str(driver.drift)
        nodes = [step for host in after.hosts for step in gates.node_steps(after, host)]
        made.kube.forget()
        results = {one.step: one for one in await converge(nodes, made.kube, Impact.WORKLOADS)}
        assert f"DaemonSet kube-system/{DRIVER} is not there yet" in str(results[MOVED].drift)
        made.kube.forget()
        assert await GpusAllocatable(EXPECTED).check(made.kube) is None


async def test_an_api_that_is_older_than_claims_leaves_the_plugin_and_says_what_to_do() -> None:
    async with place(hosts=hosts(), cluster=declared(mode="cdi"), version="v1.33.5") as made:
        await started(made)
        (error, *_) = [one.error for one in (await brought(made, declared(mode="dra"))).values() if one.error]
        assert "the API serves no resource.k8s.io/v1 (Kubernetes 1.34 does)" in error.message
        assert "shipway upgrade" in error.fix
        await offered(made, made.cluster)


def foreign() -> Object:
    container = {"name": "gpus", "image": "x/dra:1", "command": ["bash", "-c"], "args": ["gpu-kubelet-plugin -v 4"]}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    metadata = {"name": "dra-driver-nvidia-gpu-kubelet-plugin", "namespace": "default"}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": spec}


async def test_a_driver_of_claims_of_somebody_else_is_left_alone_and_never_doubled() -> None:
    async with place(hosts=hosts(), cluster=declared(mode="cdi"), version="v1.36.2") as made:
        await made.kube.apply(yaml.safe_load(POD_NETWORK))
        await made.kube.apply(foreign())
        for mode in ("cdi", "dra"):
            made.kube.forget()
            results = await converge(device_plugin.steps(declared(mode=mode)), made.kube, Impact.WORKLOADS)
            assert {one.outcome for one in results} == {"ok"}
            assert [one["metadata"]["name"] for one in await made.kube.list_("apps/v1", "DaemonSet", SYSTEM)] == [
                "kube-proxy",
                "test-cni",
            ]
        for obj in device_plugin.daemon_set(made.cluster):
            await made.kube.apply(obj)
        made.kube.forget()
        (result, *_) = await converge(device_plugin.steps(made.cluster), made.kube, Impact.WORKLOADS)
        assert isinstance(result.error, Refused)
        assert result.error.code == "SHW-656"
        assert "a driver of claims, DaemonSet default/dra-driver-nvidia-gpu-kubelet-plugin" in result.error.message


async def test_an_operators_plugin_and_claims_are_refused_together() -> None:
    async with place(hosts=hosts(), cluster=declared(mode="dra"), version="v1.36.2") as made:
        other = foreign()
        other["metadata"]["labels"] = {"app": "nvidia-device-plugin-daemonset"}
        await made.kube.apply(other)
        made.kube.forget()
        results = await converge(device_plugin.steps(made.cluster), made.kube, Impact.WORKLOADS)
        errors = [one.error for one in results if isinstance(one.error, Refused)]
        assert [one.code for one in errors] == ["SHW-657"]
        assert await made.kube.get("apps/v1", "DaemonSet", DRIVER, SYSTEM) is None


def test_a_test_pod_asks_as_its_node_offers() -> None:
    both = declared(mode="dra")
    claiming = pod_with_gpu(both, "a", count=2)["spec"]
    assert claiming["resourceClaims"] == [{"name": "gpus", "resourceClaimTemplateName": "gpus-2"}]
    assert claiming["containers"][0]["resources"] == {"claims": [{"name": "gpus"}]}
    asking = pod_with_gpu(declared(mode="runtime_class"), "a", count=2)["spec"]
    assert "resourceClaims" not in asking
    assert asking["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": "2"}}
    moving = pod_with_gpu(declared(mode="runtime_class"), "a", resource="gpu.nvidia.com")["spec"]
    assert "runtimeClassName" not in moving
    assert pod_with_gpu(both, "a", resource="nvidia.com/gpu")["spec"]["containers"][0]["resources"] == {
        "limits": {"nvidia.com/gpu": "1"}
    }


async def test_a_change_that_was_killed_in_between_leaves_no_slice_behind() -> None:
    async with claimed_cluster() as made:
        await started(made)
        for name in ("te2", "te3"):
            await made.kube.patch("v1", "Node", name, {"metadata": {"labels": {LABEL: "changing"}}})
        await wait_until(PluginGone("te2"), made.kube, seconds=30, every=0.05)
        left = slice_of("te2", [device("gpu-0")], name="left")
        await made.kube.apply({**left, "apiVersion": "resource.k8s.io/v1", "metadata": {"name": "left"}})
        before = declared(mode="cdi")
        await brought(made, before)
        await offered(made, before)
        made.kube.forget()
        assert await see_devices(made.kube) == {}
        assert (await proven(made, before)).outcome == "ok"


@dataclass(frozen=True)
class Ended:
    """A pod is gone."""

    name: str

    async def check(self, on: Kube) -> Drift | None:
        """Look for it."""
        found = await on.get("v1", "Pod", self.name, "default", fresh=True)
        return Drift("there", "gone") if found else None


async def changing(made: Place, node: str, before: str) -> None:
    """Leave a node as a run does that is killed while its class is changed: nobody offers its GPUs."""
    marked = {"labels": {LABEL: "changing"}, "annotations": {BEFORE: before}}
    await made.kube.patch("v1", "Node", node, {"metadata": marked})
    await wait_until(PluginGone(node), made.kube, seconds=30, every=0.05)


async def test_a_change_that_was_killed_says_on_the_node_what_was_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async def killed(*_: Any, **__: Any) -> None:
        raise asyncio.CancelledError

    async with claimed_cluster() as made:
        await started(made)
        monkeypatch.setattr("shipway.steps.gpu.classes.wait_until", killed)
        with pytest.raises(asyncio.CancelledError):
            await NodeClass("te2", None).apply(made.kube)
        node = await made.kube.get("v1", "Node", "te2", fresh=True)
        assert node
        assert (class_of(node), node["metadata"]["annotations"][BEFORE]) == ("changing", "dra")
        monkeypatch.undo()
        await brought(made, declared(mode="cdi"))
        node = await made.kube.get("v1", "Node", "te2", fresh=True)
        assert node
        assert class_of(node) is None
        assert BEFORE not in node["metadata"]["annotations"]


async def test_a_node_is_not_left_without_its_plugin_by_a_change_that_was_broken_off_beside_a_pod() -> None:
    async with place(hosts=hosts(), cluster=declared(mode="cdi"), version="v1.36.2") as made:
        await started(made)
        await hold(made, by_resource("job", "te2"))
        await changing(made, "te2", "")
        results = await brought(made, declared(mode="dra"))
        assert results[MOVED].error
        assert results[MOVED].error.message.startswith("it stays as it is: GPUs are held by te2: default/job (")
        await wait_until(GpusAllocatable({"te2": 2}), made.kube, seconds=30, every=0.05)
        results = await brought(made, declared(mode="dra"))
        assert results[MOVED].outcome == "drifted", "as if there had been no change"
        await changing(made, "te2", "")
        results = await brought(made, declared(mode="cdi"))
        assert results["node te2 offers whole GPUs"].outcome == "changed", "what is wanted is what was"
        await wait_until(GpusAllocatable({"te2": 2}), made.kube, seconds=30, every=0.05)


async def test_a_pod_whose_claim_came_in_between_has_its_driver_back_and_can_end() -> None:
    async with claimed_cluster() as made:
        await started(made)
        node = await hold(made, *claimer("train"))
        await changing(made, node, "dra")
        await made.kube.delete("v1", "Pod", "train", "default")
        before = declared(mode="cdi")
        results = await brought(made, before)
        error = results[f"node {node} offers whole GPUs"].error
        assert error
        assert error.message.startswith(f"it stays as it is: GPUs are held by {node}: default/train (claim gpu: gpu-")
        await wait_until(Ended("train"), made.kube, seconds=30, every=0.05)  # its driver takes back its claim
        assert (await brought(made, before))[f"node {node} offers whole GPUs"].outcome == "changed"
        await offered(made, before)


async def test_what_a_proof_has_left_ends_while_its_driver_is_there() -> None:
    async with claimed_cluster() as made:
        await started(made)
        await make_space(made.kube)
        left = [pod_with_gpu(made.cluster, f"gpu-test-{number}", resource="gpu.nvidia.com") for number in range(1, 5)]
        await apply_pods(made.kube, left)
        await wait_until(AllRun([pod["metadata"]["name"] for pod in left]), made.kube, seconds=30, every=0.05)
        before = declared(mode="cdi")
        results = await brought(made, before)
        assert results["node te2 offers whole GPUs"].outcome == "changed"
        await offered(made, before)
        assert await made.kube.list_("v1", "Pod", NAMESPACE) == []
        proof = await proven(made, before)
        assert (proof.outcome, proof.error, proof.verified) == ("ok", None, 4)


async def test_a_class_does_not_change_beside_test_pods_that_do_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with claimed_cluster() as made:
        await started(made)
        await make_space(made.kube)
        pod = pinned(pod_with_gpu(made.cluster, "gpu-test-1", resource="gpu.nvidia.com"), "te2")
        await apply_pods(made.kube, [pod])
        await wait_until(AllRun(["gpu-test-1"]), made.kube, seconds=30, every=0.05)
        monkeypatch.setattr(Devices, "unprepared", lambda *_: "DRA driver gpu.nvidia.com is not registered")
        with pytest.raises(Blocked, match="test pods on te2 do not end"):
            await NodeClass("te2", None, wait=1.0).apply(made.kube)
        node = await made.kube.get("v1", "Node", "te2", fresh=True)
        assert node
        assert class_of(node) == "dra"


async def test_what_a_run_left_that_was_killed_while_it_made_the_driver_goes() -> None:
    async with place(hosts=hosts(), cluster=declared(mode="cdi"), version="v1.36.2") as made:
        await started(made)
        for obj in claim_objects(declared(mode="dra")):
            if obj["kind"] in ("ServiceAccount", "ClusterRole"):
                await made.kube.apply(obj)
        await brought(made, made.cluster)
        for api, kind in (*KINDS, *OF_CLAIMS):
            assert await made.kube.list_(api, kind, labels=f"{LABEL}=dra") == [], kind


async def test_the_driver_is_looked_for_while_a_node_may_go_back_to_it() -> None:
    async with claimed_cluster() as made:
        await started(made)
        for name in ("te2", "te3"):
            await changing(made, name, "dra")
        made.kube.forget()
        assert await ClassesGone(()).check(made.kube) is None


async def test_a_host_that_joins_has_the_plugin_while_the_driver_of_claims_is_held_back() -> None:
    async with place(hosts=hosts(), cluster=declared(mode="cdi"), version="v1.36.2") as made:
        await started(made)
        await made.kube.patch("v1", "Node", "te3", {"metadata": {"labels": {"nvidia.com/gpu.present": None}}})
        await wait_until(PluginGone("te3"), made.kube, seconds=30, every=0.05)  # as of a host that has just joined
        nodes = [step for host in made.cluster.hosts for step in gates.node_steps(declared(mode="dra"), host)]
        made.kube.forget()
        results = {one.step: one for one in await converge(nodes, made.kube, Impact.WORKLOADS)}
        assert "is not there yet" in str(results["node te3 has its GPUs claimed (DRA)"].drift)
        await offered(made, made.cluster)


@pytest.mark.parametrize("more", [{}, {"adminAccess": True}], ids=["its pod is not bound yet", "an administrator's"])
async def test_a_claim_keeps_its_driver_though_no_pod_holds_a_gpu_by_it(more: dict[str, Any]) -> None:
    async with claimed_cluster() as made:
        await started(made)
        spec = claimer("x")[0]["spec"]["spec"]
        mine = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "spec": spec}
        await made.kube.apply({**mine, "metadata": {"name": "mine", "namespace": "default"}})
        devices = [{"request": "gpu", "driver": "gpu.nvidia.com", "pool": "te2", "device": "gpu-0", **more}]
        status = {"status": {"allocation": {"devices": {"results": devices}}}}
        await made.kube.patch("resource.k8s.io/v1", "ResourceClaim", "mine", status, "default", under="status")
        results = await brought(made, declared(mode="cdi"))
        drift = results["node te2 offers whole GPUs"].drift
        assert drift
        assert drift.have.endswith("claims have devices there, and their pods end by its driver: default/mine")
        assert results["node te3 offers whole GPUs"].outcome == "changed"


async def test_what_a_driver_of_somebody_else_offers_is_not_taken_away() -> None:
    async with place(hosts=hosts(), cluster=declared(mode="cdi"), version="v1.36.2") as made:
        await made.kube.apply(foreign())
        await made.kube.patch("v1", "Node", "te2", {"metadata": {"labels": {LABEL: "dra"}}})
        theirs = slice_of("te2", [device("gpu-0")], name="theirs")
        await made.kube.apply({**theirs, "apiVersion": "resource.k8s.io/v1", "metadata": {"name": "theirs"}})
        await NodeClass("te2", None).apply(made.kube)
        assert await made.kube.get("resource.k8s.io/v1", "ResourceSlice", "theirs", fresh=True)


async def test_a_repairs_proof_goes_the_way_that_a_held_plugin_goes() -> None:
    both = hosts(runtime_handlers={"runc", "nvidia"})
    async with place(hosts=both, cluster=declared(mode="runtime_class"), version="v1.36.2") as made:
        await started(made)
        await hold(made, by_resource("job", "te2", "nvidia"))
        after = declared(mode="dra")
        assert (await brought(made, after))[MOVED].outcome == "drifted"
        await wait_until(WorkloadRuns("DaemonSet", DRIVER, SYSTEM), made.kube, seconds=30, every=0.05)
        await wait_until(GpusAllocatable(EXPECTED), made.kube, seconds=30, every=0.05)
        proof = await prove_alone(made.kube, after, EXPECTED)
        assert (proof.outcome, proof.verified) == ("ok", 3)


async def test_who_is_held_is_asked_of_all_nodes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, most = 0, 0

    async def slow(_step: NodeClass, _on: Any) -> Drift:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return Drift("whole GPUs", "claimed GPUs (DRA)")

    async with place(hosts=hosts(), cluster=declared(mode="cdi"), version="v1.36.2") as made:
        await started(made)
        monkeypatch.setattr(NodeClass, "check", slow)
        made.kube.forget()
        assert sorted(await find_held(made.kube, declared(mode="dra"))) == ["te2", "te3"]
    assert most == 2, "looks that wait for the same list share one"


async def test_a_node_is_measured_by_a_claim_before_it_is_opened() -> None:
    async with claimed_cluster() as made:
        await started(made)
        heard = await measure_node(made.kube, made.cluster, "te2", 2, seconds=30)
        assert {one.uuid for one in heard.gpus} == {uuid for uuid, _ in made.hosts["te2"].gpus}


async def test_all_gpus_of_a_node_are_claimed_at_once_to_be_measured() -> None:
    async with claimed_cluster() as made:
        await started(made)
        await make_space(made.kube)
        pod = pod_that_measures(made.cluster, "gpu-figures-1", "te2", 2, resource="gpu.nvidia.com")
        await apply_pods(made.kube, [pod])
        said = FiguresHeard({"gpu-figures-1": "te2"})
        await wait_until(said, made.kube, seconds=60, every=0.05)
        assert {one.uuid for one in said.heard["te2"].gpus} == {uuid for uuid, _ in made.hosts["te2"].gpus}


A, B = Device("gpu-0", "GPU-a"), Device("gpu-1", "GPU-b")


@pytest.mark.parametrize(
    ("sees", "given", "has", "said"),
    [
        (("GPU-a",), [A], ("GPU-a", "GPU-b"), []),
        (("GPU-a",), [A], (), []),
        (("te2:/dev/nvidia0",), [A], ("GPU-a",), []),
        (("GPU-b",), [A], ("GPU-a", "GPU-b"), ["p on te2 sees GPU-b, and its claim was given GPU-a"]),
        (("GPU-a",), [None], ("GPU-a",), ["p on te2 sees GPU-a, and its claim was given none that is offered"]),
        (("GPU-a", "GPU-b"), [A], (), ["p on te2 sees GPU-a, GPU-b, and its claim was given GPU-a"]),
        (("GPU-b",), [B], ("GPU-a",), ["p sees GPU-b, which te2 does not have by its driver"]),
    ],
)
def test_what_a_pod_sees_is_held_against_its_claim_and_its_host(
    sees: tuple[str, ...], given: list[Device | None], has: tuple[str, ...], said: list[str]
) -> None:
    assert not_as_claimed({"p": Said(sees, node="te2")}, {"p": given}, {"te2": has}) == said
