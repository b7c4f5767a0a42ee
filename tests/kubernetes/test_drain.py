"""A drain goes by UID and decides as kubectl does which pods leave, stay, or forbid it; on the SIMULATED API."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import pytest

from shipway.cluster_file import parse_cluster
from shipway.errors import ApiRefused, DeadlineExceeded, Refused
from shipway.gpu.pods import pod_with_gpu, pod_without
from shipway.kube import drain as drains
from shipway.kube.calls import Calls
from shipway.kube.client import Kube, Object
from shipway.kube.drain import MIRROR, SHOWN, cordon, drain, find_left_cordoned, may_drain, movable, uncordon
from shipway.steps.kubernetes.nodes import NoNoteLeft
from shipway.steps.upgrade.node import NodeOpenedAgain
from tests.places.kube import Place, cluster_of, gpu_host, place

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
    heard: list[str] = []
    gone = await drain(small.kube, "te2", seconds=20, on_wait=heard.append)
    assert f"default/{before['metadata']['name']}" in gone
    (after,) = await running(small, "web")
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["spec"]["nodeName"] == "te2"
    assert not any("budget" in line for line in heard)


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
    assert await find_left_cordoned(small.kube) == {}


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


async def test_a_closed_node_says_by_whom_and_an_opened_one_nothing(small: Place) -> None:
    assert await cordon(small.kube, "te2", "repair")
    node = await small.kube.get("v1", "Node", "te2", fresh=True)
    assert node is not None
    assert node["spec"]["unschedulable"] is True
    assert json.loads(node["metadata"]["annotations"][drains.CORDONED])["why"] == "repair"
    await uncordon(small.kube, "te2")
    node = await small.kube.get("v1", "Node", "te2", fresh=True)
    assert node is not None
    assert drains.CORDONED not in node["metadata"].get("annotations", {})


async def by_hand(small: Place, *, closed: bool) -> None:
    """Let a person do as `kubectl cordon` and `kubectl uncordon` do."""
    body = {"spec": {"unschedulable": True if closed else None}}
    path = "/api/v1/nodes/te2?fieldManager=kubectl-cordon"
    code, _ = await small.kube.send("PATCH", path, body=body, media="application/merge-patch+json")
    assert code == 200
    small.kube.forget()


async def te2(small: Place) -> Object:
    found = await small.kube.get("v1", "Node", "te2", fresh=True)
    assert found is not None
    return found


async def test_a_node_that_a_person_closed_after_our_note_was_left_is_theirs(small: Place) -> None:
    """A killed run left it closed, a person opened it, and weeks later somebody closed it for a repair."""
    await cordon(small.kube, "te2", "repair")
    assert "te2" in await find_left_cordoned(small.kube)
    await by_hand(small, closed=False)
    await by_hand(small, closed=True)
    assert await find_left_cordoned(small.kube) == {}
    assert not await cordon(small.kube, "te2", "upgrade"), "nothing is written on somebody else's cordon"
    assert await NodeOpenedAgain("te2").check(small.kube) is not None
    await uncordon(small.kube, "te2")
    node = await te2(small)
    assert node["spec"]["unschedulable"] is True
    assert drains.CORDONED not in node["metadata"].get("annotations", {})
    await by_hand(small, closed=False)
    assert await cordon(small.kube, "te2", "upgrade")
    assert "te2" in await find_left_cordoned(small.kube), "this one is ours again"


async def test_a_note_on_a_node_that_a_person_opened_is_drift_and_taken_off(small: Place) -> None:
    step = NoNoteLeft("te2")
    assert (await step.check(small.kube), await NoNoteLeft("nowhere").check(small.kube)) == (None, None)
    await cordon(small.kube, "te2", "repair")
    small.kube.forget()
    assert await step.check(small.kube) is None, "it is closed by us"
    await by_hand(small, closed=False)
    assert await step.check(small.kube) is not None
    await step.apply(small.kube)
    assert (await step.check(small.kube), await NodeOpenedAgain("te2").check(small.kube)) == (None, None)
    assert not (await te2(small))["spec"].get("unschedulable")


# --- decisions and answers that a running cluster gives too seldom to wait for: on an API in memory

DEPLOYED = [{"kind": "ReplicaSet", "name": "web", "controller": True}]
OF_A_DAEMONSET = [{"kind": "DaemonSet", "name": "agent", "controller": True}]


def pod(name: str, owners: list[Object] | None = None, *, phase: str = "Running", **meta: Any) -> Object:
    """Return a pod of node te2, of a Deployment where nothing else is said."""
    found = {"name": name, "namespace": "default", "uid": f"uid of {name}", "ownerReferences": DEPLOYED, **meta}
    if owners is not None:
        found["ownerReferences"] = owners
    return {"metadata": found, "spec": {"nodeName": "te2"}, "status": {"phase": phase}}


class Api(Calls):
    """An API with one node; `looks` are its pods at each look, the last for ever, `answers` those to evictions."""

    def __init__(self, *looks: list[Object], answers: list[tuple[int, Object]] | None = None) -> None:
        super().__init__()
        self.looks, self.answers = list(looks), answers or []
        self.node: Object = {"metadata": {"name": "te2", "resourceVersion": "7"}}
        self.git_version = "v1.36.2"
        self.evicted: list[tuple[str, str]] = []  # pod, and version of the Eviction

    async def send(self, method: str, path: str, *, body: Mapping[str, Any] | None = None, **_: Any) -> tuple[int, str]:
        """Answer as an API server does."""
        code, answer = self.answer(method, path.partition("?")[0], body or {})
        return code, json.dumps(answer)

    def answer(self, method: str, path: str, body: Mapping[str, Any]) -> tuple[int, Object]:
        """Return code and object."""
        if method == "POST":
            self.evicted.append((body["metadata"]["name"], body["apiVersion"]))
            return self.answers.pop(0) if self.answers else (201, {"kind": "Status", "status": "Success"})
        if method == "PATCH":
            self.node = {**self.node, "patched": body}
            return 200, self.node
        known: dict[str, Object] = {
            "/version": {"gitVersion": self.git_version},
            "/api/v1": {"resources": [_kind("Pod"), {**_kind("Node"), "namespaced": False}]},
            "/apis/apps/v1": {"resources": [_kind("DaemonSet")]},
            "/apis/apps/v1/namespaces/default/daemonsets/agent": {"kind": "DaemonSet"},
            "/api/v1/nodes/te2": self.node,
            "/api/v1/nodes": {"metadata": {}, "items": [self.node]},
        }
        if path == "/api/v1/pods":
            return 200, {"metadata": {}, "items": self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]}
        return (200, known[path]) if path in known else (404, {})

    @property
    def kube(self) -> Kube:
        """Itself: the connection is what it has none of."""
        return cast("Kube", self)


def _kind(kind: str) -> Object:
    return {"kind": kind, "name": f"{kind.lower()}s", "namespaced": True}


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the pauses that a drain made; none of them takes any time."""
    made: list[float] = []
    real = asyncio.sleep

    async def at_once(seconds: float) -> None:
        made.append(seconds)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", at_once)
    return made


