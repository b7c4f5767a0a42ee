"""What only looks like working GPUs is not taken for it: shared GPUs, samples that fail, one GPU too many."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from lab.simulated.kube.controllers.container_programs import Given
from lab.simulated.kube.controllers.devices import Devices
from lab.simulated.kube.pod_programs import PROGRAMS
from shipway.gpu.pods import EXTRA, NAMESPACE, ExtraWaits
from shipway.gpu.proof import Proof, prove
from tests.gpu.test_proof import EXPECTED, declared, facts, furnished
from tests.places.kube import gpu_host, place


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipway.gpu.proof.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("shipway.gpu.proof.SETTLE_SECONDS", 1.0)


async def proof_of_two_by_two(**gpu: Any) -> tuple[Proof, list[str]]:
    """Return the proof of two nodes with two GPUs each, and the pods that it left."""
    hosts = [gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)]
    async with place(hosts=hosts, cluster=declared(**gpu)) as made:
        await furnished(made)
        proof = await prove(made.kube, made.cluster, EXPECTED, facts())
        made.kube.forget()
        return proof, [pod["metadata"]["name"] for pod in await made.kube.list_("v1", "Pod", NAMESPACE)]


async def test_two_pods_that_run_at_once_on_one_gpu_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is with time-slicing: every pod runs, and the GPUs are fewer than the pods."""
    given = Devices.given

    def shared(self: Devices, pod: Any, container: str) -> Given:
        on_this_node = self._held.get(pod["spec"]["nodeName"], {})
        own = given(self, pod, container)
        return (
            replace(own, gpus=[gpu for *_, gpu in on_this_node.values()][:1])
            if pod["spec"]["nodeName"] == "te2" and own.gpus
            else own
        )

    monkeypatch.setattr(Devices, "given", shared)
    proof, left = await proof_of_two_by_two(compute="off")
    assert (proof.outcome, proof.verified) == ("failed", 2)
    assert proof.error
    assert "the same GPU was given to gpu-test-" in proof.error.message
    assert proof.link
    assert (proof.link.name, proof.link.code) == ("plugin", "SHW-606")
    assert len(left) == 5  # the four and the further one are the evidence


async def test_a_gpu_that_does_not_compute_is_not_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "/cuda-samples/vectorAdd"
    sample = PROGRAMS[name]

    def fails_once(machine: Any, words: list[str]) -> Any:
        if machine.hostname == "gpu-test-1":
            return 1, "Failed to allocate device vector A (error code unknown error)!\n", 0.5
        return sample(machine, words)

    monkeypatch.setitem(PROGRAMS, name, fails_once)
    proof, left = await proof_of_two_by_two()
    assert (proof.outcome, proof.verified, proof.compute) == ("failed", 3, "failed")
    assert "gpu-test-1" not in proof.devices
    assert proof.error
    assert "the CUDA sample failed in gpu-test-1" in proof.error.message
    assert proof.link
    assert (proof.link.name, proof.link.code) == ("compute", "SHW-612")
    assert left


async def test_a_further_pod_that_finds_a_gpu_fails_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """One GPU was taken for held by others: then one pod more than was counted finds a place."""

    async def one_is_held(*_: Any, **__: Any) -> Mapping[str, int]:
        return {"te2": 1}

    monkeypatch.setattr("shipway.gpu.proof.count_taken", one_is_held)
    proof, left = await proof_of_two_by_two(compute="off")
    assert proof.outcome == "failed"
    assert proof.error
    # Which of the two nodes has the GPU that is left is the scheduler's choice.
    assert re.search(
        r"the further pod was given a GPU on te[23]: there are more GPUs than counted", proof.error.message
    )
    assert EXTRA in left


async def test_a_node_without_the_handler_does_not_hide_the_gpus_of_another() -> None:
    """Its pods are hopeless at once, while those of the other still pull their image."""
    hosts = [gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)]
    async with place(hosts=hosts, cluster=declared(compute="off"), factor=0.08) as made:
        await furnished(made)
        hosts[2].runtime_handlers.discard("nvidia")
        made.simulated.host_changed("te3")
        proof = await prove(made.kube, made.cluster, EXPECTED, facts())
    assert proof.link
    assert (proof.outcome, proof.verified, proof.link.name) == ("failed", 2, "runtime")


@pytest.mark.parametrize(
    ("message", "waits"),
    [
        ("0/3 nodes are available: 1 node(s) had taint, 2 Insufficient nvidia.com/gpu.", True),
        ("0/3 nodes are available: 3 Insufficient cpu.", False),
        ("", False),
    ],
)
async def test_the_further_pod_must_wait_for_a_gpu_and_for_nothing_else(message: str, *, waits: bool) -> None:
    class Api:
        async def get(self, *_: str) -> Any:
            unplaced = {"type": "PodScheduled", "status": "False", "message": message}
            return {"spec": {}, "status": {"conditions": [unplaced]}}

    api: Any = Api()
    drift = await ExtraWaits().check(api)
    assert (drift is None) == waits
