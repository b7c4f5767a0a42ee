"""A node leaves its cluster in order, this very node, and nothing is left under its name."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shipway.converge import converge
from shipway.errors import DeadlineExceeded, Refused
from shipway.kube import drain as drains
from shipway.kube.client import Kube
from shipway.step import Check, Impact
from shipway.steps.kubernetes import retire
from shipway.steps.kubernetes.retire import (
    NodeClosed,
    NodeDeleted,
    NodeDrained,
    NothingOfNode,
    VolumesDetached,
    asks_for,
)
from tests.gpu.claims import device, slice_of
from tests.kubernetes.test_drain import running, workload
from tests.places.kube import Place, cluster_of, gpu_host, place
from tests.retire.objects import Objects, meta, node, pod

UNREADY = [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]  # no pod network is here, and a cordon holds


@pytest.fixture
async def small() -> AsyncIterator[Place]:
    hosts = [gpu_host(1, 0), gpu_host(2, 1), gpu_host(3, 1)]
    async with place(hosts=hosts, cluster=cluster_of(("te1", "te2", "te3"))) as made:
        yield made


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drains, "EVERY_SECONDS", 0.05)


async def closed(small: Place) -> bool:
    found = await small.kube.get("v1", "Node", "te2", fresh=True)
    return bool(found and found["spec"].get("unschedulable"))


async def test_a_node_is_closed_drained_deleted_and_a_second_run_changes_nothing(small: Place) -> None:
    await small.kube.apply(workload("Deployment", "web", tolerations=UNREADY))
    await running(small, "web")
    steps: list[Check[Kube]] = [NodeClosed("te2"), NodeDrained("te2", 20.0), VolumesDetached("te2"), NodeDeleted("te2")]
    steps.append(NothingOfNode("te2"))
    results = await converge(steps, small.kube, Impact.WORKLOADS)
    assert [one.outcome for one in results[:4]] == ["changed", "changed", "ok", "changed"], results
    assert "te2" not in {one["metadata"]["name"] for one in await small.kube.list_("v1", "Node")}
    small.kube.forget()
    assert {one.outcome for one in await converge(steps, small.kube, Impact.WORKLOADS)} == {"ok"}


async def test_a_drain_that_does_not_end_leaves_the_node_open_and_says_what_to_do(
    small: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await small.kube.apply(workload("Deployment", "web"))
    await running(small, "web")
    send = small.kube.send

    async def refusing(method: str, path: str, **more: Any) -> tuple[int, str]:
        if path.endswith("/eviction"):
            return 429, json.dumps({"kind": "Status", "code": 429, "message": "too many"})
        return await send(method, path, **more)

    monkeypatch.setattr(small.kube, "send", refusing)
    results = await converge([NodeClosed("te2"), NodeDrained("te2", 0.2)], small.kube, Impact.WORKLOADS)
    error = results[1].error
    assert isinstance(error, DeadlineExceeded)
    assert "remove again" in error.fix
    assert not await closed(small)


async def test_pods_that_hold_gpus_are_looked_for_again_at_the_act(small: Place) -> None:
    await small.kube.apply(workload("Deployment", "web", tolerations=UNREADY))
    await running(small, "web")
    await drains.cordon(small.kube, "te2", "test")
    step = NodeDrained("te2", 20.0)
    assert await step.check(small.kube) is not None
    with pytest.MonkeyPatch.context() as patch:

        async def holders(*_: object, **__: object) -> list[str]:
            return ["default/web"]

        patch.setattr(retire, "gpu_holders", holders)
        with pytest.raises(Refused) as raised:
            await step.apply(small.kube)
    assert raised.value.code == "SHW-703"
    assert not await closed(small)


@pytest.mark.parametrize("reopens", [True, False])
async def test_pods_that_are_waited_for_are_asked_for_again_at_the_act(small: Place, *, reopens: bool) -> None:
    waited = list[str]()

    async def kept(_: object) -> list[str]:
        return waited

    await small.kube.apply(workload("Deployment", "web", tolerations=UNREADY))
    await running(small, "web")
    await drains.cordon(small.kube, "te2", "test")
    step = NodeDrained("te2", 20.0, evict_gpu_pods=True, kept=kept, reopens=reopens)
    assert await step.check(small.kube) is not None
    waited.append("default/train")
    with pytest.raises(Refused, match="default/train") as raised:
        await step.apply(small.kube)
    assert raised.value.code == "SHW-795"
    assert await closed(small) is not reopens, "what is half upgraded is not opened"


async def test_pods_that_tolerate_the_cordon_and_come_again_are_left(small: Place) -> None:
    await small.kube.apply(workload("Deployment", "web", tolerations=[*UNREADY, {"operator": "Exists"}]))
    await running(small, "web")
    results = await converge([NodeClosed("te2"), NodeDrained("te2", 20.0)], small.kube, Impact.WORKLOADS)
    assert [result.outcome for result in results] == ["changed", "changed"], results[-1].error
    await running(small, "web")
    assert await NodeDrained("te2", 20.0).check(small.kube) is not None, "another drain evicts it once more"


async def test_a_pod_that_tolerates_the_cordon_and_comes_after_the_drain_is_left_however_late(small: Place) -> None:
    await drains.cordon(small.kube, "te2", "test")
    step = NodeDrained("te2", 20.0)
    await step.apply(small.kube)
    await small.kube.apply(workload("Deployment", "late", tolerations=[*UNREADY, {"operator": "Exists"}]))
    await running(small, "late")
    small.kube.forget()
    assert await step.check(small.kube) is None


@pytest.mark.parametrize(
    ("toleration", "tolerates"),
    [
        ({"operator": "Exists"}, True),
        ({"key": retire.CORDON, "operator": "Exists"}, True),
        ({"key": retire.CORDON, "operator": "Exists", "effect": "NoSchedule"}, True),
        ({"operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "team", "operator": "Exists"}, False),
    ],
)
def test_who_tolerates_a_cordon_is_told(toleration: dict[str, str], *, tolerates: bool) -> None:
    assert retire.tolerates_cordon({"metadata": {}, "spec": {"tolerations": [toleration]}}) is tolerates
    assert not retire.tolerates_cordon({"metadata": {}, "spec": {}})


async def test_only_the_node_that_was_seen_is_deleted() -> None:
    one = node("te2")
    on = Objects(one)
    await NodeDeleted("te2").apply(cast("Kube", on))
    assert on.deleted == ["Node/te2"]

    async def no() -> None:
        raise Refused("it is Ready again", code="SHW-709")

    kept = Objects(node("te2"))
    with pytest.raises(Refused):
        await NodeDeleted("te2", no).apply(cast("Kube", kept))
    assert kept.deleted == []


async def test_volumes_that_are_still_attached_are_waited_for_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    attached = {"kind": "VolumeAttachment", "metadata": meta("csi-1"), "spec": {"nodeName": "te2"}}
    on = Objects(attached, {**attached, "metadata": meta("csi-2"), "spec": {"nodeName": "te3"}})
    seen = await VolumesDetached("te2").check(cast("Kube", on))
    assert seen is not None
    assert "csi-1" in seen.have
    assert "csi-2" not in seen.have
    monkeypatch.setattr(retire, "DETACH_SECONDS", 0.01)
    with pytest.raises(DeadlineExceeded) as raised:
        await VolumesDetached("te2").apply(cast("Kube", on))
    assert raised.value.code == "SHW-713"
    assert "csi-1" in raised.value.message
    assert await VolumesDetached("te2").check(cast("Kube", Objects(missing=("VolumeAttachment",)))) is None


def request(name: str, user: str, common: str) -> dict[str, Any]:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    key = ec.generate_private_key(ec.SECP256R1())
    pem = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    text = base64.b64encode(pem.public_bytes(serialization.Encoding.PEM)).decode()
    spec = {"username": user, "request": text}
    return {"kind": "CertificateSigningRequest", "metadata": meta(name), "spec": spec}


async def test_what_has_the_nodes_name_goes_and_all_else_stays() -> None:
    affinity = {"kind": "BlockAffinity", "metadata": meta("te2-10-244-65-0-26"), "spec": {"node": "te2"}}
    gone = [
        {"kind": "Lease", "metadata": meta("te2", "kube-node-lease")},
        {"kind": "CSINode", "metadata": meta("te2")},
        request("first", "system:bootstrap:abcdef", "system:node:te2"),
        request("later", "system:node:te2", "anything"),
        affinity,
        slice_of("te2", [device("gpu-0")]),
    ]
    stay = [
        {"kind": "Lease", "metadata": meta("te3", "kube-node-lease")},
        {"kind": "Lease", "metadata": meta("te2", "default")},
        request("other", "system:bootstrap:abcdef", "system:node:te22"),
        slice_of("te3", [device("gpu-0")]),
        {**affinity, "metadata": meta("te3-10-244-66-0-26"), "spec": {"node": "te3"}},
    ]
    on = Objects(*gone, *stay)
    step = NothingOfNode("te2")
    assert await step.check(cast("Kube", on)) is not None
    await step.apply(cast("Kube", on))
    assert on.objects == stay
    assert await step.check(cast("Kube", on)) is None
    assert await step.check(cast("Kube", Objects(missing=("BlockAffinity", "CSINode", "ResourceSlice")))) is None


async def test_nothing_of_a_node_that_joined_again_meanwhile_is_deleted() -> None:
    lease = {"kind": "Lease", "metadata": meta("te2", "kube-node-lease")}
    on = Objects(lease, node("te2"))
    with pytest.raises(Refused) as raised:
        await NothingOfNode("te2").apply(cast("Kube", on))
    assert raised.value.code == "SHW-702"
    assert on.objects[0] == lease


@pytest.mark.parametrize("text", ["", "%%%", base64.b64encode(b"no request").decode()])
def test_a_request_that_cannot_be_read_is_nobodys(text: str) -> None:
    assert not asks_for({"spec": {"username": "system:bootstrap:abcdef", "request": text}}, "te2")


async def test_a_removal_that_was_broken_off_after_any_step_is_ended_by_the_next() -> None:
    lease = {"kind": "Lease", "metadata": meta("te2", "kube-node-lease")}
    others = [node("te1"), {"kind": "Lease", "metadata": meta("te1", "kube-node-lease")}]
    steps: Sequence[Check[Any]] = (NodeClosed("te2"), NodeDrained("te2"), NodeDeleted("te2"), NothingOfNode("te2"))
    for done in range(len(steps) + 1):
        on = Objects(node("te2"), lease, *others)
        await converge(steps[:done], on, Impact.WORKLOADS)
        results = await converge(steps, on, Impact.WORKLOADS)
        assert "failed" not in {one.outcome for one in results}, results
        assert on.objects == others
        assert {one.outcome for one in await converge(steps, on, Impact.WORKLOADS)} == {"ok"}


def test_a_pass_that_may_only_restart_services_takes_no_node_out() -> None:
    kinds = (NodeClosed, NodeDrained, VolumesDetached, NodeDeleted)
    assert {kind.impact for kind in kinds} == {Impact.WORKLOADS}
    assert NothingOfNode.impact is Impact.FILES


async def test_a_node_that_is_gone_is_closed_drained_and_deleted() -> None:
    on = cast("Kube", Objects(pod("web", "te2")))
    steps: Sequence[Check[Kube]] = (NodeClosed("te2"), NodeDrained("te2"), NodeDeleted("te2"))
    assert await asyncio.gather(*(step.check(on) for step in steps)) == [None, None, None]
