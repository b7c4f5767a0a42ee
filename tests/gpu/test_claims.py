"""A pod that holds a GPU by a claim counts wherever it is asked who holds GPUs, whoever installed the driver."""

from __future__ import annotations

from typing import Any, cast

import pytest

from shipway.errors import Refused
from shipway.gpu.claims import Device, see_claims, see_devices
from shipway.gpu.counts import count_asked_gpus
from shipway.gpu.evidence import count_taken
from shipway.gpu.holders import gpu_holders
from shipway.gpu.jobs import find_jobs
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.gpu.offers import see_claimed
from shipway.gpu.sharing import CLASS_LABEL
from shipway.kube.client import Kube
from shipway.kube.errors import kind_missing
from shipway.steps.gpu.claims import PluginRetired
from shipway.steps.kubernetes.may_go import NoGpuPods
from shipway.steps.upgrade.services import why_not_moved
from tests.gpu.claims import claim, claiming, device, served, slice_of
from tests.retire.objects import Object, Objects, node, pod
from tests.upgrade.test_services import gpu_node, replica

GPU = {"resources": {"limits": {"nvidia.com/gpu": "2"}}}


def api(*objects: Object, **more: Any) -> Kube:
    return cast("Kube", Objects(*objects, **more))


async def held(*objects: Object, **more: Any) -> tuple[list[str], int]:
    """Return who holds GPUs of te2, and how many are taken there."""
    kube = api(node("te2"), *objects, **more)
    return await gpu_holders(kube, "te2"), (await count_taken(kube, {"te2": 4})).get("te2", 0)


@pytest.mark.parametrize("template", [False, True], ids=["by name", "from a template"])
async def test_a_claim_of_gpus_is_held_by_its_pod(*, template: bool) -> None:
    train = claiming("train", "te2", "mine", template=template, owner="")
    holders, taken = await held(train, claim("mine", "gpu-0", "gpu-1"), claim("other", "gpu-3"))
    assert holders == ["default/train (claim gpu: gpu-0, gpu-1, of nobody: nothing would start it again)"]
    assert taken == 2


async def test_claims_and_resources_add_up_and_a_claim_that_pods_share_counts_once() -> None:
    pods = [claiming(name, "te2", "ours") for name in ("a", "b")]
    holders, taken = await held(*pods, claim("ours", "gpu-0"), pod("c", "te2", container=GPU))
    assert [one.split(" ")[0] for one in holders] == ["default/a", "default/b", "default/c"]
    assert taken == 3


@pytest.mark.parametrize("resource", ["nvidia.com/gpu", "deviceclass.resource.kubernetes.io/gpu.nvidia.com"])
@pytest.mark.parametrize("where", ["containers", "initContainers"])
async def test_a_resource_that_a_claim_serves_is_held_once_by_whatever_name_it_has(resource: str, where: str) -> None:
    train, mine = served("train", "te2", "made", resource, where, owner="Job"), claim("made", "gpu-0")
    holders, taken = await held(train, mine)
    assert [one.split(", of Job")[0] for one in holders] == [f"default/train (claim {resource}: gpu-0"]
    assert taken == 1
    kube = api(node("te2"), train, mine)
    assert await count_taken(kube, {"te2": 4}, resource="gpu.nvidia.com") == {"te2": 1}
    assert await count_taken(kube, {"te2": 4}, resource="nvidia.com/gpu") == {"te2": 0}
    (job,) = await find_jobs(kube, "wait")
    assert job.holds == f"claim {resource}: gpu-0"
    network = served("web", "te2", "made", "example.com/nic")
    assert await held(network, claim("made", "nic-0", driver="dra.net")) == ([], 0)


async def test_a_claim_counts_whatever_name_a_pod_has_for_it() -> None:
    for name in ("resources", "", "nvidia.com/gpu"):
        train = claiming("train", "te2", "mine")
        train["spec"]["resourceClaims"][0]["name"] = name
        assert (await held(train, claim("mine", "gpu-0")))[1] == 1, name


async def test_a_claim_that_was_listed_before_its_pod_was_bound_is_read_anew() -> None:
    class Older(Objects):
        asked = 0

        async def list_(self, api_version: str, kind: str, *words: Any, **more: Any) -> list[Object]:
            found = await super().list_(api_version, kind, *words, **more)
            return [{**claim(one["metadata"]["name"])} for one in found[:1]] if kind == "ResourceClaim" else found

        async def get(self, *words: str, fresh: bool = False) -> Any:
            assert fresh
            Older.asked += 1
            return next(one for one in self.objects if (one["kind"], one["metadata"]["name"]) == words[1:3])

    pods = [claiming(name, "te2", name) for name in ("a", "b")]
    waiting = [claiming("c", "", "c"), claiming("beside", "", "a")]
    kube = cast("Kube", Older(*pods, *waiting, claim("a", "gpu-0"), claim("b", "nic-0", driver="dra.net"), claim("c")))
    assert (await see_claims(kube, [*pods, *waiting])).of(pods[0]) == {"gpu": ("te2/gpu-0",)}
    assert await count_taken(kube, {"te2": 4}) == {"te2": 1}, "the other one has a network device"
    assert Older.asked == 4, "of each pod that is bound, in both looks"


