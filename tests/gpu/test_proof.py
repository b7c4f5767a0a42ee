"""The GPU proof: as many pods as GPUs at once, each with its own GPU; where it fails, the broken link is named."""

from __future__ import annotations

import asyncio
import itertools
import json
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from lab.simulated.kube.controllers.devices import Devices, NoDeviceError
from shipway.converge import converge, wait_until
from shipway.errors import Refused
from shipway.gpu.counts import GpusAllocatable
from shipway.gpu.pods import NAMESPACE
from shipway.gpu.pods import pod_with_gpu as pod_of
from shipway.gpu.proof import HostGpuFacts, prove
from shipway.kube.manifests import render
from shipway.step import Impact
from shipway.steps.kubernetes.nodes import NodesReady
from shipway.steps.upgrade.proof import prove_host, prove_reach
from tasks import gates
from tasks.stages import device_plugin
from tests.places.kube import POD_NETWORK, Place, cluster_of, gpu_host, place

WELL = HostGpuFacts(pci=2, driver=2, toolkit=True, handler=True, default_runtime="runc")
EXPECTED = {"te2": 2, "te3": 2}
NAMES = ("te1", "te2", "te3")


def declared(**gpu: Any) -> Any:
    hosts = [
        {"name": "te1", "address": "10.9.0.11", "gpus": 0},
        {"name": "te2", "address": "10.9.0.12", "gpus": 2},
        {"name": "te3", "address": "10.9.0.13", "gpus": 2},
    ]
    return cluster_of(NAMES, hosts=hosts, gpu={"mode": "runtime_class", "verify_seconds": 20, **gpu})


async def furnished(made: Place, *, gpus: bool = True) -> None:
    """Bring the cluster to where the proof begins: network, labels, plugin, GPUs allocatable."""
    await made.kube.apply(yaml.safe_load(POD_NETWORK))
    await wait_until(NodesReady(NAMES), made.kube, seconds=30, every=0.05)
    steps = [step for host in made.cluster.hosts for step in gates.node_steps(made.cluster, host)]
    await converge([*steps, *device_plugin.steps(made.cluster)], made.kube, Impact.WORKLOADS)
    if gpus:
        await wait_until(GpusAllocatable(EXPECTED), made.kube, seconds=30, every=0.05)


def facts(**changes: HostGpuFacts) -> dict[str, HostGpuFacts]:
    return {"te2": WELL, "te3": WELL, **changes}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipway.gpu.proof.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("shipway.gpu.proof.SETTLE_SECONDS", 1.0)


@pytest.mark.parametrize("version", ["v1.20.2", "v1.31.7"])
@pytest.mark.parametrize("mode", ["runtime_class", "default_runtime"])
async def test_every_gpu_is_proven_and_nothing_is_left(version: str, mode: str) -> None:
    runtime = "nvidia" if mode == "default_runtime" else "runc"
    hosts = [gpu_host(1, 0), *(gpu_host(n, 2, default_runtime=runtime) for n in (2, 3))]
    async with place(hosts=hosts, cluster=declared(mode=mode), version=version) as made:
        await furnished(made)
        well = HostGpuFacts(pci=2, driver=2, toolkit=True, handler=True, default_runtime=runtime)
        heard: list[str] = []
        proof = await prove(made.kube, made.cluster, EXPECTED, {"te2": well, "te3": well}, heard.append)
        assert (proof.outcome, proof.error) == ("ok", None)
        assert (proof.expected, proof.allocatable, proof.verified, proof.compute) == (4, 4, 4, "passed")
        assert sorted(proof.devices) == ["gpu-test-1", "gpu-test-2", "gpu-test-3", "gpu-test-4"]
        assert set(proof.devices.values()) == {uuid for host in hosts for uuid, _ in host.gpus}
        made.kube.forget()
        assert await made.kube.get("v1", "Namespace", NAMESPACE) is None
        json.dumps(proof.as_dict())


async def test_the_leftovers_of_a_killed_proof_are_cleaned_first() -> None:
    hosts = [gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)]
    async with place(hosts=hosts, cluster=declared(compute="off")) as made:
        await furnished(made)
        for obj in [*render("verify/namespace.yaml", namespace=NAMESPACE), pod_of(made.cluster, "gpu-test-1")]:
            await made.kube.apply(obj)
        proof = await prove(made.kube, made.cluster, EXPECTED, facts())
        assert (proof.outcome, proof.verified, proof.compute) == ("ok", 4, "not run")
        assert "gpu.compute is off: no CUDA sample was run" in proof.notes


async def test_a_namespace_of_somebody_else_is_left_alone() -> None:
    async with place(hosts=[gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)], cluster=declared()) as made:
        await furnished(made)
        await made.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        proof = await prove(made.kube, made.cluster, EXPECTED, facts())
        assert proof.outcome == "failed"
        assert isinstance(proof.error, Refused)
        assert await made.kube.get("v1", "Namespace", NAMESPACE)


