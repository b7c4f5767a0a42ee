"""What forbids to take a node out: each refusal has its code, names what is in the way, and says what to do next."""

from __future__ import annotations

import contextlib
import json
from typing import Any, cast

import pytest

from shipway.errors import Refused
from shipway.host.session import Command
from shipway.kube.budgets import selector_text
from shipway.ownership.evidence import Evidence
from shipway.script import Output
from shipway.step import Drift
from shipway.steps.kubernetes.etcd_leave import MemberGone
from shipway.steps.kubernetes.etcd_members import MEMBERS, health
from shipway.steps.kubernetes.may_go import (
    ControlPlaneMayGo,
    ElsewhereToGo,
    HostAway,
    NodeLost,
    NoGpuPods,
    NoLocalVolume,
    OfThisCluster,
    PodsMayLeave,
)
from shipway.steps.kubernetes.retire import may_leave
from tests.places.facts import KnownFacts, said
from tests.retire.objects import Objects, meta, node, pod

ENDPOINTS = frozenset({"10.0.0.1:6443"})
OURS = frozenset({"sha256:ours"})
GPU = {"resources": {"limits": {"nvidia.com/gpu": "2"}}}
BUDGET = {
    "kind": "PodDisruptionBudget",
    "metadata": meta("kept", "default"),
    "spec": {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 1},
}


def three(*more: dict[str, Any]) -> Objects:
    taint = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
    first = node("te1", role="control-plane", taints=[taint])
    etcd = pod(
        "etcd-te1", "te1", owner="Node", namespace="kube-system", labels={"component": "etcd", "tier": "control-plane"}
    )
    return Objects(first, node("te2"), node("te3", closed=True), etcd, *more)


async def refused(check: Any, on: Any, code: str) -> Refused:
    with pytest.raises(Refused) as raised:
        await check.check(on)
    assert raised.value.code == code
    assert raised.value.fix not in ("", Refused.default_fix)
    return raised.value