def test_what_a_container_holds_that_starts_first_is_the_pods() -> None:
    def one(count: str, **more: Any) -> Object:
        return {"resources": {"limits": {"nvidia.com/gpu": count}}, **more}

    def asked(first: list[Object], then: list[Object]) -> int:
        return count_asked_gpus({"spec": {"initContainers": first, "containers": then}})

    beside = {"restartPolicy": "Always"}
    assert asked([one("2")], [one("1")]) == 2
    assert asked([one("1", **beside)], [one("1")]) == 2
    assert asked([one("1", **beside), one("3")], [one("1")]) == 4
    assert asked([one("1", **beside)], [{}]) == 1


async def test_a_node_that_went_over_offers_its_slices_whatever_it_still_tells_of_the_plugin() -> None:
    def told(name: str, gpu_class: str, amount: str) -> Object:
        labels = {CLASS_LABEL: gpu_class} if gpu_class else {}
        return {"metadata": {"name": name, "labels": labels}, "status": {"allocatable": {"nvidia.com/gpu": amount}}}

    nodes = {name: told(name, "dra", "2") for name in ("te2", "te3")} | {"te4": told("te4", "", "2")}
    kube = api(slice_of("te2", [device("gpu-0")]), slice_of("te4", [device("gpu-0")]))
    assert await see_claimed(kube, nodes) == {"te2": {"te2/gpu-0": Device("gpu-0", "GPU-gpu-0")}}


async def test_a_plugin_that_does_not_answer_now_is_needed_all_the_same() -> None:
    plugin = {
        "kind": "DaemonSet",
        "metadata": {"name": NVIDIA.plugin.daemon_set, "namespace": NVIDIA.plugin.namespace},
        "spec": {"template": {"spec": {"affinity": f"{CLASS_LABEL} DoesNotExist"}}},
    }
    over, other = node("te2"), node("foreign")
    over["metadata"]["labels"] |= {CLASS_LABEL: "dra", "nvidia.com/gpu.present": "true"}
    other["status"] |= {"capacity": {"nvidia.com/gpu": "2"}, "allocatable": {"nvidia.com/gpu": "0"}}
    assert await PluginRetired().check(api(plugin, over, other)) is None
    assert await PluginRetired().check(api(plugin, over)) is not None


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (claim("mine", "nic-0", driver="dra.net"), "another driver's devices are no GPUs"),
        (claim("mine"), "nothing is allocated yet"),
        (claim("mine", "gpu-0", adminAccess=True), "an administrator takes it from nobody"),
    ],
    ids=["a network device", "not allocated", "an administrator's look"],
)
async def test_a_claim_that_takes_no_gpu_is_nobodys_gpu(other: Object, why: str) -> None:
    assert await held(claiming("web", "te2", "mine"), other) == ([], 0), why


async def test_a_pod_that_has_ended_or_is_the_proofs_holds_none() -> None:
    ended = claiming("ended", "te2", "mine")
    ended["status"]["phase"] = "Failed"
    proof = claiming("gpu-test-1", "te2", "test", namespace="shipway-verify")
    test = claim("test", "gpu-1", namespace="shipway-verify")
    assert await held(ended, proof, claim("mine", "gpu-0"), test) == ([], 0)


async def test_claims_that_nobody_can_tell_of_count_as_one_gpu_each() -> None:
    pods = [claiming(name, "te2", name) for name in ("a", "b")]
    holders, taken = await held(*pods, missing=("ResourceClaim",))
    assert holders[0].startswith("default/a (claim gpu: a (not found), of ReplicaSet")
    assert taken == 2
    waiting = claiming("c", "te2", "", template=True)
    assert await held(waiting) == ([], 0), "a claim that is not made yet is nobody's"


async def test_an_administrator_beside_a_holder_takes_nothing_from_it() -> None:
    both = claim("mine", "gpu-0")
    both["status"]["allocation"]["devices"]["results"].append(
        {"driver": "gpu.nvidia.com", "pool": "te2", "device": "gpu-1", "adminAccess": True}
    )
    assert (await held(claiming("a", "te2", "mine"), both))[1] == 1


async def test_nothing_is_asked_of_claims_where_no_pod_has_one() -> None:
    class Silent(Objects):
        async def list_(self, api_version: str, kind: str, *words: Any, **more: Any) -> list[Object]:
            assert kind == "Pod"
            return await super().list_(api_version, kind, *words, **more)

    assert (await see_claims(cast("Kube", Silent()), [pod("a", "te2")])).devices == {}
    assert await count_taken(cast("Kube", Silent(pod("a", "te2", container=GPU))), {"te2": 2}) == {"te2": 2}


