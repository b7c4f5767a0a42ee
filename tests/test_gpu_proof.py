"""The GPU proof: as many pods as cards at once, each with its own card; where it fails, the broken link is named."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import yaml

from shipway.converge import converge, wait_until
from shipway.errors import Refused
from shipway.gpu_proof import HostGpuFacts, Proof, prove
from shipway.gpu_proof_links import RULES, broken_link
from shipway.gpu_proof_pods import NAMESPACE, Said, said, same_cards, script, why_waiting
from shipway.gpu_proof_pods import test_pod as pod_of
from shipway.gpu_proof_seen import Evidence, NodeSeen, PodSeen
from shipway.manifests import render
from shipway.step import Impact
from shipway.steps.nodes import CardsAllocatable, NodesReady
from tasks import device_plugin, gates
from tests.kube_place import POD_NETWORK, Place, cluster_of, gpu_host, place

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


async def furnished(made: Place, *, cards: bool = True) -> None:
    """Bring the cluster to where the proof begins: network, labels, plugin, cards allocatable."""
    await made.kube.apply(yaml.safe_load(POD_NETWORK))
    await wait_until(NodesReady(NAMES), made.kube, seconds=30, every=0.05)
    steps = [step for host in made.cluster.hosts for step in gates.node_steps(made.cluster, host)]
    await converge([*steps, *device_plugin.steps(made.cluster)], made.kube, Impact.WORKLOADS)
    if cards:
        await wait_until(CardsAllocatable(EXPECTED), made.kube, seconds=30, every=0.05)


def facts(**changes: HostGpuFacts) -> dict[str, HostGpuFacts]:
    return {"te2": WELL, "te3": WELL, **changes}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipway.gpu_proof.LOOK_SECONDS", 0.05)


@pytest.mark.parametrize("version", ["v1.20.2", "v1.31.7"])
@pytest.mark.parametrize("mode", ["runtime_class", "default_runtime"])
async def test_every_card_is_proven_and_nothing_is_left(version: str, mode: str) -> None:
    runtime = "nvidia" if mode == "default_runtime" else "runc"
    hosts = [gpu_host(1, 0), *(gpu_host(n, 2, default_runtime=runtime) for n in (2, 3))]
    async with place(hosts=hosts, cluster=declared(mode=mode), version=version) as made:
        await furnished(made)
        well = HostGpuFacts(pci=2, driver=2, toolkit=True, handler=True, default_runtime=runtime)
        told: list[str] = []
        proof = await prove(made.kube, made.cluster, EXPECTED, {"te2": well, "te3": well}, told.append)
        assert (proof.outcome, proof.error) == ("ok", None)
        assert (proof.expected, proof.allocatable, proof.verified, proof.compute) == (4, 4, 4, "passed")
        assert sorted(proof.devices) == ["gpu-test-1", "gpu-test-2", "gpu-test-3", "gpu-test-4"]
        assert set(proof.devices.values()) == {uuid for host in hosts for uuid, _ in host.cards}
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


async def test_cards_that_others_hold_are_not_disturbed() -> None:
    async with place(hosts=[gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)], cluster=declared()) as made:
        await furnished(made)
        working = pod_of(made.cluster, "training")
        working["metadata"]["namespace"] = "default"
        working["spec"].pop("serviceAccountName")
        await made.kube.apply(working)
        await _until_running(made, "training")
        proof = await prove(made.kube, made.cluster, EXPECTED, facts())
        assert (proof.outcome, proof.verified, proof.expected) == ("ok", 3, 4)
        assert proof.notes == ("1 cards are held by pods of others: only the free ones were proven",)
        pod = await made.kube.get("v1", "Pod", "training", "default")
        assert pod
        assert pod["status"]["phase"] == "Running"


async def _until_running(made: Place, name: str) -> None:
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


async def test_a_missing_runtime_class_is_named() -> None:
    async with place(hosts=[gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)], cluster=declared()) as made:
        await furnished(made)
        await made.kube.delete("node.k8s.io/v1", "RuntimeClass", "nvidia")
        proof = await prove(made.kube, made.cluster, EXPECTED, facts())
        assert proof.link
        assert proof.link.name == "RuntimeClass"


async def test_an_unplugged_card_is_counted_and_named() -> None:
    hosts = [gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)]
    async with place(hosts=hosts, cluster=declared()) as made:
        await furnished(made)
        hosts[1].cards[0] = (hosts[1].cards[0][0], False)
        made.simulated.host_changed("te2")
        await wait_until(CardsAllocatable({"te2": 1}), made.kube, seconds=20, every=0.05)
        proof = await prove(made.kube, made.cluster, EXPECTED, facts())
        assert (proof.outcome, proof.verified, proof.allocatable) == ("failed", 3, 3)
        assert proof.link
        assert (proof.link.name, proof.link.why) == ("card", "te2: the plugin reports 1 of 2 cards as unhealthy")


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


async def test_no_cards_at_all_is_a_failure_unless_declared() -> None:
    hosts = [{"name": "te1", "address": "10.9.0.1", "gpus": 0}]
    kube: Any = None  # not asked: there is nothing to prove
    assert (await prove(kube, cluster_of([], hosts=hosts), {"te1": 0}, {})).outcome == "no cards declared"
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
        assert (proof.link.name, proof.link.why) == ("card", "te2: PCI shows 1 of 2 cards")


# --- what logs and pods say


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", None),
        ("devices=GPU-a\n", None),  # nvidia-smi may still list
        ("devices=GPU-a\ncards-listed\n", Said(("GPU-a",))),
        ("devices=card-0,card-1\ncards-listed\n", Said(("card-0", "card-1"))),
        ("devices=all\ncards-listed\n", Said(())),
        ("devices=void\nGPU 0: NVIDIA A10 (UUID: GPU-1f-2)\ncards-listed\n", Said(("GPU-1f-2",))),
        ("devices=/var/run/nvidia-container-devices\nGPU 0: X (UUID: GPU-9)\ncards-listed\n", Said(("GPU-9",))),
        (
            "devices=GPU-a\ncards-listed\nTest PASSED\nDone\nvectorAdd ended with exit status 0\n",
            Said(("GPU-a",), passed=True),
        ),
        (
            "devices=GPU-a\ncards-listed\nFailed to allocate\nvectorAdd ended with exit status 1\n",
            Said(("GPU-a",), passed=False),
        ),
        ("devices=GPU-a\ncards-listed\nTest PASSED\n", Said(("GPU-a",))),
    ],
)
def test_a_log_tells_the_card_and_the_sample(log: str, expected: Said | None) -> None:
    assert said(log) == expected


def test_the_same_card_twice_is_a_fault() -> None:
    heard = {"a": Said(("x",)), "b": Said(("x",)), "c": Said(()), "d": Said(("y", "z"))}
    faults = same_cards(heard)
    assert "c was given 0 cards (none) instead of one" in faults
    assert "d was given 2 cards (y, z) instead of one" in faults
    assert "the same card was given to a and b: x" in faults
    assert same_cards({"a": Said(("x",)), "b": Said(("y",))}) == []


def test_the_pods_need_only_a_shell_where_nothing_is_computed() -> None:
    assert "vectorAdd" not in script(compute=False)
    assert "/cuda-samples/vectorAdd" in script(compute=True)
    spec = pod_of(declared(), "gpu-test-1")["spec"]
    assert spec["runtimeClassName"] == "nvidia"
    assert "runtimeClassName" not in pod_of(declared(mode="default_runtime"), "gpu-test-1")["spec"]
    assert spec["restartPolicy"] == "Never"
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_why_a_pod_waits_is_told_by_the_nearest_cause() -> None:
    waiting = {"containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]}
    assert why_waiting({"status": waiting}, ["Failed: x"]) == "ErrImagePull: not found"
    creating = {"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}
    assert (
        why_waiting({"status": creating}, ["Scheduled: y", "FailedCreatePodSandBox: z"]) == "FailedCreatePodSandBox: z"
    )
    unscheduled = {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}]}
    assert why_waiting({"status": unscheduled}, []) == "FailedScheduling: 0/3 nodes"
    refused = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "Allocate failed"}
    assert why_waiting({"status": refused}, []) == "UnexpectedAdmissionError: Allocate failed"
    assert why_waiting({"status": {}}, []) == ""


# --- the broken link, from what was seen alone

PLUGIN = PodSeen("nvidia-x", "n1", "Running", log="Registered device plugin for 'nvidia.com/gpu' with Kubelet")
NODE = NodeSeen("n1", 2, 2, 2, host=WELL, plugin=PLUGIN)


def node(**changes: Any) -> NodeSeen:
    values = {name: getattr(NODE, name) for name in NODE.__dataclass_fields__}
    return NodeSeen(**{**values, **changes})


def evidence(*, pods: tuple[PodSeen, ...] = (), **changes: Any) -> Evidence:
    more = {
        "handler": "nvidia",
        **{name: changes.pop(name) for name in ("mode", "handler", "plugin_declared", "refusal") if name in changes},
    }
    return Evidence(**{"mode": "runtime_class", "nodes": (node(**changes),), "pods": pods, **more})


def host(**changes: Any) -> HostGpuFacts:
    values = {name: getattr(WELL, name) for name in WELL.__dataclass_fields__}
    return HostGpuFacts(**{**values, **changes})


def pending(*events: str, **more: Any) -> tuple[PodSeen, ...]:
    return (PodSeen("gpu-test-1", "n1", "Pending", events=events, **more),)


NO_HANDLER = 'FailedCreatePodSandBox: rpc error: failed to get sandbox runtime: no runtime for "nvidia" is configured'
BLIND = PodSeen(
    "nvidia-x", "n1", "Running", log="Incompatible strategy detected auto\nNo devices found. Waiting indefinitely."
)


@pytest.mark.parametrize(
    ("seen", "link", "part"),
    [
        (evidence(host=host(pci=1), allocatable=1), "card", "PCI shows 1 of 2"),
        (evidence(host=host(pci=0, driver=0, toolkit=False), allocatable=0, capacity=0), "card", "PCI shows 0 of 2"),
        (evidence(allocatable=1), "card", "1 of 2 cards as unhealthy"),
        (
            evidence(host=host(driver=0, driver_said="Driver/library version mismatch"), allocatable=0, capacity=0),
            "driver",
            "mismatch",
        ),
        (evidence(host=host(driver=1), allocatable=1, capacity=1), "driver", "lists 1 of 2"),
        (evidence(host=host(toolkit=False), allocatable=0, capacity=0), "toolkit", "nvidia-ctk is not there"),
        (
            evidence(pods=pending('Failed: exec: "nvidia-container-runtime": executable file not found')),
            "toolkit",
            "executable",
        ),
        (evidence(pods=pending(NO_HANDLER)), "runtime", "gpu-test-1 on n1"),
        (
            evidence(host=host(handler=False), allocatable=0, capacity=0, plugin=BLIND),
            "runtime",
            "no runtime named nvidia",
        ),
        (
            evidence(mode="default_runtime", handler=None, allocatable=0, capacity=0, plugin=BLIND),
            "runtime",
            "is runc, not nvidia",
        ),
        (evidence(handler=None, allocatable=0, capacity=0, plugin=None), "RuntimeClass", "no RuntimeClass nvidia"),
        (evidence(handler="other"), "RuntimeClass", "its handler is other"),
        (
            evidence(refusal='pods "x" is forbidden: pod rejected: RuntimeClass "nvidia" not found'),
            "RuntimeClass",
            "not found",
        ),
        (
            evidence(barred="taint node-role.kubernetes.io/control-plane", allocatable=0, capacity=0, plugin=None),
            "scheduler",
            "taint",
        ),
        (
            evidence(pods=pending(why="FailedScheduling: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")),
            "scheduler",
            "Insufficient",
        ),
        (evidence(pods=pending(why="ImagePullBackOff: Back-off pulling image")), "image", "ImagePullBackOff"),
        (evidence(plugin_declared=False, plugin=None, allocatable=0, capacity=0), "plugin", "DaemonSet is not there"),
        (evidence(plugin=None, labelled=False, allocatable=0, capacity=0), "plugin", "nvidia.com/gpu.present=true"),
        (evidence(plugin=BLIND, allocatable=0, capacity=0), "plugin", "sees no card"),
        (
            evidence(plugin=PodSeen("p", "n1", "Pending", why="CrashLoopBackOff"), allocatable=0, capacity=0),
            "plugin",
            "CrashLoopBackOff",
        ),
        (evidence(allocatable=8, capacity=8), "plugin", "is sharing configured"),
        (evidence(refusal="the same card was given to a and b: x"), "plugin", "a and b"),
        (
            evidence(why_not_ready="Kubelet stopped posting node status.", allocatable=0, capacity=0),
            "kubelet",
            "stopped posting",
        ),
        (evidence(allocatable=0, capacity=0), "kubelet", "registered, yet 0 of 2"),
        (
            evidence(pods=(PodSeen("a", "n1", "Failed", why="UnexpectedAdmissionError: Allocate failed"),)),
            "kubelet",
            "Unexpected",
        ),
        (
            evidence(pods=(PodSeen("a", "n1", "Running", log="error code system not yet initialized"),)),
            "compute",
            "not yet init",
        ),
        (
            evidence(pods=(PodSeen("a", "n1", "Running", log="Failed to allocate device vector A"),)),
            "compute",
            "allocate",
        ),
        (evidence(), "unknown", "nothing that was seen"),
        (evidence(pods=pending("Pulled: x", "Odd: something new")), "unknown", "something new"),
    ],
)
def test_the_broken_link_is_named(seen: Evidence, link: str, part: str) -> None:
    found = broken_link(seen)
    assert found.name == link
    assert part in found.why
    assert found.fix


def test_every_link_has_its_own_code() -> None:
    codes = [code for _, code, _, _ in RULES]
    assert len(set(codes)) == len(codes)
    assert {name for name, *_ in RULES} >= {"card", "driver", "toolkit", "runtime", "RuntimeClass", "plugin", "kubelet"}


def test_the_report_of_a_proof_is_plain_data() -> None:
    assert json.loads(json.dumps(Proof("ok", 1, 1, 1, {"gpu-test-1": "x"}).as_dict()))["devices"] == ["x"]