async def test_pods_that_hold_gpus_are_named_with_their_owners_up_to_the_top() -> None:
    above = [{"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "name": "big", "controller": True}]
    job = {"kind": "Job", "metadata": meta("train-owner", "default", ownerReferences=above)}
    holder = pod("train", "te2", owner="Job", container=GPU)
    error = await refused(NoGpuPods("te2"), three(holder, job), "SHW-703")
    assert "default/train (nvidia.com/gpu: 2, of Job train-owner, of JobSet big)" in error.message
    assert "--evict-gpu-pods" in error.fix


@pytest.mark.parametrize(
    "spec",
    [
        {"container": {"resources": {"limits": {"nvidia.com/mig-1g.10gb": "1"}}}},
        {"resourceClaims": [{"name": "gpu", "resourceClaimName": "one"}]},
    ],
    ids=["a part of a GPU", "a claim"],
)
async def test_parts_of_gpus_and_claims_count_as_well(spec: dict[str, Any]) -> None:
    await refused(NoGpuPods("te2"), three(pod("part", "te2", owner="Job", **spec)), "SHW-703")


async def test_pods_whose_owners_let_them_go_are_not_in_the_way() -> None:
    gone = pod("gone", "te2", owner="Job", container=GPU)
    gone["metadata"]["annotations"] = {"shipway.dev/gpu-jobs": "evict"}
    saved = pod("saved", "te2", owner="Job", container=GPU, terminationGracePeriodSeconds=300)
    saved["metadata"]["annotations"] = {
        "shipway.dev/gpu-jobs": "checkpoint",
        "shipway.dev/checkpoint-seconds": "120",
    }
    api = three(gone, saved)
    assert await NoGpuPods("te2").check(api) is None  # type: ignore[arg-type]
    left = await may_leave(api, "te2", local_data=(), evict_gpu_pods=False)  # type: ignore[arg-type]
    assert [one["metadata"]["name"] for one in left] == ["gone", "saved"]
    waits = pod("waits", "te2", owner="Job", container=GPU)
    error = await refused(NoGpuPods("te2"), three(gone, saved, waits), "SHW-703")
    assert ("default/waits" in error.message, "default/saved" in error.message) == (True, False)
    saved["spec"]["terminationGracePeriodSeconds"] = 60
    error = await refused(NoGpuPods("te2"), three(gone, saved), "SHW-703")
    assert ("default/saved" in error.message, "default/gone" in error.message) == (True, False)


async def test_pods_without_gpus_those_of_the_proof_and_those_that_ended_hold_none() -> None:
    ended = pod("ended", "te2", owner="Job", container=GPU)
    ended["status"]["phase"] = "Succeeded"
    proof = pod("gpu-test-1", "te2", owner="", namespace="shipway-verify", container=GPU)
    elsewhere = pod("other", "te3", owner="Job", container=GPU)
    assert await NoGpuPods("te2").check(three(ended, proof, elsewhere, pod("web", "te2"))) is None  # type: ignore[arg-type]


async def test_a_pod_that_nothing_would_start_again_forbids_it_with_advice_of_this_verb() -> None:
    error = await refused(PodsMayLeave("te2"), three(pod("bare", "te2", owner="")), "SHW-337")
    assert "default/bare" in error.message
    assert "repair te2" not in error.fix
    data = pod("cache", "te2", volumes=[{"name": "data", "emptyDir": {}}])
    await refused(PodsMayLeave("te2"), three(data), "SHW-337")
    assert await PodsMayLeave("te2", None).check(three(data)) is None  # type: ignore[arg-type]


async def test_guarded_pods_on_the_last_node_that_takes_pods_forbid_it() -> None:
    web = pod("web", "te2", labels={"app": "web"})
    error = await refused(ElsewhereToGo("te2"), three(web, BUDGET), "SHW-704")
    assert "default/web" in error.message
    opened = three(web, BUDGET)
    opened.objects[2]["spec"].pop("unschedulable")
    assert await ElsewhereToGo("te2").check(opened) is None  # type: ignore[arg-type]
    assert await ElsewhereToGo("te2").check(three(pod("loose", "te2"), BUDGET)) is None  # type: ignore[arg-type]
    opened.objects[2]["spec"]["taints"] = [{"key": "site", "effect": "NoExecute"}]
    await refused(ElsewhereToGo("te2"), opened, "SHW-704")


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ({"matchLabels": {"a": "b", "c": "d"}}, "a=b,c=d"),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c"]}]}, "a in (b,c)"),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, "!a"),
        ({}, ""),
    ],
)
def test_a_selector_is_written_as_the_api_takes_it(selector: dict[str, Any], text: str) -> None:
    assert selector_text(selector) == text


