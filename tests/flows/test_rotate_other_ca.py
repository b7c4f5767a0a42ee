"""Rotations of the CAs of etcd and of the front proxy: the order, what is asked first, and what is waited for where."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import rotate_ca as flow
from flows.cli import rotate_ca as cli
from flows.cli.rotate_ca import COMMAND
from shipway.errors import Permanent, Refused
from shipway.facts.commands import Says
from shipway.facts.files import FileText
from shipway.step import Drift, Impact, StepResult
from shipway.steps.authority.etcd import EtcdStacked, KeysRead, MembersHealthy, MembersKnown
from shipway.steps.authority.front_proxy import (
    LOST,
    ExtensionsAnswer,
    ExtensionsAvailable,
    ExtensionsTold,
    FrontProxyTaken,
)
from shipway.steps.authority.leafs import LeafsSigned
from shipway.steps.authority.objects import ClusterInfoTrusts, NoTimeKept, PodsAreTold
from shipway.steps.authority.pair import Pair, SignerIs, said, who
from shipway.steps.authority.possible import KeyThere, NoRotation, NotBesideGpuPods
from shipway.steps.authority.signing import FilesReadByUs, ReadByUs
from shipway.steps.authority.trust import AuthorityTrusted
from shipway.steps.authority.which import CLUSTER_CA, ETCD_CA, FRONT_PROXY, Which
from shipway.steps.kubernetes.kubelet_client import KubeletRotates
from shipway.steps.maintain.pause import EtcdMayStop, QuorumStays
from tasks import gates
from tasks.authority import look, work
from tasks.passes.authority import AuthoritySeen
from tests.flows.test_rotate_ca import Scene, made, none_left, of, pair
from tests.places.facts import KnownFacts

__all__ = ["made", "pair"]  # fixtures
PLANES = ("cp1", "cp2", "cp3")
OTHERS = pytest.mark.parametrize("which", [ETCD_CA, FRONT_PROXY], ids=lambda of: of.word)


def scene_of(monkeypatch: pytest.MonkeyPatch, which: Which, pair: Pair | None = None) -> Scene:
    """Return a run that rotates one of them; with a pair it is under way, and every control plane trusts both."""
    scene = Scene(monkeypatch)
    own = scene.run.authority
    own.of = which
    if pair is not None:
        own.pair, own.source = Pair(pair.old, pair.new, of=which), "cp1"
        for name in PLANES:
            own.hosts[name] = AuthoritySeen((who(pair.old), who(pair.new)), "", pair.old, pair.new)
    return scene


def order(which: Which) -> tuple[list[str], list[str], list[str]]:
    """Return the stages of trust, of what is signed, and of the end: workers have none, etcd's is told to nobody."""
    told, alone = (["told cluster"], ["alone cluster"]) if which is FRONT_PROXY else ([], [])
    trust = [*of("made", *PLANES), *of("trusted", *PLANES), *told]
    ends = ["proof cluster", *of("dropped", *PLANES), *alone, *of("kept", "cp3", "cp2", "cp1")]
    return trust, of("signs", *PLANES), ends


@OTHERS
@pytest.mark.parametrize("until", ["trust", "certificates", "end"])
async def test_control_planes_alone_go_through_the_same_stages_and_rest_at_the_same(
    monkeypatch: pytest.MonkeyPatch, which: Which, until: Any
) -> None:
    scene, (trust, sign, ends) = scene_of(monkeypatch, which), order(which)
    scene.run.authority.until = until
    await flow.rotate(scene.run)
    assert scene.asked == {"trust": trust, "certificates": [*trust, *sign], "end": [*trust, *sign, *ends]}[until]


@OTHERS
async def test_what_does_not_succeed_ends_it(monkeypatch: pytest.MonkeyPatch, which: Which) -> None:
    whole = [one for some in order(which) for one in some]
    for at, last in enumerate(whole):
        scene = scene_of(monkeypatch, which)
        scene.failing = (last,)
        await flow.rotate(scene.run)
        assert scene.asked == whole[: at + 1]


