"""What the logs and states of pods tell, and which link is named for what was seen: as tables."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shipway.gpu.links import find_broken_link, rules
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.gpu.pods import Said, read_log, script
from shipway.gpu.pods import pod_with_gpu as pod_of
from shipway.gpu.proof import HostGpuFacts, Proof
from shipway.gpu.result import same_gpus
from shipway.gpu.seen import Evidence, NodeSeen, PodSeen
from tests.gpu.test_proof import WELL, declared


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", None),
        ("devices=GPU-a\n", None),  # nvidia-smi may still list
        ("devices=GPU-a\ngpus-listed\n", Said(("GPU-a",))),
        ("devices=GPU-0,GPU-1\ngpus-listed\n", Said(("GPU-0", "GPU-1"))),
        ("devices=all\ngpus-listed\n", Said(())),
        (
            "devices=void\nnodes of te2: /dev/nvidia-uvm /dev/nvidia1 /dev/nvidiactl\ngpus-listed\n",
            Said(("te2:/dev/nvidia1",)),
        ),
        ("devices=void\nnodes of te2: /dev/nvidia*\ngpus-listed\n", Said(())),
        ("devices=void\nGPU 0: NVIDIA A10 (UUID: GPU-1f-2)\ngpus-listed\n", Said(("GPU-1f-2",))),
        ("devices=/var/run/nvidia-container-devices\nGPU 0: X (UUID: GPU-9)\ngpus-listed\n", Said(("GPU-9",))),
        (
            "devices=GPU-a\ngpus-listed\nTest PASSED\nDone\nvectorAdd ended with exit status 0\n",
            Said(("GPU-a",), passed=True),
        ),
        (
            "devices=GPU-a\ngpus-listed\nFailed to allocate\nvectorAdd ended with exit status 1\n",
            Said(("GPU-a",), passed=False),
        ),
        ("devices=GPU-a\ngpus-listed\nTest PASSED\n", Said(("GPU-a",))),
    ],
)
def test_a_log_tells_the_gpu_and_the_sample(log: str, expected: Said | None) -> None:
    assert read_log(log) == expected


def test_the_same_gpu_twice_is_a_fault() -> None:
    heard = {"a": Said(("x",)), "b": Said(("x",)), "c": Said(()), "d": Said(("y", "z"))}
    faults = same_gpus(heard)
    assert "c was given 0 GPUs (none) instead of one" in faults
    assert "d was given 2 GPUs (y, z) instead of one" in faults
    assert "the same GPU was given to a and b: x" in faults
    assert same_gpus({"a": Said(("x",)), "b": Said(("y",))}) == []


def test_the_pods_need_only_a_shell_where_nothing_is_computed() -> None:
    assert "vectorAdd" not in script(compute=False)
    assert "/cuda-samples/vectorAdd" in script(compute=True)
    spec = pod_of(declared(), "gpu-test-1")["spec"]
    assert spec["runtimeClassName"] == "nvidia"
    assert "runtimeClassName" not in pod_of(declared(mode="default_runtime"), "gpu-test-1")["spec"]
    assert spec["restartPolicy"] == "Never"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]


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


WAITS = PodSeen("p", "n1", "Pending", why="ContainerCreating")


def pending(*events: str, **more: Any) -> tuple[PodSeen, ...]:
    return (PodSeen("gpu-test-1", "n1", "Pending", events=events, **more),)


NO_HANDLER = 'FailedCreatePodSandBox: rpc error: failed to get sandbox runtime: no runtime for "nvidia" is configured'
BLIND = PodSeen(
    "nvidia-x", "n1", "Running", log="Incompatible strategy detected auto\nNo devices found. Waiting indefinitely."
)


@pytest.mark.parametrize(
    ("seen", "link", "part"),
    [
        (evidence(host=host(pci=1), allocatable=1), "GPU", "PCI shows 1 of 2"),
        (evidence(host=host(pci=0, driver=0, toolkit=False), allocatable=0, capacity=0), "GPU", "PCI shows 0 of 2"),
        (evidence(allocatable=1), "GPU", "1 of 2 GPUs as unhealthy"),
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
        (evidence(allocatable=0, capacity=2, host=host(handler=False), plugin=WAITS), "runtime", "no runtime named"),
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
        (evidence(plugin=BLIND, allocatable=0, capacity=0), "plugin", "sees no GPU"),
        (
            evidence(plugin=PodSeen("p", "n1", "Pending", why="CrashLoopBackOff"), allocatable=0, capacity=0),
            "plugin",
            "CrashLoopBackOff",
        ),
        (evidence(allocatable=8, capacity=8), "plugin", "nothing tells how it shares them"),
        (evidence(refusal="the same GPU was given to a and b: x"), "plugin", "a and b"),
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
    found = find_broken_link(seen)
    assert found.name == link
    assert part in found.why
    assert found.fix


def test_every_link_has_its_own_code() -> None:
    codes = [code for _, code, _, _ in rules(NVIDIA)]
    assert len(set(codes)) == len(codes)
    assert {name for name, *_ in rules(NVIDIA)} >= {
        "GPU",
        "driver",
        "toolkit",
        "runtime",
        "RuntimeClass",
        "plugin",
        "kubelet",
    }


def test_the_report_of_a_proof_is_plain_data() -> None:
    assert json.loads(json.dumps(Proof("ok", 1, 1, 1, {"gpu-test-1": "x"}).as_dict()))["devices"] == ["x"]
