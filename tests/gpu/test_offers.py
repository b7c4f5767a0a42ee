"""GPUs that are shared or divided are counted and proven by their own rules, and what tells nothing is called so."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.simulated.kube.hosts import Sharing as Shares
from lab.simulated.kube.hosts import SimpleHost
from shipway.converge import wait_until
from shipway.gpu.counts import GpusAllocatable, count_asked_gpus
from shipway.gpu.evidence import count_taken
from shipway.gpu.nvidia.answers import read_sharing
from shipway.gpu.offers import Offer, count_offered, read_offer, see_offers
from shipway.gpu.pods import NAMESPACE, Said
from shipway.gpu.proof import HostGpuFacts, Proof, prove
from shipway.gpu.result import same_gpus
from shipway.gpu.sharing import Sharing
from shipway.steps.upgrade.proof import prove_host
from tests.gpu.test_proof import declared, furnished
from tests.places.kube import Place, gpu_host, place

ALONE = HostGpuFacts(pci=2, driver=2, toolkit=True, handler=True, parts=0)
GPUS = [uuid for uuid, _ in gpu_host(2, 2).gpus]
PARTS = {gpu: [f"MIG-{at}{number}" for number in range(3)] for at, gpu in enumerate(GPUS)}
SLICED, RENAMED = Shares(replicas=4), Shares(replicas=4, renamed=True)
MPS, SINGLE = Shares(replicas=2, way="mps"), Shares(parts=PARTS, strategy="single")
MIXED = Shares(parts={GPUS[0]: PARTS[GPUS[0]]}, strategy="mixed")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipway.gpu.proof.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("shipway.gpu.proof.SETTLE_SECONDS", 1.0)


def two(shares: Shares) -> list[SimpleHost]:
    """Return a control plane, a node that shares its two GPUs, and one that does not."""
    return [gpu_host(1, 0), gpu_host(2, 2, sharing=shares), gpu_host(3, 2)]


async def proven(made: Place, parts: int = 0, **gpu: Any) -> Proof:
    """Furnish the place, wait until every place on GPUs is offered, and prove them."""
    await furnished(made, gpus=False)
    await wait_until(GpusAllocatable({"te2": 2, "te3": 2}), made.kube, seconds=30, every=0.05)
    facts = {"te2": HostGpuFacts(2, 2, toolkit=True, handler=True, parts=parts, **gpu), "te3": ALONE}
    return await prove(made.kube, made.cluster, {"te2": 2, "te3": 2}, facts)


@pytest.mark.parametrize(
    ("shares", "parts", "places", "told"),
    [
        (SLICED, 0, 8, "te2: its 2 GPUs are offered as 8 places by time slicing, 4 pods on each"),
        (RENAMED, 0, 8, "te2: its 2 GPUs are offered as 8 places by time slicing, 4 pods on each"),
        (
            MPS,
            0,
            4,
            "te2: its 2 GPUs are offered as 4 places by MPS, 2 pods on each (their shares of memory are not judged)",
        ),
        (SINGLE, 6, 6, "te2: its 2 GPUs are offered as 6 places by MIG"),
        (MIXED, 3, 4, "te2: its 2 GPUs are offered as 4 places by MIG"),
    ],
)
async def test_a_node_that_shares_its_gpus_is_proven_as_it_shares_them(
    shares: Shares, parts: int, places: int, told: str
) -> None:
    async with place(hosts=two(shares), cluster=declared()) as made:
        proof = await proven(made, parts)
        assert (proof.outcome, proof.error) == ("ok", None)
        assert (proof.expected, proof.allocatable, proof.verified) == (places + 2, places + 2, places + 2)
        assert proof.shared == {"te2": told}
        assert told in proof.notes
        devices = list(proof.devices.values())
        of_te2 = {uuid for uuid in devices if uuid not in {gpu for gpu, _ in gpu_host(3, 2).gpus}}
        assert {devices.count(uuid) for uuid in of_te2} == {shares.replicas}
        if shares.parts:
            assert {uuid for uuid in of_te2 if uuid.startswith("MIG-")} == {
                one for some in shares.parts.values() for one in some
            }
        assert await made.kube.get("v1", "Namespace", NAMESPACE) is None
        json.dumps(proof.as_dict())


async def test_a_share_that_is_lost_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = two(SLICED)
    async with place(hosts=hosts, cluster=declared()) as made:
        await furnished(made, gpus=False)
        await wait_until(GpusAllocatable({"te2": 2, "te3": 2}), made.kube, seconds=30, every=0.05)
        hosts[1].gpus[0] = (hosts[1].gpus[0][0], False)
        made.simulated.host_changed("te2")
        await wait_until(GpusAllocatable({"te2": 1}), made.kube, seconds=20, every=0.05)
        made.kube.forget()
        drift = await GpusAllocatable({"te2": 2}).check(made.kube)
        assert drift
        assert "te2 has 4 of 8 (time slicing)" in drift.have
        monkeypatch.setattr("shipway.gpu.proof.DECIDE_SECONDS", 2.0)
        proof = await prove(made.kube, made.cluster, {"te2": 2, "te3": 2}, {"te2": ALONE, "te3": ALONE})
        assert proof.outcome == "failed"
        assert proof.link
        assert proof.link.why == "te2: the plugin reports 4 of 8 GPUs as unhealthy"


async def test_parts_that_the_driver_does_not_list_are_named() -> None:
    async with place(hosts=two(MIXED), cluster=declared()) as made:
        proof = await proven(made, 2)
        assert (proof.outcome, proof.expected) == ("failed", 5)
        assert proof.error
        assert "te2: expected 2 GPUs (3 places by MIG), but allocatable 4" in proof.error.message


async def test_a_pod_that_holds_a_share_holds_a_gpu() -> None:
    async with place(hosts=two(RENAMED), cluster=declared(compute="off")) as made:
        await furnished(made, gpus=False)
        await wait_until(GpusAllocatable({"te2": 2, "te3": 2}), made.kube, seconds=30, every=0.05)
        limits = {"nvidia.com/gpu.shared": "1"}
        container = {"name": "c", "image": "registry.example/x:1", "resources": {"limits": limits}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "job", "namespace": "default"}}
        await made.kube.apply({**pod, "spec": {"containers": [container], "nodeName": "te2"}})
        assert await count_taken(made.kube, {"te2": 2}) == {"te2": 1}
        assert await count_taken(made.kube, {"te2": 2}, resource="nvidia.com/gpu") == {"te2": 0}
        proof = await prove(made.kube, made.cluster, {"te2": 2, "te3": 2}, {"te2": ALONE, "te3": ALONE})
        assert (proof.outcome, proof.verified, proof.expected) == ("ok", 9, 10)


async def test_a_host_of_a_wave_is_proven_as_it_shares_its_gpus() -> None:
    async with place(hosts=two(SINGLE), cluster=declared()) as made:
        await furnished(made, gpus=False)
        await wait_until(GpusAllocatable({"te2": 2}), made.kube, seconds=30, every=0.05)
        await prove_host(made.kube, made.cluster, "te2", 2)
        assert (await see_offers(made.kube, {"te2": 2}))["te2"].places == 6


def node(labels: dict[str, str] | None = None, **amounts: int) -> dict[str, Any]:
    listed = {
        f"nvidia.com/{name.replace('_', '-').replace('-dot-', '.')}": str(amount) for name, amount in amounts.items()
    }
    return {"metadata": {"labels": labels or {}}, "status": {"allocatable": listed, "capacity": listed}}


GFD = {"nvidia.com/gpu.sharing-strategy": "time-slicing", "nvidia.com/gpu.replicas": "4"}
LOGGED = (
    'I1 main.go:388]\nRunning with config:\n{"flags": {"migStrategy": "%s"}, "sharing": %s}\nI1 main.go:391] Retrieving'
)


@pytest.mark.parametrize(
    ("seen", "log", "way", "replicas", "wanted"),
    [
        (node(gpu=2), "", "exclusive", 1, 2),
        (node(gpu=8), "", "exclusive", 1, 2),  # nothing tells why: more than there should be
        (node(GFD, gpu=8), "", "time slicing", 4, 8),
        (node(GFD, gpu=8), LOGGED % ("none", '{"mps": {"resources": [{"name": "x", "replicas": 2}]}}'), "MPS", 2, 4),
        (
            node({"nvidia.com/gpu.sharing-strategy": "none", "nvidia.com/gpu.replicas": "1"}, gpu=2),
            "",
            "exclusive",
            1,
            2,
        ),
        (node({"nvidia.com/mig.strategy": "single"}, gpu=7), "", "MIG", 1, 7),
        (node({"nvidia.com/mig.strategy": "single"}, gpu=2), "", "exclusive", 1, 2),  # GPUs that are not divided
        (node(gpu=14), LOGGED % ("single", "{}"), "MIG", 1, 14),
        (node(mig_1g_dot_18gb=7, gpu=1), "", "MIG", 1, 8),
        (node(gpu=8), "Running with config:\n{ broken", "exclusive", 1, 2),
        (
            node(gpu=8),
            LOGGED % ("none", '{"timeSlicing": {"resources": [{"replicas": "many"}]}}'),
            "time slicing",
            1,
            2,
        ),
    ],
)
def test_how_a_node_shares_is_told_by_its_plugin_then_by_its_labels(
    seen: dict[str, Any], log: str, way: str, replicas: int, wanted: int
) -> None:
    offer = read_offer(seen, 2, log)
    assert (offer.way, offer.replicas, offer.wanted(2)) == (way, replicas, wanted)


def test_a_resource_of_a_name_that_only_the_site_knows_counts() -> None:
    log = LOGGED % ("none", '{"timeSlicing": {"resources": [{"rename": "nvidia.com/half", "replicas": 2}]}}')
    assert read_sharing({}, log) == Sharing("time slicing", 2, ("nvidia.com/half",))
    assert read_offer(node(half=4), 2, log).places == 4


def test_parts_are_as_many_as_the_driver_lists_beside_gpus_that_are_not_divided() -> None:
    has = {"nvidia.com/gpu": 1, "nvidia.com/mig-1g.10gb": 7}
    assert Offer("MIG", 1, has, has).wanted(2, 7) == 8
    assert Offer("MIG", 1, {"nvidia.com/gpu": 7}, {"nvidia.com/gpu": 7}).wanted(1, 6) == 6
    assert Offer("MIG", 2, {"nvidia.com/gpu": 14}, {"nvidia.com/gpu": 14}).gpus == 7


def test_what_a_plugin_of_another_class_had_offered_counts_for_nothing() -> None:
    """Seen on the container lab: a kubelet keeps such a resource in the capacity for minutes, and offers none of it."""
    part, gpu = "nvidia.com/mig-2g.35gb", "nvidia.com/gpu"
    into_parts = {"status": {"capacity": {gpu: "4", part: "6"}, "allocatable": {gpu: "0", part: "6"}}}
    seen = read_offer(into_parts, 2, parts=6)
    assert (seen.way, seen.wanted(2, 6), seen.wanted(2), seen.asks(2)) == ("MIG", 6, 6, {part: 6})
    single = LOGGED % ("single", "{}")
    otherwise = {"status": {"capacity": {gpu: "4", part: "6"}, "allocatable": {gpu: "4", part: "0"}}}
    seen = read_offer(otherwise, 2, single, 4)
    assert (seen.way, seen.wanted(2, 4), seen.asks(2)) == ("MIG", 4, {gpu: 4})
    whole = {"status": {"capacity": {gpu: "2", part: "6"}, "allocatable": {gpu: "2", part: "0"}}}
    seen = read_offer(whole, 2)
    assert (seen.way, seen.wanted(2, 0), seen.differs(Sharing())) == ("exclusive", 2, "")
    sick = {"status": {"capacity": {part: "6"}, "allocatable": {part: "0"}}}
    assert (read_offer(sick, 2).way, read_offer(sick, 2).wanted(2, 6)) == ("MIG", 6)


def test_a_device_is_given_to_no_more_pods_than_share_it() -> None:
    heard = {name: Said(("x",), node="n1") for name in "abc"}
    assert same_gpus(heard, {"n1": 3}) == []
    assert same_gpus(heard, {"n1": 2}) == ["the same GPU was given to a and b and c: x (2 at most share it)"]
    assert same_gpus(heard, {"n2": 3}) == ["the same GPU was given to a and b and c: x"]


def test_shares_and_parts_are_counted_and_other_resources_are_not() -> None:
    assert count_offered(node(gpu_dot_shared=4, mig_1g_dot_5gb=2, other=9)) == 6
    limits = {"nvidia.com/gpu.shared": "1", "nvidia.com/mig-1g.5gb": "2", "amd.com/gpu": "4"}
    assert count_asked_gpus({"spec": {"containers": [{"resources": {"limits": limits}}]}}) == 3