@OTHERS
async def test_a_last_stage_that_was_begun_goes_on_by_its_proof(monkeypatch: pytest.MonkeyPatch, which: Which) -> None:
    scene = scene_of(monkeypatch, which)
    scene.run.authority.dropping, scene.run.authority.source = True, "cp2"
    await flow.rotate(scene.run)
    assert scene.asked == [*of("made", "cp2", "cp1", "cp3"), *order(which)[2]]


def test_the_command_takes_which_ca() -> None:
    assert COMMAND.parser().parse_args(["f.yaml"]).of == "cluster"
    assert COMMAND.parser().parse_args(["f.yaml", "--of", "front-proxy"]).of == "front-proxy"
    with pytest.raises(SystemExit):
        COMMAND.parser().parse_args(["f.yaml", "--of", "sa.key"])


@pytest.mark.parametrize("made_today", [True, False])
async def test_what_an_earlier_rotation_left_is_taken_out_and_no_other_one_begins(
    monkeypatch: pytest.MonkeyPatch,
    pair: Pair,
    made_today: bool,  # noqa: FBT001
) -> None:
    scene, asked = scene_of(monkeypatch, FRONT_PROXY), list[str]()
    own = scene.run.authority
    for name in PLANES:
        subject = f"front-proxy-ca-{datetime.now(UTC):%Y%m%dT%H%M%SZ}" if made_today else "x"
        own.hosts[name] = AuthoritySeen((who(pair.new),), pair.new, subject=subject)

    async def left(*_: Any) -> tuple[str, ...]:
        return (pair.old,)

    async def looked(steps: Any, *_: Any) -> list[StepResult]:
        asked.extend(step.name for step in steps)
        return [StepResult(step.name, "ok") for step in steps]

    async def kube() -> Any:
        return None

    monkeypatch.setattr(look, "find_left", left)
    monkeypatch.setattr(look, "look_at_all", looked)
    monkeypatch.setattr(scene.run, "kube", kube)
    await look.may_rotate(scene.run, "authority_possible", "cluster")
    assert asked == ["the Kubernetes API answers and is ready", "every node of the cluster was reached, and is Ready"]
    assert (own.left, said([who(pair.old)]) in scene.run.warned[0]) == ((pair.old,), True)
    await flow.go(scene.run)
    assert scene.asked == ["alone cluster"]
    stages = Stages(monkeypatch, FRONT_PROXY, pair)
    stages.run.authority.left, stages.run.authority.source = (pair.old,), ""
    stages.run.authority.pair = Pair(pair.new, of=FRONT_PROXY)
    stages.left = (pair.old,)
    await work.unspread(stages.run, "authority_alone", "cluster")
    assert (stages.applied, stages.waited) == ([ExtensionsTold(FRONT_PROXY, (pair.new,), (pair.old,))], [])


async def test_what_an_earlier_rotation_left_goes_with_the_one_that_is_under_way(
    monkeypatch: pytest.MonkeyPatch, pair: Pair, made: Path
) -> None:
    stages, earlier = Stages(monkeypatch, FRONT_PROXY, pair), (made / "by-old.crt").read_text()
    stages.left = (earlier,)
    await work.unspread(stages.run, "authority_alone", "cluster")
    assert stages.applied == [ExtensionsTold(FRONT_PROXY, (pair.new,), (pair.old, earlier))]


async def test_a_ca_of_today_is_as_wanted_and_one_of_yesterday_is_rotated(monkeypatch: pytest.MonkeyPatch) -> None:
    for made_today, asked in (("2026-11-30 10:00 UTC", []), ("", ["made cp1"])):
        scene = Scene(monkeypatch, "made cp1")
        scene.run.authority.made = made_today
        await flow.go(scene.run)
        assert scene.asked == asked