async def test_an_api_before_1_34_is_asked_in_the_words_that_it_knows() -> None:
    class Beta(Objects):
        async def list_(self, api_version: str, kind: str, *words: Any, **more: Any) -> list[Object]:
            if api_version == "resource.k8s.io/v1":
                raise kind_missing(api_version, kind)
            return await super().list_(api_version, kind, *words, **more)

    train, mine = claiming("train", "te2", "mine"), claim("mine", "gpu-0")
    kube = cast("Kube", Beta(train, mine, slice_of("te2", [device("gpu-0")])))
    assert await count_taken(kube, {"te2": 2}) == {"te2": 1}
    assert await see_devices(kube) == {}, "what is offered is read as of 1.34, or not at all"


async def test_a_claim_forbids_to_take_a_host_away_and_is_a_gpu_job() -> None:
    train, mine = claiming("train", "te2", "mine", owner="Job"), claim("mine", "gpu-0")
    with pytest.raises(Refused) as refused:
        await NoGpuPods("te2").check(api(node("te2"), train, mine))
    assert refused.value.code == "SHW-703"
    assert "default/train (claim gpu: gpu-0, of Job train-owner" in refused.value.message
    (job,) = await find_jobs(api(node("te2"), train, mine), "wait")
    assert (job.pod, job.node, job.holds) == ("default/train", "te2", "claim gpu: gpu-0")
    network = claim("mine", "nic-0", driver="dra.net")
    assert await find_jobs(api(node("te2"), train, network), "wait") == []


def two_replicas() -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Return two replicas of one service, on w1 and w2, and the claim that each has."""
    mine, other = (
        claiming(name, on, name, owner="ReplicaSet") | {"status": replica(name, on)["status"]}
        for name, on in (("a", "w1"), ("b", "w2"))
    )
    for one in (mine, other):
        one["metadata"]["ownerReferences"] = replica("a", "w1")["metadata"]["ownerReferences"]
    return mine, other, [claim("a", "gpu-0", pool="w1"), claim("b", "gpu-0", pool="w2")]


async def test_a_replica_with_a_claim_is_moved_where_a_gpu_that_can_be_claimed_is_free() -> None:
    mine, other, claims = two_replicas()
    nodes = [gpu_node("w1", 0), gpu_node("w2", 0), gpu_node("w3", 1)]
    assert await why_not_moved(api(*nodes, mine, other, *claims), [mine]) == ["no other node has 1 free GPUs"]
    offered = slice_of("w3", [device("gpu-0")])
    assert await why_not_moved(api(*nodes, mine, other, *claims, offered), [mine]) == [""]
    taken = [claiming("c", "w3", "c"), claim("c", "gpu-0", pool="w3")]
    assert await why_not_moved(api(*nodes, mine, other, *claims, offered, *taken), [mine]) != [""]


async def test_a_replica_is_not_moved_to_a_gpu_that_a_taint_keeps_from_pods() -> None:
    mine, other, claims = two_replicas()
    nodes = [gpu_node("w1", 0), gpu_node("w2", 0), gpu_node("w3", 0)]
    kept = slice_of("w3", [device("gpu-0", taints=[{"key": "gpu.nvidia.com/xid", "effect": "NoExecute"}])])
    assert await why_not_moved(api(*nodes, mine, other, *claims, kept), [mine]) == ["no other node has 1 free GPUs"]


async def test_what_a_driver_offers_is_its_newest_word_on_whole_gpus() -> None:
    kube = api(
        slice_of("te2", [device("gpu-0"), device("gpu-7")], generation=1),
        slice_of("te2", [device("gpu-0"), device("gpu-0-mig", kind="mig")], generation=2, slices=2),
        slice_of(
            "te2",
            [device("gpu-1", taints=[{"key": "gpu.nvidia.com/xid", "effect": "NoSchedule"}])],
            generation=2,
            slices=2,
        ),
        slice_of("te4", [device("gpu-0")], slices=2),
        slice_of("te3", [device("gpu-0", taints=[{"key": "told", "effect": "None"}])]),
        {**slice_of("", [device("gpu-9")]), "spec": {**slice_of("x", [device("gpu-9")])["spec"], "nodeName": None}},
    )
    assert await see_devices(kube) == {
        "te2": {
            "te2/gpu-0": Device("gpu-0", "GPU-gpu-0"),
            "te2/gpu-1": Device("gpu-1", "GPU-gpu-1", "gpu.nvidia.com/xid"),
        },
        "te3": {"te3/gpu-0": Device("gpu-0", "GPU-gpu-0")},
    }