async def test_gpus_that_others_hold_are_not_disturbed() -> None:
    async with place(hosts=[gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)], cluster=declared()) as made:
        await furnished(made)
        await hold_a_gpu(made, "training")
        proof = await prove(made.kube, made.cluster, EXPECTED, facts())
        assert (proof.outcome, proof.verified, proof.expected) == ("ok", 3, 4)
        assert proof.notes == ("1 GPUs are held by pods of others: only the free ones were proven",)
        pod = await made.kube.get("v1", "Pod", "training", "default")
        assert pod
        assert pod["status"]["phase"] == "Running"


async def test_where_pods_hold_every_gpu_nothing_is_proven_and_nothing_has_failed() -> None:
    async with place(hosts=[gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)], cluster=declared()) as made:
        await furnished(made)
        for name in ("one", "two", "three", "four"):
            await hold_a_gpu(made, name)
        proof = await prove(made.kube, made.cluster, EXPECTED, facts())
        assert (proof.outcome, proof.verified, proof.compute, proof.error) == ("all held", 0, "not run", None)
        assert proof.notes[0] == "4 GPUs are held by pods of others: none is free to be proven"
        assert await made.kube.get("v1", "Namespace", NAMESPACE) is None


async def test_no_test_pod_goes_to_a_node_to_avoid_and_the_others_are_proven() -> None:
    """A node whose kubelet has just died is Ready for 40 s more, and a pod placed there never starts."""
    hosts = [gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)]
    async with place(hosts=hosts, cluster=declared()) as made:
        await furnished(made)
        hosts[2].kubelet_running = False
        made.simulated.host_changed("te3")
        proof = await prove(made.kube, made.cluster, {"te2": 2}, facts(), avoid=["te3"])
        assert (proof.outcome, proof.verified, proof.expected) == ("ok", 2, 2)


async def hold_a_gpu(made: Place, name: str) -> None:
    """Let a pod of somebody else hold a GPU, and wait until it runs."""
    working = pod_of(made.cluster, name)
    working["metadata"]["namespace"] = "default"
    working["spec"].pop("serviceAccountName")
    await made.kube.apply(working)
    async with asyncio.timeout(20):
        while True:
            made.kube.forget()
            pod = await made.kube.get("v1", "Pod", name, "default")
            if pod and pod["status"].get("phase") == "Running":
                return
            await asyncio.sleep(0.05)


async def test_a_missing_handler_is_found_by_the_pods_that_do_not_start() -> None:
    hosts = [gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)]
    async with place(hosts=hosts, cluster=declared()) as made:
        await furnished(made)
        hosts[2].runtime_handlers.discard("nvidia")
        made.simulated.host_changed("te3")
        proof = await prove(made.kube, made.cluster, EXPECTED, facts(te3=HostGpuFacts(pci=2, driver=2, toolkit=True)))
        assert proof.outcome == "failed"
        assert proof.link
        assert (proof.link.name, proof.link.code) == ("runtime", "SHW-604")
        assert 'no runtime for "nvidia" is configured' in proof.link.why
        assert proof.verified == 2
        made.kube.forget()
        assert len(await made.kube.list_("v1", "Pod", NAMESPACE)) == 4  # the evidence is kept
        assert proof.error
        assert "broken link: runtime" in proof.error.message
        json.dumps(proof.as_dict())


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first test pods that a kubelet turned away, three at most."""
    allocate = Devices.allocate
    refused: list[str] = []

    def busy(self: Devices, pod: Any) -> None:
        if pod["metadata"]["namespace"] == NAMESPACE and len(refused) < 3:
            refused.append(pod["metadata"]["name"])
            raise NoDeviceError("Allocate failed due to requested number of devices unavailable for nvidia.com/gpu")
        allocate(self, pod)

    monkeypatch.setattr(Devices, "allocate", busy)
    return refused


async def test_a_pod_that_a_registering_plugin_turned_away_is_made_anew(refused: list[str]) -> None:
    """After a restart of containerd or the plugin a node may offer GPUs that its kubelet does not have yet."""
    hosts = [gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)]
    async with place(hosts=hosts, cluster=declared(compute="off")) as made:
        await furnished(made)
        heard: list[str] = []
        proof = await prove(made.kube, made.cluster, EXPECTED, facts(), heard.append)
    assert (proof.outcome, proof.verified, proof.error) == ("ok", 4, None)
    assert len(refused) == 3
    assert any("made anew" in line for line in heard)


async def test_so_it_is_on_a_host_that_is_proven_alone_after_its_kubelet_was_started(
    refused: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade failed a worker whose plugin took 32 s to come back, on a busy machine: here each look takes 25 s."""
    monkeypatch.setattr("shipway.gpu.pods.time", SimpleNamespace(monotonic=itertools.count(0.0, 25.0).__next__))
    whole = declared(compute="off", verify_seconds=300)
    async with place(hosts=[gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)], cluster=whole) as made:
        await furnished(made)
        heard: list[str] = []
        await prove_host(made.kube, made.cluster, "te2", 2, heard.append)
    assert len(refused) == 3
    assert any("made anew" in line for line in heard)


