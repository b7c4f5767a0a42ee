"""A drain goes by UID and decides as kubectl does which pods leave, stay, or forbid it; on the SIMULATED API."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shipway.errors import DeadlineExceeded, Refused
from shipway.kube import drain as drains
from shipway.kube.client import Object
from shipway.kube.drain import cordon, drain, left_cordoned, may_drain, uncordon
from tests.kube_place import Place, cluster_of, gpu_host, place

EVERYTHING = [{"operator": "Exists"}]


@pytest.fixture(params=["v1.20.2", "v1.36.2"])
async def small(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    hosts = [gpu_host(1, 0), gpu_host(2, 1), gpu_host(3, 1)]
    async with place(hosts=hosts, cluster=cluster_of(("te1", "te2", "te3")), version=request.param) as made:
        yield made


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drains, "EVERY_SECONDS", 0.05)


def workload(kind: str, name: str, *, on: str = "te2", replicas: int = 1, **pod: Any) -> Object:
    """Return a workload whose pods go to one node and tolerate everything: no pod network is here, and no cordon."""
    labels = {"app": name}
    container = {"name": "c", "image": "registry.example/web:1"}
    spec = {"hostNetwork": True, "tolerations": EVERYTHING, "containers": [container], **pod}
    spec["nodeSelector"] = {"kubernetes.io/hostname": on}
    template = {"metadata": {"labels": labels}, "spec": spec}
    body: Object = {"selector": {"matchLabels": labels}, "template": template}
    if kind != "DaemonSet":
        body["replicas"] = replicas
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": body}


async def pods(small: Place, app: str) -> list[Object]:
    small.kube.forget()
    return await small.kube.list_("v1", "Pod", "default", labels=f"app={app}")


async def running(small: Place, app: str, count: int = 1) -> list[Object]:
    async with asyncio.timeout(20):
        while True:
            found = [pod for pod in await pods(small, app) if (pod.get("status") or {}).get("phase") == "Running"]
            if len(found) >= count:
                return found


async def test_a_pod_that_tolerates_the_cordon_is_evicted_once_and_comes_back(small: Place) -> None:
    await small.kube.apply(workload("Deployment", "web"))
    (before,) = await running(small, "web")
    await cordon(small.kube, "te2", "test")
    told: list[str] = []
    gone = await drain(small.kube, "te2", seconds=20, told=told.append)
    assert f"default/{before['metadata']['name']}" in gone
    (after,) = await running(small, "web")
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["spec"]["nodeName"] == "te2"
    assert not any("budget" in line for line in told)


async def test_the_successor_with_the_same_name_is_not_evicted(small: Place) -> None:
    """A StatefulSet's pod comes back under its name: what was listed before must not be evicted by that name."""
    await small.kube.apply(workload("Deployment", "web"))
    (pod,) = await running(small, "web")
    twin = {**pod, "metadata": {**pod["metadata"], "uid": "00000000-0000-0000-0000-000000000000"}}
    assert "UID in precondition" in await drains._evict(small.kube, twin)
    assert not (await pods(small, "web"))[0]["metadata"].get("deletionTimestamp")


@pytest.mark.parametrize(
    ("code", "status", "says"),
    [
        (
            429,
            {
                "message": "Cannot evict pod as it would violate the pod's disruption budget.",
                "details": {
                    "causes": [
                        {
                            "reason": "DisruptionBudget",
                            "message": "The disruption budget kept needs 1 healthy pods and has 1 currently",
                        }
                    ]
                },
            },
            "The disruption budget kept needs 1",
        ),
        (429, {"message": "too many requests, please try again later"}, "the API asks to wait"),
        (429, {}, "the API asks to wait"),
    ],
)
async def test_a_budget_is_blamed_only_where_the_api_names_one(
    small: Place, monkeypatch: pytest.MonkeyPatch, code: int, status: dict[str, Any], says: str
) -> None:
    await small.kube.apply(workload("Deployment", "web"))
    await running(small, "web")
    send = small.kube.send

    async def refusing(method: str, path: str, **more: Any) -> tuple[int, str]:
        if path.endswith("/eviction"):
            return code, json.dumps({"kind": "Status", "code": code, "reason": "TooManyRequests", **status})
        return await send(method, path, **more)

    monkeypatch.setattr(small.kube, "send", refusing)
    with pytest.raises(DeadlineExceeded) as held:
        await drain(small.kube, "te2", seconds=0.2)
    assert held.value.code == "SHW-336"
    assert "default/web-" in held.value.message
    assert says in held.value.message
    assert ("budget" in held.value.message) == ("budget" in says)


