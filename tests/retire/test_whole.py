"""The reset of all hosts: what forbids it, what it says would end, and in which order hosts go."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.states import Completed

from flows import reset, retiring, waves
from shipway.errors import LoginRefused, Refused, ShipwayError, Unreachable
from shipway.ownership.evidence import Evidence
from shipway.step import StepResult
from shipway.steps.kubernetes.etcd_members import OWN, health
from tasks.context import Run
from tasks.retire import allowed, whole
from tasks.retire.place import place_all
from tasks.retire.report import retire_report
from tasks.retire.whole import may_reset_all, refuse_reset_of_all
from tasks.retire.work import reset_steps
from tests.places.facts import KnownFacts, said
from tests.retire.joined_host import cluster
from tests.retire.objects import Object, Objects, meta, node, pod
from tests.retire.test_allowed import BARE, CONTROL, ETCD, OURS, WORKER, on_cluster
from tests.retire.test_may_go import Lead

NODES = (node("te1"), node("te2"), ETCD)
THIRD = Evidence("te3", admin=True, etcd=True, static=("etcd.yaml",), certificate=True, authorities=OURS, node="te3")
OTHER = frozenset({"sha256:other"})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Run:
    made = Run(cluster().model_copy(update={"state_dir": str(tmp_path)}), "reset")
    monkeypatch.setattr(whole, "authorities_of", lambda _: OURS)
    monkeypatch.setattr(allowed, "authorities_of", lambda _: OURS)
    made.file = "te.yaml"
    place_all(made, ())
    return made


def with_third(run: Run, role: str = "control_plane") -> None:
    """Let the cluster have a third host."""
    third = run.cluster.hosts[0].model_copy(update={"name": "te3", "address": "10.0.0.3", "roles": (role,)})
    run.cluster = run.cluster.model_copy(update={"hosts": (*run.cluster.hosts, third)})


def showing(monkeypatch: pytest.MonkeyPatch, *shown: Evidence, begun: str = "", **silent: ShipwayError) -> None:
    """Let hosts show this; of others something keeps from looking at them."""
    known = {one.host: one for one in shown}

    async def look(of: Run, host: str) -> ShipwayError | None:
        error = silent.get(host)
        if isinstance(error, Unreachable):
            return error
        if error is not None:
            raise error
        allowed.keep_evidence(of, known[host], begun=host == begun)
        return None

    monkeypatch.setattr(whole, "look_at", look)


async def refusals(run: Run) -> list[tuple[str, str]]:
    """Return the code of each refusal, and whom it names."""
    found = [one.error for one in await results(run) if one.error]
    assert all(one.fix not in ("", Refused.default_fix) for one in found)
    return [(one.code, one.host) for one in found]


async def results(run: Run) -> list[StepResult]:
    return await may_reset_all(run, "may_reset_all", "cluster")


async def test_nodes_of_the_file_may_go_with_their_cluster(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    showing(monkeypatch, CONTROL, WORKER)
    on_cluster(run, *NODES)
    assert await refusals(run) == []
    assert run.retirement.left == []
    assert run.retirement.authorities == OURS


async def test_every_refusal_is_named_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with_third(run, "worker")
    showing(monkeypatch, CONTROL, Evidence("te2", certificate=True, authorities=OTHER), te3=Unreachable("no route"))
    on_cluster(run, *NODES, node("te9"))
    assert await refusals(run) == [("SHW-715", "te3"), ("SHW-706", "te2"), ("SHW-707", "cluster")]


async def test_a_node_or_a_member_of_etcd_that_the_file_does_not_name_forbids_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    showing(monkeypatch, CONTROL, WORKER)
    other = pod("etcd-te9", "te9", owner="Node", namespace="kube-system", labels=ETCD["metadata"]["labels"])
    for more in (node("te9"), other):
        on_cluster(run, *NODES, more)
        (error,) = [one.error for one in await results(run) if one.error]
        assert (error.code, "te9" in error.message, "remove te.yaml te9" in error.fix) == ("SHW-707", True, True)


async def test_a_host_that_is_left_out_must_be_silent_and_a_silent_one_left_out(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cluster(run, *NODES)
    showing(monkeypatch, CONTROL, te2=Unreachable("no route"))
    assert await refusals(run) == [("SHW-715", "te2")]
    place_all(run, ["te2"])
    assert await refusals(run) == []
    showing(monkeypatch, CONTROL, WORKER)
    assert await refusals(run) == [("SHW-716", "te2")]
    showing(monkeypatch, CONTROL, te2=LoginRefused("the key is refused", code="SHW-205"))
    assert await refusals(run) == [("SHW-716", "te2")], "something answers there"


async def test_what_keeps_from_a_look_is_told_as_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cluster(run, *NODES)
    showing(monkeypatch, CONTROL, te2=LoginRefused("the key is refused", code="SHW-205", fix="mend it"))
    assert [code for code, _ in await refusals(run)] == ["SHW-205"]


@pytest.mark.parametrize(
    ("shown", "begun", "codes"),
    [
        ((CONTROL, WORKER), "", ["SHW-711"]),  # it may have nodes that the file does not name
        ((CONTROL, WORKER), "te2", ["SHW-711"]),
        ((CONTROL, WORKER), "te1", []),
        ((CONTROL, BARE), "", []),  # a reset got as far as its last
        ((Evidence("te1"), WORKER), "", ["SHW-711"]),
        ((Evidence("te1"), BARE), "", []),
    ],
)
async def test_where_the_api_is_silent_a_reset_goes_on_that_was_begun_or_a_person_says_that_it_is_gone(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    shown: tuple[Evidence, ...],
    begun: str,
    codes: list[str],
) -> None:
    showing(monkeypatch, *shown, begun=begun)
    on_cluster(run)
    assert [code for code, _ in await refusals(run)] == codes
    run.retirement.cluster_gone = True
    assert await refusals(run) == []


async def test_a_copy_of_the_cluster_is_another_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with_third(run)
    serving = KnownFacts({health(OWN): said('{"health": "true"}')})
    hosts: dict[str, Any] = {"te1": Lead(1), "te3": serving}
    run.session = lambda name: hosts[name]  # type: ignore[method-assign]
    on_cluster(run, *NODES)
    showing(monkeypatch, CONTROL, WORKER, THIRD)
    assert await refusals(run) == [("SHW-706", "te3")]

    async def again(_: Run, __: str) -> Evidence:
        return THIRD

    monkeypatch.setattr(whole, "look_again", again)
    with pytest.raises(Refused) as raised:
        await refuse_reset_of_all(run, "te3")
    assert raised.value.code == "SHW-706"
    run.retirement.begun.add("te3")
    assert await refusals(run) == [], "it is half reset, and has left etcd"
    run.retirement.begun.clear()
    hosts["te3"] = KnownFacts({})
    assert await refusals(run) == [], "its etcd does not serve"
    hosts["te1"], hosts["te3"] = Lead(3), serving
    assert await refusals(run) == [], "it is a member"


async def test_a_last_host_is_no_two(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with_third(run)
    showing(monkeypatch, CONTROL, BARE, THIRD)
    on_cluster(run)
    assert await refusals(run) == [("SHW-711", "cluster")]


async def test_bare_hosts_are_of_no_cluster(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    showing(monkeypatch, Evidence("te1"), BARE)
    on_cluster(run)
    assert await refusals(run) == []
    assert run.retirement.authorities == frozenset()


async def test_a_fault_of_the_program_is_no_answer_of_a_host(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(_: Run, host: str) -> None:
        raise KeyError(host)

    monkeypatch.setattr(whole, "look_at", look)
    on_cluster(run, *NODES)
    with pytest.raises(KeyError):
        await results(run)


async def test_each_look_at_the_api_is_a_real_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    forgot = list[bool]()

    class Remembering(Objects):
        def forget(self) -> None:
            forgot.append(True)

    async def kube() -> Any:
        return Remembering(*NODES)

    async def again(_: Run, __: str) -> Evidence:
        return CONTROL

    run.kube = kube  # type: ignore[method-assign]
    showing(monkeypatch, CONTROL, WORKER)
    await results(run)
    monkeypatch.setattr(whole, "look_again", again)
    await refuse_reset_of_all(run, "te1")
    assert forgot == [True, True]


async def test_a_host_that_is_left_out_may_be_a_node_of_a_cluster_whose_api_is_silent(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    place_all(run, ["te2"])
    showing(monkeypatch, CONTROL, te2=Unreachable("no route"))
    on_cluster(run)
    assert await refusals(run) == [("SHW-711", "cluster")]


async def test_hosts_of_several_clusters_are_left_where_nobody_tells_whose_they_are(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    showing(monkeypatch, CONTROL, Evidence("te2", certificate=True, authorities=OTHER))
    on_cluster(run)
    run.retirement.cluster_gone = True
    assert [code for code, _ in await refusals(run)] == ["SHW-706", "SHW-706"]
    monkeypatch.setattr(whole, "read_authorities", lambda _: OURS)
    assert await refusals(run) == [("SHW-706", "te2")], "this machine knows the cluster"


async def test_another_cluster_than_the_one_that_is_known_by_the_name_is_left(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowed, "read_authorities", lambda _: OTHER)
    showing(monkeypatch, CONTROL, WORKER)
    on_cluster(run, *NODES)
    assert [code for code, _ in await refusals(run)] == ["SHW-706"]


def volume(name: str, phase: str = "Bound") -> Object:
    return {"kind": "PersistentVolume", "metadata": meta(name), "spec": {}, "status": {"phase": phase}}


async def test_what_ends_is_told_beforehand(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    showing(monkeypatch, CONTROL, WORKER)
    train = pod("train", "te2", container={"resources": {"limits": {"nvidia.com/gpu": "2"}}})
    done = pod("done", "te2", container={"resources": {"limits": {"nvidia.com/gpu": "1"}}})
    done["status"]["phase"] = "Succeeded"
    waits, new = pod("waits", "te2"), volume("new")
    del new["status"]
    del waits["spec"]["nodeName"]
    own = [pod("dns", "te1", namespace="kube-system"), pod("each", "te2", owner="DaemonSet")]
    on_cluster(
        run, *NODES, train, done, waits, *own, pod("web", "te1"), volume("data"), volume("free", "Available"), new
    )
    assert await refusals(run) == []
    gpus, others, volumes = run.retirement.left
    assert gpus.startswith("ends a pod that holds GPUs of te2: default/train (nvidia.com/gpu: 2, of ReplicaSet")
    assert others == "ends 1 other pods of users: default/web"
    assert volumes == "1 bound volumes stay where their data are, and no cluster knows them: data"


async def test_where_the_api_is_silent_the_hosts_say_what_runs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    showing(monkeypatch, CONTROL, Evidence("te2", running=True, certificate=True, authorities=OURS, pods=("a/b",)))
    on_cluster(run)
    run.retirement.cluster_gone = True
    monkeypatch.setattr(run, "session", lambda _: KnownFacts({}))
    assert await refusals(run) == []
    assert run.retirement.left == ["ends pods on te2: a/b"]


async def test_what_forbids_it_is_asked_again_at_the_act(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.retirement.authorities = OURS
    now = {"te1": CONTROL, "te2": WORKER}

    async def again(_: Run, host: str) -> Evidence:
        return now[host]

    monkeypatch.setattr(whole, "look_again", again)
    on_cluster(run, *NODES)
    for host in now:
        await refuse_reset_of_all(run, host)
    on_cluster(run, *NODES, node("te9"))
    await refuse_reset_of_all(run, "te2")
    with pytest.raises(Refused) as raised:
        await refuse_reset_of_all(run, "te1")
    assert raised.value.code == "SHW-707"
    on_cluster(run)
    await refuse_reset_of_all(run, "te1")
    now["te2"] = Evidence("te2", certificate=True, authorities=OTHER)
    with pytest.raises(Refused) as raised:
        await refuse_reset_of_all(run, "te2")
    assert raised.value.code == "SHW-706"


def test_a_host_is_reset_by_the_same_steps_as_alone(run: Run) -> None:
    async def still() -> None:
        """Forbid nothing."""

    alone = Run(run.cluster, "reset")
    for one in (run, alone):
        one.retirement.evidence["te2"] = WORKER
    assert reset_steps(run, "te2", still) == reset_steps(alone, "te2", still)


@pytest.mark.parametrize("without", [["te9"], ["te1"]])
def test_who_cannot_be_left_out_is_refused(run: Run, without: list[str]) -> None:
    with pytest.raises(Refused) as raised:
        place_all(run, without)
    assert raised.value.code == "SHW-701"


ORDER = [
    *("may_reset_all cluster", "lock of te3", "reset_host te2", "reset_host te4", "reset_host te1", "reset_host te3"),
    *("preflight te2", "preflight te4", "preflight te1", "preflight te3"),
]


def staged(monkeypatch: pytest.MonkeyPatch, run: Run, fails: str = "") -> list[str]:
    """Let stages of two control planes and two workers, of which te3 leads, be counted; one fails."""
    with_third(run)
    fourth = run.cluster.hosts[1].model_copy(update={"name": "te4"})
    run.cluster, run.lead = run.cluster.model_copy(update={"hosts": (*run.cluster.hosts, fourth)}), "te3"
    ran: list[str] = []

    async def on(stage: str, host: str, *after: Any) -> Any:
        if None in after:
            return None
        ran.append(f"{stage} {host}")
        return None if ran[-1] == fails else Completed()

    async def lease(_: Run, host: str) -> None:
        ran.append(f"lock of {host}")

    for part in (reset, waves, retiring):
        monkeypatch.setattr(part, "on", on, raising=False)
    monkeypatch.setattr(retiring, "lease_or_host", lease)
    return ran


async def test_workers_go_first_and_the_control_plane_that_leads_last(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.folder.mkdir()
    (run.folder / "kubeconfig").write_text("kept")
    ran = staged(monkeypatch, run)
    await reset.clear_all(run)
    assert ran == ORDER
    assert (run.folder / "kubeconfig.before-reset").read_text() == "kept"
    assert [row.name for row in retire_report(run).hosts] == ["te1", "te2", "te3", "te4"]


@pytest.mark.parametrize(
    ("fails", "then"),
    [
        ("may_reset_all cluster", []),
        ("reset_host te2", ["reset_host te4", "preflight te4"]),
        ("reset_host te1", ["preflight te2", "preflight te4"]),
        ("reset_host te3", ["preflight te2", "preflight te4", "preflight te1"]),
    ],
)
async def test_control_planes_stay_while_a_host_before_them_could_not_be_reset(
    run: Run, monkeypatch: pytest.MonkeyPatch, fails: str, then: list[str]
) -> None:
    run.folder.mkdir()
    (run.folder / "kubeconfig").write_text("kept")
    ran = staged(monkeypatch, run, fails)
    await reset.clear_all(run)
    assert ran == [*ORDER[: ORDER.index(fails) + 1], *then]
    assert (run.folder / "kubeconfig").exists()


async def test_a_host_that_is_left_out_is_not_touched_and_the_report_tells(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    place_all(run, ["te2"])
    ran = staged(monkeypatch, run)
    await reset.clear_all(run)
    assert ran == [one for one in ORDER if not one.endswith("te2")]
    assert "keep it off the network until `shipway reset te.yaml te2 --cluster-gone`" in retire_report(run).warnings[0]
