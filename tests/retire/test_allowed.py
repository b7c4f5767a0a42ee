"""Whether a host may be reset or removed: asked of the cluster, and where that is silent, never taken for granted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shipway.errors import ApiUnavailable, LoginRefused, Refused, ShipwayError, Unreachable
from shipway.facts.commands import Says
from shipway.facts.files import Listing
from shipway.gpu.health.quarantine import NOTE, TAINT
from shipway.kubeadm.writes import PKI
from shipway.ownership.evidence import KUBECONFIGS, KUBELET_CONF, Evidence
from shipway.script import Output
from shipway.steps.authority.which import ETCD_CA
from shipway.steps.kubernetes.etcd_members import OWN, health
from shipway.steps.kubernetes.local_pods import CLAIMS, STARTED_PODS
from tasks.context import Run
from tasks.retire import allowed, work
from tasks.retire.allowed import may_remove, may_reset, refuse_reset, reset_refusals
from tasks.retire.place import place_host
from tests.places.facts import KnownFacts, said
from tests.retire.joined_host import JoinedHost, cluster
from tests.retire.objects import Objects, meta, node, pod
from tests.retire.test_may_go import Lead
from tests.retire.test_webhooks import PODS, config, ends

OURS = frozenset({"sha256:ours"})
WORKER = Evidence("te2", kubelet_conf=True, certificate=True, authorities=OURS, node="te2")
CONTROL = Evidence("te1", admin=True, etcd=True, static=("etcd.yaml",), certificate=True, authorities=OURS, node="te1")
ASKING = replace(WORKER, server="https://API.te.internal:6443")
BARE = Evidence("te2")
PODS_OF = [(0, "default_web"), (1, "train_llm-0"), (2, "kube-system_kube-proxy-1")]
ETCD = pod(
    "etcd-te1", "te1", owner="Node", namespace="kube-system", labels={"component": "etcd", "tier": "control-plane"}
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Run:
    made = Run(cluster().model_copy(update={"state_dir": str(tmp_path)}), "reset")
    monkeypatch.setattr(allowed, "authorities_of", lambda _: OURS)
    hosts: dict[str, KnownFacts] = {}

    def session(name: str) -> KnownFacts:
        if name not in hosts:
            hosts[name] = KnownFacts({})
            hosts[name].name = name
        return hosts[name]

    monkeypatch.setattr(made, "session", session)
    return made


def on_cluster(run: Run, *objects: Any) -> None:
    """Let the run's cluster be these objects; with none its API does not answer."""

    async def kube() -> Any:
        if not objects:
            raise ApiUnavailable("nobody answers")
        return Objects(*objects)

    run.kube = kube  # type: ignore[method-assign]


def seen(run: Run, evidence: Evidence, monkeypatch: pytest.MonkeyPatch, others: dict[str, Any] | None = None) -> None:
    """Let a host show this, and other hosts what they show, or what keeps from asking them."""
    run.retirement.evidence[evidence.host] = evidence

    async def ask(session: Any) -> Evidence:
        found = (others or {}).get(session.name, evidence if session.name == evidence.host else Unreachable("silent"))
        if isinstance(found, ShipwayError):
            raise found
        return cast("Evidence", found)

    monkeypatch.setattr(allowed, "evidence", ask)


async def codes(run: Run, host: str = "te2") -> list[str]:
    found = await reset_refusals(run, host)
    assert all(one.fix not in ("", Refused.default_fix) for one in found)
    return [one.code for one in found]