async def test_the_command_hands_on_which_ca_and_the_run_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, loads, given = Scene(monkeypatch), list[Any](), list[Any]()

    @contextlib.asynccontextmanager
    async def running(*_: Any) -> AsyncIterator[Any]:
        yield scene.run

    async def no(_: Any) -> bool:
        return False

    monkeypatch.setattr(flow, "running", running)
    monkeypatch.setattr(flow, "may_begin", no)
    monkeypatch.setattr(flow, "end_by_steps", lambda _: "ended")
    assert await flow.rotate_ca.fn("te.yaml", of="etcd") == "ended"
    assert scene.run.authority.of is ETCD_CA

    async def rotate(*words: Any, **_: Any) -> None:
        given.extend(words)

    monkeypatch.setattr(cli, "fly_verb", lambda *words: loads.append(words[-1]) or 0)
    monkeypatch.setattr(flow, "rotate_ca", rotate)
    cli.run_rotation(COMMAND.parser().parse_args(["te.yaml", "--plan", "--of", "front-proxy"]), None)  # type: ignore[arg-type]
    await loads[0]()("te.yaml", None)
    assert given == ["te.yaml", "", "plan", "end", False, False, False, "front-proxy", False, None]


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"mode": "plan"}, "plan"),
        ({"of": "etcd", "mode": "rotate"}, "etcd"),
        ({"of": "etcd", "mode": "plan"}, "etcd, plan"),
    ],
)
def test_a_run_is_named_by_its_ca(monkeypatch: pytest.MonkeyPatch, parameters: dict[str, str], name: str) -> None:
    monkeypatch.setattr(flow, "flow_run", SimpleNamespace(parameters=parameters))
    monkeypatch.setattr(flow, "run_name", lambda what, mode: f"{what}: {mode}")
    assert flow.rotate_ca_name() == f"rotate-ca of: {name}"


# --- where it stands, and what forbids it


@OTHERS
def test_where_it_stands_is_read_from_control_planes_alone(
    monkeypatch: pytest.MonkeyPatch, pair: Pair, which: Which
) -> None:
    scene = scene_of(monkeypatch, which, pair)
    own = scene.run.authority
    look.place(scene.run)
    assert (own.pair, own.source, own.dropping) == (Pair(pair.old, pair.new, of=which), "cp1", False)
    own.hosts["cp2"] = AuthoritySeen((who(pair.new),), "", pair.old, pair.new)
    look.place(scene.run)
    assert own.dropping
    own.back = True
    with pytest.raises(Refused, match="cp2 trusts the new CA alone") as raised:
        look.place(scene.run)
    assert raised.value.code == "SHW-857"
    for name in PLANES:
        own.hosts[name] = AuthoritySeen((who(pair.old),), pair.old)
    with pytest.raises(Refused, match=f"no rotation of {which.said} is under way"):
        look.place(scene.run)
    own.hosts["cp3"] = AuthoritySeen((who(pair.new),), pair.new)
    own.back = False
    with pytest.raises(Refused, match=which.path) as raised:
        look.place(scene.run)
    assert (raised.value.code, which.said in raised.value.message) == ("SHW-853", True)


@OTHERS
async def test_its_own_files_are_looked_at_and_on_workers_none(
    monkeypatch: pytest.MonkeyPatch, pair: Pair, which: Which
) -> None:
    run, asked = scene_of(monkeypatch, which).run, dict[str, list[type]]()
    name = Says(("openssl", "x509", "-noout", "-subject", "-in", which.path))
    texts = {FileText(which.path): pair.old + pair.new, FileText(f"{which.folder}/old.crt"): pair.old}
    texts[FileText(f"{which.folder}/new.crt")] = pair.new

    class Quiet(KnownFacts):
        """A host that does nothing for a killed run."""

        def forget(self) -> None:
            """Know what is known."""

        async def settled(self, *_: str, **__: int) -> None:
            """Wait for nothing."""

    async def joined(*_: Any) -> Any:
        return SimpleNamespace(joined=True)

    async def looked(steps: Any, on: Any) -> list[StepResult]:
        asked[on.name] = [type(step) for step in steps]
        return []

    def session(host: str) -> Any:
        there = Quiet({**texts, name: SimpleNamespace(stdout="subject=CN = x\n")})
        there.name = host
        return there

    monkeypatch.setattr(run, "session", session)
    monkeypatch.setattr(look, "recognise", joined)
    monkeypatch.setattr(look, "survey", joined)
    monkeypatch.setattr(look, "look_at_all", looked)
    for host in ("cp1", "w1"):
        await look.look(run, "authority_look", host)
    seen = run.authority.hosts["cp1"]
    assert (seen.trusted, seen.old, seen.new) == ((who(pair.old), who(pair.new)), pair.old, pair.new)
    assert "w1" not in run.authority.hosts
    assert {FilesReadByUs, KeyThere, NoRotation} <= set(asked["cp1"])
    assert (EtcdStacked in asked["cp1"]) is (which is ETCD_CA)
    for host in ("cp1", "w1"):
        assert not {ReadByUs, KubeletRotates} & set(asked[host])
    assert not {FilesReadByUs, KeyThere, NoRotation, EtcdStacked} & set(asked["w1"])