def answered(code: int, message: str, *reasons: str) -> tuple[int, Object]:
    causes = [{"reason": reason, "message": f"{message} for {reason}"} for reason in reasons]
    return code, {"kind": "Status", "message": message, "details": {"causes": causes}}


async def test_a_node_without_spec_and_notes_is_open_and_is_closed_only_as_it_was_read() -> None:
    api = Api([])
    await uncordon(api.kube, "te2")
    assert "patched" not in api.node, "Shipway did not close it"
    assert await find_left_cordoned(api.kube) == {}
    assert await cordon(api.kube, "te2", "repair")
    assert api.node["patched"]["metadata"]["resourceVersion"] == "7"


async def test_a_node_that_somebody_opened_meanwhile_is_not_kept_closed_by_shipway() -> None:
    api = Api([])
    api.node["metadata"]["annotations"] = {drains.CORDONED: json.dumps({"why": "repair", "since": "2026"})}
    assert await find_left_cordoned(api.kube) == {}
    api.node["spec"] = {"unschedulable": True}
    api.forget()
    assert await find_left_cordoned(api.kube) == {"te2": "repair (since 2026)"}


async def test_a_closed_node_without_our_note_is_somebody_elses() -> None:
    api = Api([])
    api.node["spec"] = {"unschedulable": True}
    assert await find_left_cordoned(api.kube) == {}
    assert not await cordon(api.kube, "te2", "repair")