def volume(where: str, phase: str = "Bound") -> dict[str, Any]:
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [where]}]}]
    spec = {"local": {"path": "/data"}, "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}
    claim = {"namespace": "default", "name": "models"}
    return {
        "kind": "PersistentVolume",
        "metadata": meta("pv1"),
        "spec": {**spec, "claimRef": claim},
        "status": {"phase": phase},
    }


async def test_a_bound_volume_whose_data_is_on_the_host_forbids_it() -> None:
    error = await refused(NoLocalVolume("te2"), three(volume("te2")), "SHW-705")
    assert "pv1 (claim default/models)" in error.message
    for one in (volume("te3"), volume("te2", "Released")):
        assert await NoLocalVolume("te2").check(three(one)) is None  # type: ignore[arg-type]


async def test_the_only_control_plane_is_never_removed_and_is_told_how_a_cluster_ends() -> None:
    error = await refused(ControlPlaneMayGo("te1"), three(), "SHW-707")
    assert "no other control plane of the cluster file serves" in error.message
    assert error.fix == "To end the cluster: remove te2; te3 first, then reset te1."
    assert await ControlPlaneMayGo("te2").check(three()) is None  # type: ignore[arg-type]


class Lead(KnownFacts):
    """A control plane that answers for etcd: te1, te2 ... are its members, some of them ill, or learners."""

    def __init__(self, count: int, ill: tuple[int, ...] = (), learners: tuple[int, ...] = ()) -> None:
        found = [
            {
                "ID": str(n),
                "name": f"te{n}",
                "peerURLs": [f"https://10.0.0.{n}:2380"],
                "clientURLs": [f"https://10.0.0.{n}:2379"],
                **({"isLearner": True} if n in learners else {}),
            }
            for n in range(1, count + 1)
        ]
        super().__init__({MEMBERS: said(json.dumps({"members": found}))})
        for n in range(1, count + 1):
            self.facts[health(f"https://10.0.0.{n}:2379")] = said("" if n in ill else '{"health":"true"}')


class Removing(Lead):
    """One that takes members out."""

    async def do(self, *commands: Command) -> list[Output]:
        """Take the member out that is asked for."""
        (command,) = commands
        gone = json.loads(command.words[command.words.index("-d") + 1])["ID"]
        self.done.append(gone)
        found = [one for one in json.loads(self.facts[MEMBERS].stdout)["members"] if one["ID"] != gone]
        self.facts[MEMBERS] = said(json.dumps({"members": found}))
        return [self.facts[MEMBERS]]

    def changing(self, *_: Any) -> Any:
        """Be the place of a change."""
        return contextlib.nullcontext(self)


PLANES = Objects(*(node(f"te{n}", role="control-plane") for n in range(1, 6)), node("te6"))


def leaving(lead: KnownFacts | None, number: int = 2, **more: Any) -> ControlPlaneMayGo:
    return ControlPlaneMayGo(f"te{number}", "control plane", lead, f"10.0.0.{number}", **more)  # type: ignore[arg-type]


async def test_a_healthy_one_of_several_leaves_only_where_a_person_or_the_file_wants_fewer() -> None:
    error = await refused(leaving(Lead(3)), PLANES, "SHW-707")
    assert "2 members would be left, and etcd could lose none of them" in error.message
    assert "`shipway replace FILE te2`" in error.fix
    assert await leaving(Lead(3), fewer=True).check(PLANES) is None  # type: ignore[arg-type]
    assert await leaving(Lead(5)).check(PLANES) is None  # type: ignore[arg-type]  # of the four that stay one may be lost
    assert await leaving(Lead(2), fewer=True).check(PLANES) is None  # type: ignore[arg-type]
    assert await leaving(Lead(3), number=6).check(PLANES) is None  # type: ignore[arg-type]  # it is no member any more


async def test_one_whose_member_is_lost_leaves_and_nobody_leaves_beside_such_a_one() -> None:
    assert await leaving(Lead(3, ill=(2,))).check(PLANES) is None  # type: ignore[arg-type]
    error = await refused(leaving(Lead(3, ill=(3,)), fewer=True), PLANES, "SHW-707")
    assert "1 of 3 members of etcd is not healthy: such a one goes first" in error.message
    assert "shipway replace" not in error.fix


@pytest.mark.parametrize(
    "lead",
    [Lead(2, ill=(2,)), Lead(3, ill=(2, 3)), Lead(4, ill=(1, 3), learners=(2,))],
    ids=["1 of 2", "1 of 3", "learner"],
)
async def test_without_a_quorum_nobody_leaves_whoever_asks(lead: Lead) -> None:
    assert "no quorum" in (await refused(leaving(lead, fewer=True), PLANES, "SHW-707")).message


async def test_a_learner_that_never_got_a_vote_leaves() -> None:
    assert await leaving(Lead(4, ill=(2,), learners=(2,))).check(PLANES) is None  # type: ignore[arg-type]


async def test_a_machine_whose_member_is_healthy_is_not_dead() -> None:
    error = await refused(leaving(Lead(3), fewer=True, dead=True), PLANES, "SHW-707")
    assert "its member of etcd is healthy" in error.message
    assert await leaving(Lead(3, ill=(2,)), dead=True).check(PLANES) is None  # type: ignore[arg-type]


async def test_a_member_is_known_by_its_name_where_its_host_is_reached_at_another_address() -> None:
    def at(lead: Lead, address: str, node: str = "te2", **more: Any) -> ControlPlaneMayGo:
        return ControlPlaneMayGo(node, "control plane", cast("Any", lead), address, fewer=True, **more)

    error = await refused(at(Lead(3, ill=(3,)), "203.0.113.5"), PLANES, "SHW-707")
    assert "1 of 3 members of etcd is not healthy" in error.message
    error = await refused(at(Lead(3), "203.0.113.5", dead=True), PLANES, "SHW-707")
    assert "--dead was asked for, and its member of etcd is healthy: te2 (healthy)" in error.message
    lead = Removing(3)
    await MemberGone("te2", "203.0.113.5", allow=True).apply(lead)  # type: ignore[arg-type]
    assert lead.done == ["2"], "it would have stayed a voter for ever"
    again = MemberGone("te2", "203.0.113.5")
    assert await again.check(lead) is None, "a removal that was killed goes on"  # type: ignore[arg-type]


async def test_an_address_that_leads_to_another_hosts_member_takes_nobody_out() -> None:
    lead = Removing(3)
    for host in ("te2", "te9"):  # with a member of its own, and without
        step = ControlPlaneMayGo(host, "control plane", cast("Any", lead), "10.0.0.3", fewer=True)
        error = await refused(step, PLANES, "SHW-707")
        assert f"at 10.0.0.3 is the member of etcd te3 (healthy), and not {host}'s" in error.message
        with pytest.raises(Refused) as raised:
            await MemberGone(host, "10.0.0.3", allow=True).apply(lead)  # type: ignore[arg-type]
        assert ("its member is at 10.0.0.2" in raised.value.fix) == (host == "te2")
    assert lead.done == []


async def test_a_member_is_removed_by_its_id_and_only_where_the_rule_lets_it_go_at_the_act() -> None:
    lead = Removing(3)
    step = MemberGone("te2", "10.0.0.2")
    assert str(await step.check(lead)) == str(Drift("te2 (healthy)", "no member"))  # type: ignore[arg-type]
    with pytest.raises(Refused) as raised:
        await step.apply(lead)  # type: ignore[arg-type]
    assert (raised.value.code, lead.done) == ("SHW-707", [])
    wanted = MemberGone("te2", "10.0.0.2", allow=True)
    for _ in range(2):
        await wanted.apply(lead)  # type: ignore[arg-type]
    assert lead.done == ["2"]
    assert await wanted.check(lead) is None  # type: ignore[arg-type]


async def test_a_node_with_the_role_of_a_control_plane_counts_without_a_member_that_is_seen() -> None:
    on = Objects(node("te1", role="master"), node("te2"))
    assert "no other control plane" in (await refused(ControlPlaneMayGo("te1"), on, "SHW-707")).message


async def test_only_guarded_pods_of_this_node_that_a_drain_would_move_count() -> None:
    elsewhere, agent = (
        pod("web", "te3", labels={"app": "web"}),
        pod("agent", "te2", owner="DaemonSet", labels={"app": "web"}),
    )
    assert await ElsewhereToGo("te2").check(three(elsewhere, agent, BUDGET)) is None  # type: ignore[arg-type]
    assert await ElsewhereToGo("te9").check(three(BUDGET)) is None  # type: ignore[arg-type]
    lost = three(pod("web", "te2", labels={"app": "web"}), BUDGET)
    lost.objects[2] = node("te3", ready=False)
    await refused(ElsewhereToGo("te2"), lost, "SHW-704")


def by_driver(*terms: tuple[str, list[str]], operator: str = "In") -> dict[str, Any]:
    """Return a bound volume of a CSI driver; each term asks for one of some values of a key."""
    one = volume("te2")
    one["spec"]["csi"] = one["spec"].pop("local")
    asked = [{"matchExpressions": [{"key": key, "operator": operator, "values": some}]} for key, some in terms]
    one["spec"]["nodeAffinity"] = {"required": {"nodeSelectorTerms": asked}} if asked else {}
    return one


@pytest.mark.parametrize(
    ("one", "local"),
    [
        (by_driver(("topology.topolvm.io/node", ["te2"])), True),
        (by_driver(("openebs.io/nodename", ["te2"])), True),
        (by_driver(("topology.topolvm.io/node", ["te3"])), False),
        (by_driver(("linbit.com/hostname", ["te2", "te3"])), False),
        (by_driver(("linbit.com/hostname", ["te2"]), ("linbit.com/hostname", ["te3"])), False),
        (by_driver(("topology.kubernetes.io/zone", ["here"])), False),
        (by_driver(("kubernetes.io/hostname", ["te2"]), operator="NotIn"), False),
        (by_driver(), False),
    ],
    ids=[
        "TopoLVM",
        "OpenEBS",
        "another node's",
        "two copies",
        "either of two",
        "a zone's",
        "anywhere else",
        "anywhere",
    ],
)
async def test_a_drivers_volume_forbids_it_where_no_other_node_can_have_it(
    one: dict[str, Any],
    local: bool,  # noqa: FBT001 - a table
) -> None:
    if local:
        await refused(NoLocalVolume("te2"), three(one), "SHW-705")
    else:
        assert await NoLocalVolume("te2").check(three(one)) is None  # type: ignore[arg-type]


async def test_a_volume_that_ends_with_its_pod_forbids_nothing() -> None:
    claim = {"kind": "PersistentVolumeClaim", "metadata": meta("models", "default")}
    await refused(NoLocalVolume("te2"), three(by_driver(("x/node", ["te2"])), claim), "SHW-705")
    claim["metadata"]["ownerReferences"] = [{"kind": "Pod", "name": "train", "controller": True}]
    assert await NoLocalVolume("te2").check(three(by_driver(("x/node", ["te2"])), claim)) is None  # type: ignore[arg-type]


async def test_a_node_whose_control_plane_shows_only_on_its_host_counts_too() -> None:
    await refused(ControlPlaneMayGo("te2", "control plane"), three(), "SHW-707")


async def test_dead_is_believed_only_where_the_cluster_and_ssh_agree() -> None:
    error = await refused(NodeLost("te2"), three(), "SHW-709")
    assert "Ready" in error.message
    assert await NodeLost("te9").check(three()) is None  # type: ignore[arg-type]
    lost = Objects(node("te1"), node("te2", ready=False))
    assert await NodeLost("te2").check(lost) is None  # type: ignore[arg-type]
    await refused(HostAway("te2", dead=True, answers=True, said=""), None, "SHW-708")
    away = await refused(HostAway("te2", dead=False, answers=False, said="no route"), None, "SHW-710")
    assert "no route" in away.message
    assert "--dead" in away.fix
    for dead in (True, False):
        assert await HostAway("te2", dead=dead, answers=not dead, said="").check(None) is None


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (
            Evidence("te2", kubelet_conf=True, certificate=True, authorities=frozenset({"sha256:other"})),
            "another cluster",
        ),
        (Evidence("te2", running=True, pods=("default/web",)), "default/web"),
        (Evidence("te2", certificate=True), "certificate"),
        (Evidence("te2", certificate=True, authorities=OURS, node="te3"), "is the node te3"),
    ],
)
async def test_a_host_of_another_cluster_or_of_one_that_cannot_be_told_is_left(seen: Evidence, said: str) -> None:
    error = await refused(OfThisCluster(seen, OURS, ENDPOINTS), None, "SHW-706")
    assert said in error.message


@pytest.mark.parametrize(
    "check",
    [
        OfThisCluster(Evidence("te2", certificate=True, authorities=OURS), OURS, ENDPOINTS),
        OfThisCluster(Evidence("te2", running=True, server="https://10.0.0.1:6443"), OURS, ENDPOINTS),
        OfThisCluster(Evidence("te2", running=True), OURS, ENDPOINTS, begun=True),
        OfThisCluster(Evidence("te2"), OURS, ENDPOINTS),
        OfThisCluster(Evidence("te2", certificate=True, authorities=OURS, node="te2"), OURS, ENDPOINTS),
        OfThisCluster(Evidence("te2", certificate=True, authorities=OURS), frozenset(), ENDPOINTS),
        OfThisCluster(Evidence("te2", pki=True), OURS, ENDPOINTS),
    ],
)
async def test_a_host_of_this_cluster_or_of_none_passes(check: OfThisCluster) -> None:
    assert await check.check(None) is None
