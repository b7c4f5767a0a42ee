"""A replica of a service with GPUs is moved while another one answers and a free GPU of its kind waits for it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from shipway.gpu.chosen import VENDOR
from shipway.gpu.jobs import find_jobs, gangs, serves
from shipway.kube.client import Kube
from shipway.steps.upgrade.gpu_jobs import GpuJobsOver
from shipway.steps.upgrade.services import why_not_moved
from tests.retire.objects import Object, Objects, node, pod

NONE_FREE = "no other node has 1 free GPUs (A)"
NO_OTHER = "no other replica is Ready on another node"


def gpu_node(name: str, count: int = 1, product: str = "", **more: Any) -> Object:
    made = node(name, **more)
    made["metadata"]["labels"] = {VENDOR.product_label: product} if product else {}
    made["status"]["allocatable"] = {VENDOR.resource: str(count)}
    return made


def replica(name: str, on: str, *, of: str = "web", gpus: int = 1, ready: bool = True) -> Object:
    limits = {"resources": {"limits": {VENDOR.resource: str(gpus)}}}
    made = pod(name, on, owner="ReplicaSet", container=limits, ready=str(ready))
    made["metadata"]["ownerReferences"][0] |= {"name": of, "uid": of}
    return made


async def why(*objects: Object) -> str:
    return await why_not_moved(cast("Kube", Objects(*objects)), next(one for one in objects if one["kind"] == "Pod"))


async def test_it_is_moved_only_while_another_replica_is_ready_elsewhere() -> None:
    places = (gpu_node("w1", 2), gpu_node("w2"), gpu_node("w3"))
    mine, other = replica("a", "w1"), replica("b", "w2")
    assert await why(*places, mine, other) == ""
    assert await why(*places, mine) == NO_OTHER
    assert await why(*places, mine, replica("b", "w1")) == NO_OTHER, "the drain takes both"
    assert await why(*places, mine, replica("b", "w2", ready=False)) == NO_OTHER
    assert await why(*places, mine, replica("b", "w2", of="another")) == NO_OTHER
    ending = replica("b", "w2")
    ending["metadata"]["deletionTimestamp"] = "now"
    assert await why(*places, mine, ending) == NO_OTHER


@pytest.mark.parametrize(
    ("third", "more", "said"),
    [
        (gpu_node("w3", product="A"), (), ""),
        (gpu_node("w3", product="B"), (), NONE_FREE),
        (gpu_node("w3"), (), NONE_FREE),
        (gpu_node("w3", product="A", closed=True), (), NONE_FREE),
        (gpu_node("w3", product="A", ready=False), (), NONE_FREE),
        (gpu_node("w3", product="A", taints=[{"key": "team", "effect": "NoSchedule"}]), (), NONE_FREE),
        (gpu_node("w3", product="A", taints=[{"key": VENDOR.resource, "effect": "NoSchedule"}]), (), ""),
        (gpu_node("w3", product="A"), (replica("c", "w3", of="another"),), NONE_FREE),
        (gpu_node("w3", 2, product="A"), (replica("c", "w3", of="another"),), ""),
    ],
)
async def test_a_free_gpu_of_the_same_product_must_be_there(third: Object, more: tuple[Object, ...], said: str) -> None:
    found = await why(
        gpu_node("w1", product="A"), gpu_node("w2", product="A"), third, replica("a", "w1"), replica("b", "w2"), *more
    )
    assert found == said


async def test_a_part_of_a_gpu_is_not_taken_for_a_free_one() -> None:
    places = (gpu_node("w1"), gpu_node("w3"))
    assert "not known" in await why(*places, replica("a", "w1", gpus=0), replica("b", "w2", gpus=0))


async def test_nobody_waits_for_a_service_that_may_be_moved_and_its_hosts_are_no_gang() -> None:
    mine, other = replica("a", "w1"), replica("b", "w2")
    api = Objects(gpu_node("w1"), gpu_node("w2"), gpu_node("w3"), mine, other)
    jobs = await find_jobs(cast("Kube", api), "wait")
    assert [(job.serves, job.ends) for job in jobs] == [(True, False), (True, False)]
    assert (
        jobs[0].said
        == f"default/a of ReplicaSet default/web ({VENDOR.resource}: 1: moved while another replica is Ready)"
    )
    assert gangs(jobs) == []
    step = GpuJobsOver("w1", "wait", 60)
    assert await step.check(cast("Kube", api)) is None
    api.objects.remove(other)
    drift = await step.check(cast("Kube", api))
    assert drift is not None
    assert drift.have.endswith(NO_OTHER)
    assert await GpuJobsOver("w1", "evict", 60).check(cast("Kube", api)) is None, "who says evict has decided"


def test_parts_of_one_piece_of_work_are_no_replicas() -> None:
    kinds = ("ReplicaSet", "StatefulSet", "Job", "")
    assert [serves(pod("a", "w1", owner=kind)) for kind in kinds] == [True, False, False, False]