async def test_a_host_that_is_a_node_is_removed_not_reset(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cluster(run, node("te1"), node("te2"))
    seen(run, WORKER, monkeypatch)
    (error,) = await reset_refusals(run, "te2")
    assert error.code == "SHW-702"
    assert "shipway remove" in error.fix


@pytest.mark.parametrize(
    ("shown", "own", "told", "codes_of"),
    [
        (BARE, "mine", "its", []),
        (BARE, "mine", "mine", ["SHW-702"]),
        (BARE, "mine", "", ["SHW-702"]),
        (BARE, "", "its", ["SHW-702"]),
        (WORKER, "mine", "its", ["SHW-702"]),
    ],
    ids=["prepared", "reset by hand", "the node tells none", "the machine tells none", "it is a node"],
)
async def test_a_machine_that_was_only_prepared_for_a_nodes_place_is_reset_and_the_node_is_left(
    run: Run, monkeypatch: pytest.MonkeyPatch, *, shown: Evidence, own: str, told: str, codes_of: list[str]
) -> None:
    """So `shipway replace` is undone before its drain; nothing of a cluster is on such a machine."""
    its = node("te2")
    its["status"]["nodeInfo"] = {"machineID": told}
    run.seen.surveys["te2"] = cast("Any", SimpleNamespace(machine_id=own))
    on_cluster(run, node("te1"), its)
    seen(run, shown, monkeypatch)
    assert await codes(run) == codes_of


async def test_a_host_whose_node_is_deleted_or_that_holds_nothing_may_be_reset(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cluster(run, node("te1"))
    for shown in (WORKER, BARE):
        seen(run, shown, monkeypatch)
        assert await codes(run) == []


async def test_a_machine_that_is_another_node_is_left_whatever_address_was_typed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Evidence("te2", certificate=True, authorities=OURS, node="te3")
    on_cluster(run, node("te1"), node("te2"), node("te3"), ETCD)
    seen(run, shown, monkeypatch)
    (error,) = await reset_refusals(run, "te2")
    assert (error.code, "is the node te3" in error.message) == ("SHW-706", True)
    answering(monkeypatch, shown)
    assert await removal(run) == ["SHW-706"]


async def test_another_cluster_than_the_one_that_is_known_by_the_name_is_left(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowed, "read_authorities", lambda _: frozenset({"sha256:the one that is known"}))
    on_cluster(run, node("te1"), node("te2", ready=False), ETCD)
    seen(run, BARE, monkeypatch)
    assert await codes(run) == ["SHW-706"]
    answering(monkeypatch, Unreachable("no route"))
    run.retirement.dead = True
    assert await removal(run) == ["SHW-706"]


async def test_a_host_of_another_cluster_is_left(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cluster(run, node("te1"))
    seen(run, Evidence("te2", certificate=True, authorities=frozenset({"sha256:other"})), monkeypatch)
    assert await codes(run) == ["SHW-706"]


async def test_a_control_plane_that_left_is_reset_and_one_that_is_a_member_or_serves_on_is_not(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cluster(run, node("te1"))
    seen(run, Evidence("te2", admin=True, etcd=True, authorities=OURS), monkeypatch)
    hosts: dict[str, Any] = {"te1": Lead(1), "te2": KnownFacts({})}
    run.session = lambda name: hosts[name]  # type: ignore[method-assign, assignment, return-value]
    assert await codes(run) == []
    hosts["te2"] = KnownFacts({health(OWN): said('{"health": "true"}')})
    assert await codes(run) == ["SHW-706"], "its etcd serves, and no other knows it: a copy of the cluster"
    hosts["te1"] = Lead(3)
    (error,) = await reset_refusals(run, "te2")
    assert (error.code, "shipway remove" in error.fix) == ("SHW-707", True)
    placed = run.cluster
    for address, said_of in (("203.0.113.5", "it is a member of etcd: te2"), ("10.0.0.3", "and not te2's")):
        moved = run.cluster.host("te2").model_copy(update={"address": address, "node_ip": IPv4Address(address)})
        run.cluster = placed.model_copy(update={"hosts": (placed.host("te1"), moved)})
        (error,) = await reset_refusals(run, "te2")
        assert (error.code, said_of in error.message) == ("SHW-707", True)
    run.cluster = placed
    on_cluster(run, node("te1"), node("te2"))
    assert await codes(run) == ["SHW-702"]


async def test_a_control_plane_leaves_while_another_one_answers_for_the_cluster(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, Evidence("te2", admin=True, etcd=True, static=("etcd.yaml",), authorities=OURS, node="te2"))
    lead = Lead(3)
    lead.facts[KUBECONFIGS] = said(f"{KUBELET_CONF}:    server: https://api.te.internal:6443\n")
    run.session = lambda name: lead if name == "te1" else KnownFacts({})  # type: ignore[method-assign, assignment, return-value]
    run.retirement.host = "te2"
    on_cluster(run, node("te1"), node("te2", role="control-plane"), node("te3"), ETCD)
    assert await removal(run) == [], "the file names it as no control plane any more"
    assert run.warned == ["te2 leaves etcd, and the file declares no backups: `shipway backup FILE` takes one"]
    declared = run.cluster.backup
    run.cluster = run.cluster.model_copy(update={"backup": declared.model_copy(update={"every_hours": 6})})
    assert await removal(run) == ["SHW-789"]
    run.cluster = run.cluster.model_copy(update={"backup": declared})
    assert run.retirement.control_plane
    planes = [host.model_copy(update={"roles": ("control_plane",)}) for host in run.cluster.hosts]
    run.cluster = run.cluster.model_copy(update={"hosts": tuple(planes)})
    assert await removal(run) == ["SHW-707"]
    run.retirement.to_replace = True
    assert await removal(run) == []
    lead.facts[KUBECONFIGS] = said(f"{KUBELET_CONF}:    server: https://10.0.0.2:6443\n")
    assert await removal(run) == ["SHW-717"], "the other one's kubelet asks by it"


async def test_beside_two_cas_no_control_plane_leaves_for_another_machine(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None could join in its place: a rotation that was broken off is ended first."""
    answering(monkeypatch, Evidence("te2", admin=True, etcd=True, static=("etcd.yaml",), authorities=OURS, node="te2"))
    lead = Lead(3)
    lead.facts[Listing(PKI)] = ("ca.crt", ETCD_CA.inside)
    run.session = lambda name: lead if name == "te1" else KnownFacts({})  # type: ignore[method-assign, assignment, return-value]
    on_cluster(run, node("te1"), node("te2", role="control-plane"), ETCD)
    monkeypatch.setattr(allowed, "OthersKeepWay", lambda *_: allowed.Told("a way", None))
    assert await removal(run) == [], "it leaves, and nothing comes for it"
    run.retirement.to_replace = True
    assert await removal(run) == ["SHW-856"]
    lead.facts[Listing(PKI)] = ("ca.crt",)
    assert await removal(run) == []


async def test_that_a_mark_of_quarantine_goes_with_its_node_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same machine may join again, and its GPU was to be measured first."""
    answering(monkeypatch, WORKER)
    marked = node("te2", taints=[{"key": TAINT, "value": "reset", "effect": "NoSchedule"}])
    on_cluster(run, node("te1"), node("te3"), marked, ETCD)
    assert await removal(run) == []
    assert run.retirement.left == [], "a taint of somebody else"
    marked["metadata"]["annotations"] = {
        NOTE: '{"since": "2026-11-29", "why": "Xid 79", "gpus": ["GPU-1"], "evidence": ""}'
    }
    assert await removal(run) == []
    (told,) = run.retirement.left
    assert told.startswith("te2 is kept from pods since 2026-11-29 (Xid 79), and that mark goes with its node")


RUNS = Evidence("te2", kubelet_conf=True, certificate=True, running=True, authorities=OURS, node="te2")
WORKS = {
    STARTED_PODS: said(
        "1 train_llm-0_0a1b2c3d-0000-4000-8000-000000000001\n2 mon_exporter_0a1b2c3d-0000-4000-8000-000000000002\n"
    ),
    CLAIMS: '{"PodUIDs": {"0a1b2c3d-0000-4000-8000-000000000001": {}}}',
}


async def test_a_job_on_a_host_that_the_cluster_does_not_know_is_not_broken_off(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its node was deleted by hand, or the cluster came back from an older backup: the job works on."""
    answering(monkeypatch, RUNS)
    on_cluster(run, node("te1"), node("te3"), ETCD)
    run.session("te2").facts |= WORKS  # type: ignore[attr-defined]
    (error,) = [one.error for one in await may_remove(run, "may_remove", "te2") if one.error]
    assert (error.code, "hold devices: train/llm-0 (claimed devices)" in error.message) == ("SHW-703", True)
    with pytest.raises(Refused):
        await work._still_drained(run, "te2")
    run.retirement.evict_gpu_pods = True
    assert await removal(run) == []
    await work._still_drained(run, "te2")
    run.retirement.evict_gpu_pods = False
    listed = cast("Output", WORKS[STARTED_PODS]).stdout
    run.session("te2").facts[STARTED_PODS] = said(listed.replace("train_", "shipway-verify_"))  # type: ignore[attr-defined]
    assert await removal(run) == [], "a proof's, which nobody misses"
    run.session("te2").facts |= {**WORKS, CLAIMS: "{}"}  # type: ignore[attr-defined]
    assert await removal(run) == [], "what holds none goes with the host, as its drain was to begin with"
    run.session("te2").facts[STARTED_PODS] = Output(1, "", "no shell")  # type: ignore[attr-defined]
    assert await removal(run) == ["SHW-400"], "what cannot be told"
    answering(monkeypatch, WORKER)
    assert await removal(run) == [], "nothing runs there"


HELD = "10.0.0.2"


@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize(
    ("told", "at", "codes"),
    [
        ("", HELD, None),
        ("", "10.0.0.9", ["SHW-706"]),
        ("its own", "10.0.0.9", []),
        ("another", HELD, ["SHW-706"]),
    ],
)
async def test_a_bare_machine_is_no_node_unless_it_is_known_to_have_been_it(  # noqa: PLR0917 - a table
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    told: str,
    at: str,
    codes: list[str] | None,
    ready: bool,  # noqa: FBT001 - a table
) -> None:
    """The file has a new machine's address already: the node's kubelet would run on elsewhere, and be forgotten."""
    answering(monkeypatch, BARE)
    run.seen.surveys["te2"] = cast("Any", SimpleNamespace(machine_id="its own"))
    run.seen.surveys.pop("te2") if not told else None
    its = node("te2", ready=ready)
    its["status"] |= {
        "addresses": [{"type": "InternalIP", "address": at}],
        "nodeInfo": {"machineID": told},
    }
    on_cluster(run, node("te1"), node("te3"), its, ETCD)
    wanted = codes if codes is not None else ["SHW-706"] if ready else []
    assert await removal(run) == wanted
    run.retirement.begun.add("te2")
    assert await removal(run) == [], "it is half reset"
    run.retirement.begun.clear()
    on_cluster(run, node("te1"), node("te3"), ETCD)
    assert await removal(run) == [], "and no node"


async def test_where_the_cluster_is_silent_a_node_is_reset_only_where_a_person_says_that_it_is_gone(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cluster(run)
    seen(run, WORKER, monkeypatch)
    (error,) = await reset_refusals(run, "te2")
    assert error.code == "SHW-711"
    assert "--cluster-gone" in error.fix
    run.retirement.cluster_gone = True
    assert await codes(run) == []
    run.retirement.cluster_gone = False
    seen(run, BARE, monkeypatch)
    assert await codes(run) == [], "a host that holds nothing needs no cluster to be asked"


SERVER = "https://api.te.internal:6443"
ASKS = {KUBECONFIGS: said(f"{KUBELET_CONF}:    server: {SERVER}\n")}
CURL = ("curl", "-sS", "--noproxy", "*", "--max-time", "8", "-o", "/dev/null", "--cacert", "/etc/kubernetes/pki/ca.crt")
ANSWER = Says((*CURL, f"{SERVER}/livez"))


@pytest.mark.parametrize(
    ("answer", "lives"),
    [
        (Output(0, "", ""), True),
        (Output(60, "", "curl: (60) SSL certificate problem: certificate has expired"), True),
        (Output(60, "", "curl: (60) SSL certificate problem: unable to get local issuer certificate"), False),
        (Output(7, "", "curl: (7) Failed to connect"), False),
    ],
)
@pytest.mark.parametrize("bare", [False, True])
async def test_a_cluster_that_answers_the_host_is_not_gone_whatever_a_person_said(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    answer: Output,
    lives: bool,  # noqa: FBT001 - a table
    bare: bool,  # noqa: FBT001
) -> None:
    """Only this machine has lost its way to the control plane; GPU jobs run on."""
    on_cluster(run)
    seen(run, ASKING, monkeypatch, {"te1": Evidence("te1")} if bare else None)
    run.retirement.cluster_gone = not bare
    run.session("te2").facts |= {**ASKS, ANSWER: answer}  # type: ignore[attr-defined]
    found = await reset_refusals(run, "te2")
    assert [(one.code, one.step) for one in found] == ([("SHW-711", allowed.NO_NODE)] if lives else [])
    if lives:
        assert f"{SERVER} answers the host" in found[0].message
        assert "shipway remove" in found[0].fix


async def test_a_host_is_never_asked_to_ask_what_is_no_address(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cluster(run)
    seen(run, WORKER, monkeypatch)
    run.retirement.cluster_gone = True
    host = cast("KnownFacts", run.session("te2"))
    host.facts |= {KUBECONFIGS: said(f"{KUBELET_CONF}:    server: --config\n")}
    assert await codes(run) == []
    assert [fact for fact in host.asked if "curl" in getattr(fact, "command", ())] == []


@pytest.mark.parametrize(
    ("facts", "ends"),
    [
        ({}, "train/llm-0"),  # a host that does not tell more: what its look has seen
        (
            {
                STARTED_PODS: said(
                    "".join(f"1 {name}_0a1b2c3d-0000-4000-8000-00000000000{at}\n" for at, name in PODS_OF)
                )
            },
            "train/llm-0 (claimed devices); default/web",
        ),
        ({STARTED_PODS: said("")}, ""),
    ],
)
async def test_a_reset_without_a_cluster_names_the_pods_that_it_ends(
    run: Run, monkeypatch: pytest.MonkeyPatch, facts: dict[Any, Any], ends: str
) -> None:
    shown = replace(WORKER, running=True, pods=("train/llm-0", "kube-system/kube-proxy-1"))
    answering(monkeypatch, shown)
    seen(run, shown, monkeypatch)
    on_cluster(run)
    run.retirement.cluster_gone = True
    claimed = '{"PodUIDs": {"0a1b2c3d-0000-4000-8000-000000000001": {}}}'
    run.session("te2").facts |= {**facts, CLAIMS: claimed}  # type: ignore[attr-defined]
    await may_reset(run, "may_reset", "te2")
    assert run.retirement.left == ([f"ends pods on te2: {ends}"] if ends else [])
    run.retirement.cluster_gone, run.retirement.left = False, []
    await may_reset(run, "may_reset", "te2")
    assert run.retirement.left == [], "nothing ends, for it is refused"


@pytest.mark.parametrize(
    ("shown", "others", "codes_of"),
    [
        (ASKING, {"te1": Evidence("te1"), "te3": Evidence("te3")}, []),
        (ASKING, {"te1": CONTROL, "te3": Evidence("te3")}, ["SHW-711"]),
        (ASKING, {"te1": Evidence("te1"), "te3": Unreachable("silent")}, ["SHW-711"]),
        (
            replace(ASKING, server="https://10.9.9.9:6443"),
            {"te1": Evidence("te1"), "te3": Evidence("te3")},
            ["SHW-711"],
        ),
        (WORKER, {"te1": Evidence("te1"), "te3": Evidence("te3")}, ["SHW-711"]),
    ],
    ids=["bare", "one is there", "one is silent", "it asks those of another cluster", "nobody knows whom it asks"],
)
async def test_where_the_control_planes_hosts_are_bare_nobody_is_left_to_be_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch, shown: Evidence, others: dict[str, Any], codes_of: list[str]
) -> None:
    """The control plane of a new file is bare as well, and a host that it names by mistake may work for another."""
    third = run.cluster.hosts[0].model_copy(update={"name": "te3", "address": "10.0.0.3"})
    run.cluster = run.cluster.model_copy(update={"hosts": (*run.cluster.hosts, third)})
    on_cluster(run)
    seen(run, shown, monkeypatch, others)
    assert await codes(run) == codes_of
    assert run.retirement.cluster_gone == (not codes_of), "its lock is the host's own then"


async def test_a_reset_that_was_begun_goes_on_where_its_cluster_went_with_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cluster(run)
    run.retirement.begun.add("te1")
    seen(run, Evidence("te1", running=True), monkeypatch)
    assert await codes(run, "te1") == []


async def test_a_control_plane_is_reset_only_as_the_last_of_its_cluster(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(run, CONTROL, monkeypatch)
    on_cluster(run, node("te1"), node("te2"), ETCD)
    assert await codes(run, "te1") == ["SHW-707"]
    other = pod("etcd-te9", "te9", owner="Node", namespace="kube-system", labels=ETCD["metadata"]["labels"])
    on_cluster(run, node("te1"), ETCD, other)
    assert await codes(run, "te1") == ["SHW-707"], "a member of etcd elsewhere"
    on_cluster(run, node("te1"), ETCD, pod("coredns", "te1", namespace="kube-system"))
    assert await codes(run, "te1") == []
    on_cluster(run, node("te1"), ETCD, pod("train", "te1"))
    (error,) = await reset_refusals(run, "te1")
    assert (error.code, "default/train" in error.message) == ("SHW-712", True)


@pytest.mark.parametrize(
    ("other", "gone", "code"),
    [
        (WORKER, False, ["SHW-707"]),
        (WORKER, True, ["SHW-707"]),
        (BARE, False, []),
        (Unreachable("silent"), False, ["SHW-711"]),
        (Unreachable("silent"), True, []),
    ],
)
async def test_a_control_plane_whose_api_is_away_asks_the_other_hosts(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    other: Any,
    gone: bool,  # noqa: FBT001 - a table
    code: list[str],
) -> None:
    on_cluster(run)
    seen(run, CONTROL, monkeypatch, {"te2": other})
    run.retirement.cluster_gone = gone
    assert await codes(run, "te1") == code


async def test_a_plan_names_each_refusal_and_what_passes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(of: Run, host: str) -> None:
        assert host == "te2"
        of.retirement.evidence["te2"] = WORKER

    monkeypatch.setattr(allowed, "look_at", look)
    on_cluster(run, node("te1"), node("te2"))
    results = await may_reset(run, "may_reset", "te2")
    assert [one.outcome for one in results] == ["ok", "ok", "failed", "ok", "ok"]
    assert results[2].error is not None
    assert results[2].error.code == "SHW-702"


async def test_a_refusal_of_reaching_the_cluster_is_named_by_the_look(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names no step, and was lost: a plan said that the host may be reset."""

    async def look(of: Run, _host: str) -> None:
        of.retirement.evidence["te2"] = WORKER

    async def kube() -> Any:
        raise Refused("the control plane's host wants a password for sudo", code="SHW-348")

    monkeypatch.setattr(allowed, "look_at", look)
    run.kube = kube  # type: ignore[method-assign]
    results = await may_reset(run, "may_reset", "te2")
    assert [one.error.code for one in results if one.error] == ["SHW-348"]


async def test_what_forbids_it_is_asked_again_at_the_act(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    host = JoinedHost()
    run.session = lambda _: host  # type: ignore[method-assign, assignment, return-value]
    seen(run, WORKER, monkeypatch)
    on_cluster(run, node("te1"))
    await refuse_reset(run, "te2")
    on_cluster(run, node("te1"), node("te2"))
    with pytest.raises(Refused) as raised:
        await refuse_reset(run, "te2")
    assert raised.value.code == "SHW-702"


def answering(monkeypatch: pytest.MonkeyPatch, evidence: Evidence | ShipwayError) -> Callable[..., Any]:
    """Let the look at a host show this, or end so."""

    async def look(of: Run, _: str) -> ShipwayError | None:
        if isinstance(evidence, Unreachable):
            return evidence
        if isinstance(evidence, ShipwayError):
            raise evidence
        of.retirement.evidence[evidence.host] = evidence
        return None

    monkeypatch.setattr(allowed, "look_at", look)
    return look


async def removal(run: Run) -> list[str]:
    """Return the codes of all that forbids to remove te2."""
    results = await may_remove(run, "may_remove", "te2")
    return [one.error.code for one in results if one.error]


async def test_a_plan_of_a_removal_names_all_that_forbids_it_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, Evidence("te2", certificate=True, authorities=frozenset({"sha256:other"})))
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "values": ["te2"]}]}]
    spec = {"local": {}, "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}
    volume = {"kind": "PersistentVolume", "metadata": meta("pv"), "spec": spec, "status": {"phase": "Bound"}}
    held = pod("bare", "te2", owner="", container={"resources": {"limits": {"nvidia.com/gpu": "1"}}}, labels={"a": "b"})
    budget = {
        "kind": "PodDisruptionBudget",
        "metadata": meta("b", "default"),
        "spec": {"selector": {"matchLabels": {"a": "b"}}},
    }
    on_cluster(run, node("te1", closed=True), node("te2"), ETCD, volume, held, budget)
    assert await removal(run) == ["SHW-706", "SHW-705", "SHW-704", "SHW-337", "SHW-703"]
    run.retirement.evict_gpu_pods = True
    assert "SHW-703" not in await removal(run)


async def test_a_webhook_that_nobody_answers_for_forbids_a_removal_until_its_drain_has_begun(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, WORKER)
    guard = [{"kind": "Namespace", "metadata": meta("guard")}, config(PODS), node("te1"), node("te2"), node("te3")]
    on_cluster(run, *guard, ETCD)
    assert await removal(run) == ["SHW-830"]
    on_cluster(run, *guard, ETCD, ends("te2"))
    assert await removal(run) == []
    assert run.retirement.left[0].startswith("while te2 is drained nobody answers for the webhook guard/")
    note = {"shipway.dev/cordoned-by": '{"why": "removal by Shipway", "since": "now"}'}
    closed = node("te2", closed=True)
    closed["metadata"]["annotations"] = note
    on_cluster(run, *guard[:3], closed, ETCD)
    assert await removal(run) == []


@pytest.mark.parametrize(
    ("shown", "ready", "dead", "code"),
    [
        (WORKER, True, False, []),
        (WORKER, True, True, ["SHW-708", "SHW-709"]),
        (WORKER, False, True, ["SHW-708"]),
        (LoginRefused("no key fits"), False, True, ["SHW-708"]),
        (Unreachable("no route"), True, False, ["SHW-710"]),
        (Unreachable("no route"), True, True, ["SHW-709"]),
        (Unreachable("no route"), False, True, []),
    ],
)
async def test_dead_is_what_both_the_cluster_and_ssh_say(  # noqa: PLR0917 - a table
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    shown: Any,
    ready: bool,  # noqa: FBT001 - a table
    dead: bool,  # noqa: FBT001
    code: list[str],
) -> None:
    answering(monkeypatch, shown)
    run.retirement.dead = dead
    on_cluster(run, node("te1"), node("te2", ready=ready), ETCD)
    assert await removal(run) == code


async def test_a_login_that_is_refused_is_no_dead_host(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, LoginRefused("no key fits"))
    on_cluster(run, node("te1"), node("te2"), ETCD)
    with pytest.raises(LoginRefused):
        await removal(run)


# --- where a host is -----------------------------------------------------------------------------------------------


def at(name: str, address: str) -> dict[str, Any]:
    return node(name) | {"status": {"addresses": [{"type": "InternalIP", "address": address}]}}


async def test_a_node_that_the_file_does_not_name_any_more_is_reached_at_its_own_address(run: Run) -> None:
    on_cluster(run, at("te7", "10.0.0.7"))
    await place_host(run, "te7", "")
    target = run.cluster.target(run.cluster.host("te7"))
    assert (target.address, target.port, target.user) == ("10.0.0.7", 22, "root")
    assert [host.name for host in run.hosts] == ["te7"]
    assert run.control.name == "te1"
    assert not run.retirement.declared


async def test_an_address_that_is_given_is_taken_with_its_port(run: Run) -> None:
    on_cluster(run)
    await place_host(run, "te7", "gpu.example.com:2222")
    target = run.cluster.target(run.cluster.host("te7"))
    assert (target.address, target.port) == ("gpu.example.com", 2222)
    await place_host(run, "te2", "10.0.0.99")
    assert run.cluster.target(run.cluster.host("te2")).address == "10.0.0.99"
    assert run.retirement.declared


@pytest.mark.parametrize(
    ("name", "address"),
    [("te7", ""), ("te7", "10.0.0.7:ssh"), ("te7", "-x"), ("", ""), ("te2", "-x"), ("te2", "a b;c"), ("te2", ":22")],
)
async def test_a_host_that_nobody_knows_is_refused(run: Run, name: str, address: str) -> None:
    on_cluster(run, at("te2", "10.0.0.2"))
    with pytest.raises(Refused) as raised:
        await place_host(run, name, address)
    assert raised.value.code == "SHW-701"


async def test_each_look_at_a_host_is_a_real_one_and_keeps_what_was_seen(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, forgot = JoinedHost(), []
    host.files[allowed.RESETTING] = b"node\n"
    host.forget = lambda: forgot.append(True)  # type: ignore[method-assign]
    run.session = lambda _: host  # type: ignore[method-assign, assignment, return-value]

    async def survey(on: Any) -> Any:
        assert forgot
        return SimpleNamespace(host=on.name, evidence=WORKER)

    monkeypatch.setattr(allowed, "survey", survey)
    assert await allowed.look_at(run, "te2") is None
    assert (run.retirement.evidence, run.retirement.begun) == ({"te2": WORKER}, {"te2"})
    assert set(run.seen.surveys) == set(run.seen.families) == {"te2"}


async def test_a_host_that_does_not_answer_or_was_not_looked_at_is_not_reset(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, Unreachable("no route"))
    with pytest.raises(Unreachable):
        await may_reset(run, "may_reset", "te2")
    with pytest.raises(Refused):
        await reset_refusals(run, "te2")