async def test_where_the_api_keeps_no_fields_of_who_wrote_what_our_note_counts() -> None:
    api = Api([])
    api.node["spec"] = {"unschedulable": True}
    api.node["metadata"] |= {
        "annotations": {drains.CORDONED: json.dumps({"why": "repair", "since": "2026"})},
        "managedFields": [{"manager": "kubectl"}],
    }
    assert await find_left_cordoned(api.kube) == {"te2": "repair (since 2026)"}


async def test_a_pod_is_evicted_once_however_long_it_takes_to_leave(pauses: list[float]) -> None:
    there, heard = [pod("web")], list[str]()
    api = Api(there, there, there, there, [])
    assert await drain(api.kube, "te2", seconds=3, on_wait=heard.append) == ["default/web"]
    assert api.evicted == [("web", "policy/v1")]
    assert heard == ["waiting until te2 is drained: 1 of 1 pods left: default/web: not asked to leave yet"], "said once"
    assert pauses == [drains.EVERY_SECONDS] * 3, "a pause between two looks, none after the last"


async def test_a_pod_that_is_ending_already_is_waited_for_and_not_evicted(pauses: list[float]) -> None:
    ending = pod("web", deletionTimestamp="2026-11-28T12:00:00Z", finalizers=["example/hold"])
    api, heard = Api([ending], [ending], []), list[str]()
    await drain(api.kube, "te2", seconds=3, on_wait=heard.append)
    assert api.evicted == []
    assert heard[0].endswith("default/web: is ending until 2026-11-28T12:00:00Z, finalizers example/hold")
    assert len(pauses) == 1


async def test_a_drain_that_is_over_with_its_last_look_has_not_missed_its_deadline() -> None:
    assert await drain(Api([pod("web")], []).kube, "te2", seconds=0) == ["default/web"]


@pytest.mark.usefixtures("pauses")
async def test_what_no_second_try_mends_ends_the_drain_and_no_eviction_is_sent_after_it() -> None:
    api = Api([pod("a"), pod("b")], answers=[answered(403, "a webhook forbids it")])
    with pytest.raises(ApiRefused, match=r"eviction of default/a.*403.*a webhook forbids it"):
        await drain(api.kube, "te2", seconds=3)
    assert sorted(name for name, _ in api.evicted) == ["a", "b"]


@pytest.mark.usefixtures("pauses")
async def test_an_api_server_that_restarts_is_asked_again() -> None:
    there, heard = [pod("web")], list[str]()
    api = Api(there, there, [], answers=[answered(503, "shutting down"), answered(500, "etcd has no leader")])
    await drain(api.kube, "te2", seconds=3, on_wait=heard.append)
    assert [name for name, _ in api.evicted] == ["web"] * 3
    assert "shutting down" in heard[0]
    assert "etcd has no leader" in heard[1]


@pytest.mark.parametrize(
    "answer", [answered(404, "not found"), answered(403, "is being terminated", "NamespaceTerminating")]
)
async def test_a_pod_that_has_left_or_goes_with_its_namespace_is_not_evicted_again(
    pauses: list[float], answer: tuple[int, Object]
) -> None:
    there = [pod("web")]
    api = Api(there, there, [], answers=[answer])
    await drain(api.kube, "te2", seconds=3)
    assert len(api.evicted) == len(pauses) == 1


@pytest.mark.parametrize(
    ("version", "asked"), [("v1.21.14", "policy/v1beta1"), ("v1.22.0", "policy/v1"), ("v1.9.3-eks-1", "policy/v1beta1")]
)
async def test_an_eviction_has_the_version_that_the_server_knows(version: str, asked: str) -> None:
    api = Api([pod("web")], [])
    api.git_version = version
    await drain(api.kube, "te2", seconds=3)
    assert api.evicted == [("web", asked)]


@pytest.mark.parametrize(("more", "says"), [(0, ""), (1, "1 more")])
async def test_a_long_list_of_pods_is_cut_and_says_so(more: int, says: str) -> None:
    kept = [pod(f"web-{number}", phase="Running") for number in range(SHOWN + more)]
    alone = [pod(f"web-{number}", []) for number in range(SHOWN + more)]
    with pytest.raises(DeadlineExceeded) as held:
        await drain(Api(kept).kube, "te2", seconds=-1)
    with pytest.raises(Refused) as refused:
        await may_drain(Api(alone).kube, "te2")
    for message in (held.value.message, refused.value.message):
        assert message.count("default/web-") == SHOWN
        assert message.endswith(says)
        assert (" more" in message) is bool(more)