async def test_a_closed_node_without_gpus_is_proven_by_a_pod_that_asks_for_none() -> None:
    hosts = [gpu_host(number, 0) for number in (1, 2, 3)]
    async with place(hosts=hosts, cluster=declared(compute="off")) as made:
        await furnished(made, gpus=False)
        await made.kube.patch("v1", "Node", "te2", {"spec": {"unschedulable": True}})
        heard: list[str] = []
        await prove_reach(made.kube, made.cluster, "te2", heard.append)
        assert await made.kube.list_("v1", "Pod", NAMESPACE) == []
    assert not [line for line in heard if "not asked" in line or "not seen" in line]


async def test_a_kubelet_that_never_gives_its_gpus_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: Devices, pod: Any) -> None:
        if pod["metadata"]["namespace"] == NAMESPACE:
            raise NoDeviceError("Allocate failed due to requested number of devices unavailable for nvidia.com/gpu")

    monkeypatch.setattr(Devices, "allocate", never)
    monkeypatch.setattr("shipway.gpu.pods.REGISTER_SECONDS", 1.0)
    hosts = [gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)]
    async with place(hosts=hosts, cluster=declared(compute="off")) as made:
        await furnished(made)
        proof = await prove(made.kube, made.cluster, EXPECTED, facts())
    assert proof.link is not None
    assert (proof.outcome, proof.verified, proof.link.name) == ("failed", 0, "kubelet")


async def test_a_missing_runtime_class_is_named() -> None:
    async with place(hosts=[gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)], cluster=declared()) as made:
        await furnished(made)
        await made.kube.delete("node.k8s.io/v1", "RuntimeClass", "nvidia")
        proof = await prove(made.kube, made.cluster, EXPECTED, facts())
        assert proof.link
        assert proof.link.name == "RuntimeClass"


async def test_an_unplugged_gpu_is_counted_and_named() -> None:
    hosts = [gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)]
    async with place(hosts=hosts, cluster=declared()) as made:
        await furnished(made)
        hosts[1].gpus[0] = (hosts[1].gpus[0][0], False)
        made.simulated.host_changed("te2")
        await wait_until(GpusAllocatable({"te2": 1}), made.kube, seconds=20, every=0.05)
        proof = await prove(made.kube, made.cluster, EXPECTED, facts())
        assert (proof.outcome, proof.verified, proof.allocatable) == ("failed", 3, 3)
        assert proof.link
        assert (proof.link.name, proof.link.why) == ("GPU", "te2: the plugin reports 1 of 2 GPUs as unhealthy")


async def test_a_plugin_that_is_not_there_is_named() -> None:
    async with place(hosts=[gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)], cluster=declared()) as made:
        await made.kube.apply(yaml.safe_load(POD_NETWORK))
        await wait_until(NodesReady(NAMES), made.kube, seconds=30, every=0.05)
        await made.kube.apply(render("runtime-class/nvidia.yaml")[0])
        proof = await prove(made.kube, made.cluster, EXPECTED, facts())
        assert (proof.outcome, proof.verified) == ("failed", 0)
        assert proof.link
        assert (proof.link.name, proof.link.why) == ("plugin", "the device plugin's DaemonSet is not there")


async def test_an_image_that_cannot_be_pulled_is_named() -> None:
    fault = 'rpc error: failed to pull and unpack image "x": not found'
    hosts = [gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)]
    cluster = declared(verify_seconds=10)

    def broken(node: str, image: str) -> str | None:
        return fault if node == "te3" and "cuda-sample" in image else None

    async with place(hosts=hosts, cluster=cluster, image_fault=broken) as made:
        await furnished(made)
        proof = await prove(made.kube, cluster.model_copy(update={"gpu": cluster.gpu}), EXPECTED, facts())
        assert proof.link
        assert proof.link.name == "image"
        assert proof.verified == 2


async def test_no_gpus_at_all_is_a_failure_unless_declared() -> None:
    hosts = [{"name": "te1", "address": "10.9.0.1", "gpus": 0}]
    kube: Any = None  # not asked: there is nothing to prove
    assert (await prove(kube, cluster_of([], hosts=hosts), {"te1": 0}, {})).outcome == "no GPUs declared"
    proof = await prove(kube, cluster_of(["te1"]), {"te1": 0}, {})
    assert (proof.outcome, proof.expected) == ("failed", 0)
    assert proof.error
    assert "nothing to prove" in proof.error.message


async def test_a_count_that_disagrees_with_the_bus_fails_though_all_pods_run() -> None:
    async with place(hosts=[gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)], cluster=declared()) as made:
        await furnished(made)
        proof = await prove(made.kube, made.cluster, EXPECTED, facts(te2=HostGpuFacts(pci=1, driver=1, toolkit=True)))
        assert (proof.outcome, proof.verified) == ("failed", 4)
        assert proof.link
        assert (proof.link.name, proof.link.why) == ("GPU", "te2: PCI shows 1 of 2 GPUs")


# --- what logs and pods say