@OTHERS
@pytest.mark.parametrize("begun", [True, False])
async def test_what_is_asked_before_anything_is_changed(
    monkeypatch: pytest.MonkeyPatch,
    pair: Pair,
    which: Which,
    begun: bool,  # noqa: FBT001
) -> None:
    scene, asked = scene_of(monkeypatch, which, pair), list[Any]()
    if not begun:
        for name in PLANES:
            scene.run.authority.hosts[name] = AuthoritySeen((who(pair.old),), pair.old)
        scene.run.authority.source = ""

    async def looked(steps: Any, *_: Any) -> list[StepResult]:
        asked.extend(steps)
        return [StepResult(step.name, "ok") for step in steps]

    async def nothing(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(forget=lambda: None)

    async def mounting(_: Any, path: str) -> list[str]:
        assert path == which.path
        return ["site/watcher"]

    async def waited(_: Any, __: str, check: Any, ___: Any, **____: Any) -> StepResult:
        return StepResult(check.name, "ok")

    monkeypatch.setattr(look, "look_at_all", looked)
    monkeypatch.setattr(look, "wait_for", waited)
    monkeypatch.setattr(look, "readers_of_files", mounting)
    monkeypatch.setattr(look, "find_left", none_left)
    monkeypatch.setattr(scene.run, "kube", nothing)
    monkeypatch.setattr(scene.run, "session", lambda name: SimpleNamespace(name=name))
    results = await look.may_rotate(scene.run, "authority_possible", "cluster")
    assert [one.error for one in results if one.error] == []
    kinds = [type(one) for one in asked]
    assert NotBesideGpuPods not in kinds  # no kubelet is restarted
    assert (ExtensionsAvailable in kinds) is (which is FRONT_PROXY and not begun)
    assert (FrontProxyTaken in kinds) is (which is FRONT_PROXY and not begun)
    assert (QuorumStays in kinds) is (which is ETCD_CA and not begun)
    assert ("a verified backup of the last hour is there" in [one.name for one in asked]) is not begun
    known = [one for one in asked if isinstance(one, MembersKnown)]
    assert [one.names for one in known] == ([[*PLANES]] if which is ETCD_CA else [])
    assert any("site/watcher" in said for said in scene.run.warned) is not begun


# --- a stage


class Stages:
    """A run whose hosts are converged to what is said, and whose waits are kept; some of them in vain."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, which: Which, pair: Pair, *failing: type) -> None:
        self.run = scene_of(monkeypatch, which, pair).run
        self.converged: list[Any] = []
        self.waited: list[Any] = []
        self.applied: list[Any] = []
        self.failing = failing
        self.left: tuple[str, ...] = ()
        for name in ("converge", "wait_for", "by_api"):
            monkeypatch.setattr(work, name, getattr(self, name))
        kept = StepResult("kept", "ok")
        monkeypatch.setattr(work, "find_left", self.find_left)
        for name, value in (("new_lease", None), ("keep_renewed", kept), ("list_extensions", [SERVICE])):
            monkeypatch.setattr(work, name, self.returning(value))
        monkeypatch.setattr(self.run, "kube", self.returning(SimpleNamespace(forget=lambda: None, name="cluster")))
        monkeypatch.setattr(self.run, "reconnect", self.returning(None))
        monkeypatch.setattr(self.run, "session", lambda name: SimpleNamespace(name=name, forget=lambda: None))

    async def find_left(self, _: Any) -> tuple[str, ...]:
        """Return what an earlier rotation left."""
        return self.left

    def returning(self, value: Any) -> Any:
        """Return a function that returns a value."""

        async def one(*_: Any, **__: Any) -> Any:
            return value

        return one

    async def converge(self, steps: Any, *_: Any, **__: Any) -> list[StepResult]:
        """Keep the steps; each is changed."""
        self.converged.extend(steps)
        return [StepResult(step.name, "changed") for step in steps]

    async def by_api(self, _: Any, __: str, steps: Any, *___: Any) -> list[StepResult]:
        """Keep what is changed in the cluster."""
        self.applied.extend(steps)
        return [StepResult(step.name, "changed") for step in steps]

    async def wait_for(self, _: Any, __: str, check: Any, ___: Any, **____: Any) -> StepResult:
        """Keep what is waited for."""
        self.waited.append(check)
        bad = type(check) in self.failing
        return StepResult(check.name, "failed" if bad else "ok", error=Permanent("no answer") if bad else None)

    @property
    def names(self) -> list[str]:
        """What was waited for, by class and port."""
        return [f"{type(one).__name__} {getattr(one, 'port', '')}".strip() for one in self.waited]


SERVICE = {"metadata": {"name": "v1.x"}, "spec": {"group": "x", "version": "v1", "service": {}}}
UP = ["ApiAnswers", "EtcdHealthy"]
WHOLE = [*UP, "MembersHealthy"]


@pytest.mark.parametrize(
    ("which", "stage", "names"),
    [
        (ETCD_CA, "trust", [*WHOLE, "ClientsAccepted 2379", "ClientsAccepted 2380"]),
        (ETCD_CA, "sign", [*WHOLE, "Serves 2379", "Serves 2380", "MembersHealthy", "KeysRead"]),
        (ETCD_CA, "drop", [*WHOLE, "ClientsAccepted 2379", "ClientsAccepted 2380", "MembersHealthy", "KeysRead"]),
        (FRONT_PROXY, "trust", [*UP, "ClientsAccepted 6443"]),
        (FRONT_PROXY, "sign", [*UP, "FrontProxyTaken", "ExtensionsAnswer"]),
        (FRONT_PROXY, "drop", [*UP, "ClientsAccepted 6443", "FrontProxyTaken", "ExtensionsAnswer"]),
    ],
)
async def test_each_control_plane_is_proven_before_the_next_one_is_touched(
    monkeypatch: pytest.MonkeyPatch, pair: Pair, which: Which, stage: str, names: list[str]
) -> None:
    stages = Stages(monkeypatch, which, pair)
    results = await getattr(work, stage)(stages.run, "authority", "cp2")
    assert stages.names == names
    assert not [one for one in results if one.outcome == "failed"]
    for check in stages.waited:
        if stage == "drop" and type(check).__name__ == "ClientsAccepted":
            assert (check.yes, check.no) == ((pair.new,), (pair.old,))
        if type(check).__name__ == "ClientsAccepted" and stage == "trust":
            assert (set(check.yes), check.no) == ({pair.old, pair.new}, ())
        if isinstance(check, ExtensionsAnswer):
            assert check.paths == ("/apis/x/v1",)
        if type(check).__name__ == "Serves":
            assert (check.authority, check.asks) == (pair.new, True)
    stages.run.allow = Impact.NOTHING
    stages.waited.clear()
    await getattr(work, stage)(stages.run, "authority", "cp2")
    assert stages.waited == []


@OTHERS
@pytest.mark.parametrize("stage", ["trust", "sign", "drop"])
async def test_files_come_first_then_what_reads_them_and_etcd_is_asked_right_before_its_member(
    monkeypatch: pytest.MonkeyPatch, pair: Pair, which: Which, stage: str
) -> None:
    stages = Stages(monkeypatch, which, pair)
    await getattr(work, stage)(stages.run, "authority", "cp2")
    kinds = [type(one) for one in stages.converged]
    files = [SignerIs, LeafsSigned] if stage == "sign" else [AuthorityTrusted]
    asks = [EtcdMayStop] if which is ETCD_CA else []
    loads = [one for one in stages.converged if type(one).__name__ == "StaticPodLoaded"]
    assert kinds[3:] == [*files, *asks, *(type(one) for one in loads)]
    assert [(one.part, one.also) for one in loads] == [(part, (which.path,)) for part in which.readers]
    if which is ETCD_CA:
        (may,) = (one for one in stages.converged if isinstance(one, EtcdMayStop))
        assert may.because == (stages.converged[3 + len(files) - 1], loads[0])
    for one in stages.converged:
        if isinstance(one, AuthorityTrusted):
            assert one.of is which
            assert set(one.trusted) == ({pair.new} if stage == "drop" else {pair.old, pair.new})


async def test_a_member_that_is_not_healthy_ends_it_before_the_next_one(
    monkeypatch: pytest.MonkeyPatch, pair: Pair
) -> None:
    stages = Stages(monkeypatch, ETCD_CA, pair, MembersHealthy)
    results = await work.trust(stages.run, "authority_trusted", "cp1")
    assert [one.step for one in results if one.outcome == "failed"] == [MembersHealthy().name]
    assert "ClientsAccepted 2379" not in stages.names


@pytest.mark.parametrize("stage", ["sign", "drop"])
async def test_an_aggregated_api_that_is_lost_ends_it_and_is_told(
    monkeypatch: pytest.MonkeyPatch, pair: Pair, stage: str
) -> None:
    stages = Stages(monkeypatch, FRONT_PROXY, pair, ExtensionsAnswer)
    results = await getattr(work, stage)(stages.run, "authority", "cp1")
    assert results[-1].outcome == "failed"
    (said,) = stages.run.warned
    assert "cp1" in said
    assert LOST in said
    assert "--back" in LOST
    stages = Stages(monkeypatch, FRONT_PROXY, pair, FrontProxyTaken)
    await getattr(work, stage)(stages.run, "authority", "cp1")
    assert "ExtensionsAnswer" not in stages.names


async def test_aggregated_servers_are_told_of_both_then_of_one_and_must_be_available(
    monkeypatch: pytest.MonkeyPatch, pair: Pair
) -> None:
    stages = Stages(monkeypatch, FRONT_PROXY, pair)
    await work.spread(stages.run, "authority_told", "cluster")
    assert (stages.applied, stages.waited) == ([], [ExtensionsTold(FRONT_PROXY, pair.both)])
    stages.waited.clear()
    results = await work.unspread(stages.run, "authority_alone", "cluster")
    assert stages.applied == [ExtensionsTold(FRONT_PROXY, (pair.new,), (pair.old,))]
    assert stages.waited[-1] == gates.AggregatedApisAvailable()
    assert results[-1].outcome == "ok"
    stages = Stages(monkeypatch, FRONT_PROXY, pair, gates.AggregatedApisAvailable)
    results = await work.unspread(stages.run, "authority_alone", "cluster")
    assert (results[-1].outcome, [LOST in said for said in stages.run.warned]) == ("failed", [True])
    stages = Stages(monkeypatch, FRONT_PROXY, pair, ExtensionsTold)
    await work.unspread(stages.run, "authority_alone", "cluster")
    assert stages.applied == []


async def test_of_the_clusters_own_the_old_one_is_taken_from_aggregated_servers_as_well(
    monkeypatch: pytest.MonkeyPatch, pair: Pair
) -> None:
    stages = Stages(monkeypatch, CLUSTER_CA, pair)
    await work.unspread(stages.run, "authority_alone", "cluster")
    told = ExtensionsTold(CLUSTER_CA, (pair.new,), (pair.old,))
    assert stages.applied == [ClusterInfoTrusts((pair.new,)), told, NoTimeKept()]
    assert stages.waited == [PodsAreTold((pair.new,)), ExtensionsTold(CLUSTER_CA, (pair.new,))]


@pytest.mark.parametrize("wrong", ["", "cp3"])
@OTHERS
async def test_the_proof_asks_every_control_plane_anew(
    monkeypatch: pytest.MonkeyPatch, pair: Pair, which: Which, wrong: str
) -> None:
    stages, asked = Stages(monkeypatch, which, pair), dict[str, list[Any]]()

    async def looked(steps: Any, on: Any) -> list[StepResult]:
        asked[on.name] = list(steps)
        bad = StepResult("a certificate", "drifted", drift=Drift("by another", "by the wanted one"))
        return [bad] if on.name == wrong else []

    monkeypatch.setattr(work, "look_at_all", looked)
    if wrong:
        with pytest.raises(Permanent, match="cp3: a certificate: by another") as raised:
            await work.prove(stages.run, "authority_proof", "cluster")
        assert raised.value.code == "SHW-855"
        return
    (result,) = await work.prove(stages.run, "authority_proof", "cluster")
    assert (result.step, result.outcome) == (work.NOTHING_LEFT, "ok")
    assert set(asked) == {*PLANES, "cluster"}  # workers know nothing of it
    works = {MembersHealthy, KeysRead} if which is ETCD_CA else {FrontProxyTaken, ExtensionsAnswer}
    assert {AuthorityTrusted, LeafsSigned, *works} <= {type(one) for one in asked["cp2"]}
    ports = [one.port for one in asked["cp2"] if type(one).__name__ == "Serves"]
    assert ports == ([2379, 2380] if which is ETCD_CA else [])
    loads = [one.part for one in asked["cp2"] if type(one).__name__ == "StaticPodLoaded"]
    assert loads == list(which.readers)
    assert asked["cluster"] == ([ExtensionsTold(which, (pair.new,))] if which is FRONT_PROXY else [])
    stages.run.authority.dropping = True
    await work.prove(stages.run, "authority_proof", "cluster")
    assert "StaticPodLoaded" not in [type(one).__name__ for one in asked["cp2"]]


async def test_no_proof_without_the_aggregated_apis(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    stages = Stages(monkeypatch, FRONT_PROXY, pair, gates.AggregatedApisAvailable)
    (result,) = await work.prove(stages.run, "authority_proof", "cluster")
    assert (result.outcome, LOST in stages.run.warned[0]) == ("failed", True)


@OTHERS
def test_a_plan_foresees_what_is_started_anew(which: Which) -> None:
    loads = [work.loaded(part) for part in which.readers]
    for first in (AuthorityTrusted.name, LeafsSigned.name):
        rows = [StepResult(first, "drifted", drift=Drift("one", "both")), *(StepResult(one, "ok") for one in loads)]
        assert [one.outcome for one in work._foreseen(rows)] == ["drifted"] * (1 + len(loads))


@OTHERS
async def test_the_pair_is_made_in_its_own_folder_and_kept_from_there(
    monkeypatch: pytest.MonkeyPatch, pair: Pair, which: Which
) -> None:
    stages = Stages(monkeypatch, which, pair)
    own = stages.run.authority
    own.source, own.pair = "", Pair(pair.old, of=which)

    class Made(KnownFacts):
        """A host that has both."""

        def forget(self) -> None:
            """Know what is known."""

    both = {FileText(f"{which.folder}/{role}.crt"): getattr(pair, role) for role in ("old", "new")}
    monkeypatch.setattr(stages.run, "session", lambda _: Made(both))
    await work.make(stages.run, "authority_made", "cp2")
    assert stages.converged[0].of is which
    assert (own.source, own.pair) == ("cp2", Pair(pair.old, pair.new, of=which))
    stages.converged.clear()
    await work.end(stages.run, "authority_kept", "cp2")
    assert stages.converged[0].of is which
