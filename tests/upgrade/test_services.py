"""A replica of a service with GPUs is moved while another one answers and a free GPU of its kind waits for it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from shipway.gpu.chosen import VENDOR
from shipway.gpu.jobs import GROUPS, find_jobs, gangs, groups_of, serves
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
    (said,) = await why_not_moved(cast("Kube", Objects(*objects)), [one for one in objects if one["kind"] == "Pod"][:1])
    return said


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


async def off_w1(*objects: Object, whole: tuple[str, ...] = ()) -> list[str]:
    """Return what is said of each pod on w1."""
    pods = [one for one in objects if one["kind"] == "Pod" and one["spec"].get("nodeName") == "w1"]
    return await why_not_moved(cast("Kube", Objects(*objects)), pods, whole=whole)


async def test_a_replica_on_a_closed_node_answers_only_until_it_is_moved() -> None:
    closed = [gpu_node(name, closed=True) for name in ("w1", "w2")]
    objects = (*closed, gpu_node("w3", 2), replica("a", "w1"), replica("b", "w2"))
    assert await off_w1(*objects) == [NO_OTHER]
    assert await off_w1(*objects, whole=("w2",)) == [""]


async def test_one_free_gpu_is_counted_for_one_of_the_replicas_that_are_moved_together() -> None:
    mine = replica("a", "w1"), replica("b", "w1", of="other"), replica("c", "w1", of="third")
    others = gpu_node("w2", 3), replica("a2", "w2"), replica("b2", "w2", of="other"), replica("c2", "w2", of="third")
    for free in range(4):
        said = await off_w1(gpu_node("w1", 3), *others, *mine, gpu_node("w3", free))
        assert (said.count(""), len(said)) == (free, 3)
    split = await off_w1(gpu_node("w1", 3), *others, *mine, gpu_node("w3", 1), gpu_node("w4", 2))
    assert split == ["", "", ""]


async def test_what_asks_for_many_gpus_finds_its_place_before_what_asks_for_one() -> None:
    mine = replica("a", "w1"), replica("b", "w1", of="other", gpus=2)
    others = gpu_node("w2", 3), replica("a2", "w2"), replica("b2", "w2", of="other", gpus=2)
    assert await off_w1(gpu_node("w1", 3), *others, *mine, gpu_node("w3", 2), gpu_node("w4", 1)) == ["", ""]


def waiting(*, judged: bool = False, gates: bool = False, gpus: int = 1) -> Object:
    """Return a pod that is on no node yet; `judged`: the scheduler found no place for it."""
    made = replica("d", "", of="moved", gpus=gpus)
    made["spec"] |= {"nodeName": "", "schedulingGates": [{"name": "queue"}] if gates else []}
    conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}] if judged else []
    made["status"] = {"phase": "Pending", "conditions": conditions}
    return made


@pytest.mark.parametrize(
    ("other", "counts"),
    [
        (waiting(), True),
        (waiting(gpus=0), False),
        (waiting(gpus=2), False),
        (waiting(judged=True), False),
        (waiting(gates=True), False),
    ],
)
async def test_a_pod_that_the_scheduler_is_about_to_place_has_its_gpu_already(other: Object, *, counts: bool) -> None:
    objects = gpu_node("w1"), gpu_node("w2"), gpu_node("w3"), replica("a", "w1"), replica("b", "w2"), other
    assert await off_w1(*objects) == ["no other node has 1 free GPUs" if counts else ""]


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


@pytest.mark.parametrize("place", ["labels", "annotations"])
@pytest.mark.parametrize(
    "key", ["scheduling.k8s.io/group-name", "scheduling.x-k8s.io/pod-group", "kueue.x-k8s.io/pod-group-name"]
)
async def test_pods_of_one_pod_group_are_one_gang_whoever_owns_them(key: str, place: str) -> None:
    limits = {"resources": {"limits": {VENDOR.resource: "1"}}}
    makers = ("w1", "Job", "llm"), ("w2", "", "llm"), ("w3", "Job", "other"), ("w4", "ReplicaSet", "llm")
    made = [pod(name, name, owner=owner, container=limits) for name, owner, _ in makers]
    for one, (_, _, group) in zip(made, makers, strict=True):
        one["metadata"][place] = {key: group}
    elsewhere = pod("w5", "w5", owner="", container=limits, namespace="another")
    elsewhere["metadata"][place] = {key: "llm"}
    jobs = await find_jobs(cast("Kube", Objects(*made, elsewhere)), "wait")
    assert gangs(jobs) == [frozenset({"w1", "w2"})]
    assert jobs[1].said == f"default/w2 of PodGroup default/llm ({VENDOR.resource}: 1: wait)"


def test_parts_of_one_piece_of_work_are_no_replicas() -> None:
    kinds = ("ReplicaSet", "StatefulSet", "Job", "")
    assert [serves(pod("a", "w1", owner=kind)) for kind in kinds] == [True, False, False, False]


@pytest.mark.parametrize("place", ["annotations", "labels"])
def test_a_pod_says_its_group_by_an_annotation_or_a_label(place: str) -> None:
    assert groups_of({"metadata": {"namespace": "a", place: {GROUPS[0]: "llm"}}}) == ("PodGroup a/llm",)