async def test_the_deadline_names_a_pod_that_does_not_end_and_why(small: Place) -> None:
    await small.kube.apply(workload("Deployment", "web"))
    (pod,) = await running(small, "web")
    small.hosts["te2"].kubelet_running = False
    small.simulated.host_changed("te2")
    with pytest.raises(DeadlineExceeded, match=rf"default/{pod['metadata']['name']}: is ending until 20"):
        await drain(small.kube, "te2", seconds=0.3)


async def test_pods_of_daemonsets_and_mirror_pods_stay_and_finished_ones_leave(small: Place) -> None:
    await small.kube.apply(workload("DaemonSet", "agent"))
    await running(small, "agent")
    assert [pod for pod in await may_drain(small.kube, "te2") if pod["metadata"]["name"].startswith("agent")] == []
    assert await may_drain(small.kube, "te1") == [], "the control plane's static pods stay"
    alone = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "done", "namespace": "default", "labels": {"app": "done"}},
        "spec": {
            "nodeName": "te3",
            "hostNetwork": True,
            "restartPolicy": "Never",
            "containers": [{"name": "c", "image": "registry.example/web:1"}],
        },
    }
    await small.kube.apply(alone)
    with pytest.raises(Refused, match=r"default/done \(nothing would start it again\)") as refused:
        await may_drain(small.kube, "te3")
    assert refused.value.code == "SHW-337"
    async with asyncio.timeout(20):
        while True:  # the node's kubelet may say "Running" once more after us
            (pod,) = await pods(small, "done")
            small.simulated.store.replace("pods", {**pod, "status": {"phase": "Succeeded"}})
            with contextlib.suppress(Refused):
                assert [one["metadata"]["name"] for one in await may_drain(small.kube, "te3")] == ["done"]
                return
            await asyncio.sleep(0.1)


async def test_a_pod_whose_daemonset_is_gone_forbids_the_drain(small: Place) -> None:
    await small.kube.apply(workload("DaemonSet", "agent"))
    (pod,) = await running(small, "agent")
    owner = [{**one, "name": "gone"} for one in pod["metadata"]["ownerReferences"]]
    small.simulated.store.replace("pods", {**pod, "metadata": {**pod["metadata"], "ownerReferences": owner}})
    with pytest.raises(Refused, match="its DaemonSet gone is gone"):
        await may_drain(small.kube, "te2")


async def test_an_emptydir_is_not_lost_unasked(small: Place) -> None:
    volumes = [{"name": "scratch", "emptyDir": {}}]
    await small.kube.apply(workload("Deployment", "web", volumes=volumes))
    await running(small, "web")
    with pytest.raises(Refused, match=r"its emptyDir scratch would be lost"):
        await drain(small.kube, "te2", seconds=5)
    assert len(await may_drain(small.kube, "te2", local_data=("default",))) == 1
    assert len(await may_drain(small.kube, "te2", local_data=None)) == 1
    assert not (await pods(small, "web"))[0]["metadata"].get("deletionTimestamp")


async def test_what_a_person_closed_stays_closed_after_a_repair(small: Place) -> None:
    await small.kube.patch("v1", "Node", "te2", {"spec": {"unschedulable": True}})
    assert not await cordon(small.kube, "te2", "repair")
    await uncordon(small.kube, "te2")
    node = await small.kube.get("v1", "Node", "te2", fresh=True)
    assert node is not None
    assert node["spec"]["unschedulable"] is True
    assert await left_cordoned(small.kube) == {}


async def test_our_own_cordon_is_taken_up_again(small: Place) -> None:
    assert await cordon(small.kube, "te2", "repair")
    assert await cordon(small.kube, "te2", "the next pass")
    await uncordon(small.kube, "te2")
    node = await small.kube.get("v1", "Node", "te2", fresh=True)
    assert node is not None
    assert not node["spec"].get("unschedulable")


async def test_a_drain_of_no_node_is_refused(small: Place) -> None:
    with pytest.raises(Refused, match="there is no node nowhere"):
        await cordon(small.kube, "nowhere", "test")