async def test_what_came_to_the_node_meanwhile_is_named_and_left_there() -> None:
    agent, static = pod("agent", OF_A_DAEMONSET), pod("static", annotations={MIRROR: "1"})
    api, heard = Api([pod("web"), agent], [pod("new"), agent, static]), list[str]()
    await drain(api.kube, "te2", seconds=3, on_wait=heard.append)
    assert heard == ["pods that tolerate the cordon came to te2, and are left there: default/new"]
    assert [name for name, _ in api.evicted] == ["web"]
    await drain(Api([pod("web")], [agent]).kube, "te2", seconds=3, on_wait=heard.append)
    assert len(heard) == 1, "nothing came"


async def test_what_leaves_is_decided_by_a_look_of_its_own() -> None:
    api = Api([pod("old")], [pod("new")])
    await api.list_("v1", "Pod", fields="spec.nodeName=te2")
    assert [one["metadata"]["name"] for one in await may_drain(api.kube, "te2")] == ["new"]


async def test_only_a_controlling_owner_starts_a_pod_again() -> None:
    noted = pod("noted", [{"kind": "ConfigMap", "name": "x"}])
    with pytest.raises(Refused, match=r"default/noted \(nothing would start it again\)"):
        await may_drain(Api([noted]).kube, "te2")


async def test_test_pods_of_a_proof_that_was_killed_leave() -> None:
    cluster = parse_cluster("name: te\nprofile: seed\nhosts: [{name: te1, address: 192.0.2.1}]\n")
    made = {**pod_with_gpu(cluster, "gpu-test-te2-1"), "status": {"phase": "Running"}}
    made["metadata"]["uid"] = "u"
    assert await may_drain(Api([made]).kube, "te2") == [made]
    without = pod_without(cluster, "gpu-test-without-1", "te2")
    assert await may_drain(Api([without]).kube, "te2") == [without]


@pytest.mark.parametrize("meta", [{"labels": dict([drains.OURS])}, {"namespace": drains.PROOFS}])
async def test_neither_the_label_alone_nor_the_namespace_alone_makes_a_pod_one_of_a_proof(meta: dict[str, Any]) -> None:
    other = pod("theirs", [], **meta)
    with pytest.raises(Refused, match="theirs"):
        await may_drain(Api([other]).kube, "te2")


async def test_a_pod_that_is_over_by_then_forbids_no_drain_and_another_of_its_name_does() -> None:
    going, other = pod("alone", []), pod("alone", [], namespace="theirs")
    assert await may_drain(Api([going]).kube, "te2", besides=("default/alone",)) == []
    with pytest.raises(Refused, match="theirs/alone"):
        await may_drain(Api([going, other]).kube, "te2", besides=("default/alone",))


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_pod_that_has_ended_leaves_whoever_owned_it(phase: str) -> None:
    leaving = await may_drain(Api([pod("done", [], phase=phase)]).kube, "te2")
    assert [one["metadata"]["name"] for one in leaving] == ["done"]


async def test_a_pod_of_a_daemonset_stays() -> None:
    assert await may_drain(Api([pod("agent", OF_A_DAEMONSET)]).kube, "te2") == []


async def test_a_pod_that_nothing_is_said_of_yet_has_not_ended() -> None:
    starting, alone = pod("web"), pod("alone", [])
    del starting["status"], alone["status"]
    assert len(await may_drain(Api([starting]).kube, "te2")) == 1
    with pytest.raises(Refused, match="default/alone"):
        await may_drain(Api([alone]).kube, "te2")


@pytest.mark.parametrize(
    ("one", "moves"),
    [
        (pod("web"), True),
        (pod("alone", []), True),
        (pod("web", annotations={"note": "1"}), True),
        (pod("static", annotations={MIRROR: "1"}), False),
        (pod("agent", OF_A_DAEMONSET), False),
        (pod("done", phase="Succeeded"), False),
        (pod("done", phase="Failed"), False),
    ],
)
def test_a_drain_moves_what_runs_and_is_kept_by_neither_a_file_nor_a_daemonset(one: Object, *, moves: bool) -> None:
    assert movable(one) is moves
