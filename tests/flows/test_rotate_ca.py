"""The order in which a CA is replaced, where a run rests, and how a run that was killed finds where it stands."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from flows import rotate_ca as flow
from flows.cli.rotate_ca import COMMAND
from flows.confirming import confirmed_rotation
from shipway.errors import Permanent, Refused
from shipway.facts.files import FileText
from shipway.ownership.evidence import AUTHORITY
from shipway.stage import StageName
from shipway.step import Drift, Impact, StepResult
from shipway.steps.authority.front_proxy import ExtensionsTold
from shipway.steps.authority.leafs import KubeletClientSigned, LeafsSigned
from shipway.steps.authority.objects import ClusterInfoTrusts, Holder, PartsReadAnew, PodsAreTold, PodsToldSince
from shipway.steps.authority.pair import Pair, who
from shipway.steps.authority.trust import AuthorityTrusted
from shipway.steps.kubernetes.static_pods import StaticPodLoaded
from shipway.steps.vip.kube_vip import VipPodReadAdmin
from tasks import table
from tasks.authority import look, work
from tasks.context import HIGHEST, Run
from tasks.judging import report_of_verb
from tasks.passes.authority import AuthoritySeen
from tasks.stage_result import StageResult, StepRow
from tasks.upgrade import look as upgrade_look
from tests.kubernetes.test_authority import made, pair
from tests.ownership.test_leading import cluster, plane
from tests.places.facts import KnownFacts
from tests.retire.objects import Objects

__all__ = ["made", "pair"]  # fixtures
HOSTS = ("cp1", "cp2", "cp3", "w1")


class Scene:
    """A run whose stages are only kept; `failing` ones end badly."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *failing: str, planes: int = 3) -> None:
        self.run = Run(cluster(planes), "rotate-ca")
        self.run.seen.surveys = {  # type: ignore[assignment]
            host.name: SimpleNamespace(joined=True, gpus=0, notices=(), evidence=plane(host.name, "https://x:6443"))
            for host in self.run.cluster.hosts
        }
        self.failing, self.leased = failing, False
        self.asked: list[str] = []
        monkeypatch.setattr(flow, "on", self.on)
        monkeypatch.setattr("flows.waves.on", self.on)
        monkeypatch.setattr("flows.waves.lease", self.lease)
        monkeypatch.setattr(flow, "disagreement", self.agree)

    async def on(self, stage: StageName, host: str, *before: Any) -> object | None:
        """Keep what was asked for; nothing is built on what failed."""
        if None in before:
            return None
        self.asked.append(f"{stage.value.removeprefix('authority_')} {host}")
        return None if self.asked[-1] in self.failing else object()

    async def lease(self, _: Run) -> None:
        """Take the lock."""
        self.leased = True

    async def agree(self, _: Run) -> list[Any]:
        """The hosts are those of the file."""
        return []


def of(stage: str, *hosts: str) -> list[str]:
    return [f"{stage} {host}" for host in hosts or HOSTS]


TRUST = [*of("made", *HOSTS[:3]), *of("trusted"), "told cluster"]
SIGN = [*of("signs", *HOSTS[:3]), *of("kubelets")]
DROP = ["proof cluster", *of("dropped"), "alone cluster", *of("kept", "cp3", "cp2", "cp1")]


async def test_all_trust_both_then_all_is_signed_anew_then_a_proof_then_the_old_one_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch)
    assert await flow.may_begin(scene.run)
    assert scene.asked == [*of("look"), "possible cluster"]
    assert scene.leased
    scene.asked.clear()
    await flow.rotate(scene.run)
    assert scene.asked == [*TRUST, *SIGN, *DROP]


@pytest.mark.parametrize("last", [*TRUST, *SIGN, *DROP])
async def test_what_does_not_succeed_ends_it(monkeypatch: pytest.MonkeyPatch, last: str) -> None:
    scene = Scene(monkeypatch, last)
    await flow.rotate(scene.run)
    assert scene.asked == [*TRUST, *SIGN, *DROP][: [*TRUST, *SIGN, *DROP].index(last) + 1]


@pytest.mark.parametrize(
    ("until", "stale", "despite", "asked"),
    [
        ("trust", (), False, TRUST),
        ("certificates", (), False, [*TRUST, *SIGN]),
        ("end", ("site/web",), False, TRUST),
        ("end", ("site/web",), True, [*TRUST, *SIGN, *DROP]),
        ("certificates", ("site/web",), True, [*TRUST, *SIGN]),
    ],
)
async def test_it_rests_where_it_is_told_to_and_beside_pods_that_would_be_cut_off(
    monkeypatch: pytest.MonkeyPatch,
    until: Any,
    stale: tuple[str, ...],
    despite: bool,  # noqa: FBT001
    asked: list[str],
) -> None:
    scene = Scene(monkeypatch)
    own = scene.run.authority
    own.until, own.stale, own.despite_pods = until, stale, despite
    await flow.rotate(scene.run)
    assert scene.asked == asked


async def test_a_last_stage_that_was_begun_goes_on_by_its_proof_and_gives_nobody_the_old_one_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch)
    scene.run.authority.dropping, scene.run.authority.source = True, "cp2"
    await flow.rotate(scene.run)
    assert scene.asked == [*of("made", "cp2", "cp1", "cp3"), *DROP]


async def test_a_plan_goes_all_the_way_and_has_nothing_to_prove(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.run.mode = "plan"
    await flow.rotate(scene.run)
    assert scene.asked == [*TRUST, *SIGN, *DROP[1:]]


@pytest.mark.parametrize("failing", ["look w1", "possible cluster"])
async def test_all_is_looked_at_before_the_lock_is_taken(monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    scene = Scene(monkeypatch, failing)
    assert not await flow.may_begin(scene.run)
    assert (len(scene.asked), scene.leased, scene.run.admitted) == (5, False, set())


async def test_without_the_lock_nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)

    async def taken(_: Run) -> Refused:
        return Refused("another run has it", code="SHW-102")

    monkeypatch.setattr("flows.waves.lease", taken)
    assert not await flow.may_begin(scene.run)
    assert [error.code for result in scene.run.results for error in result.errors] == ["SHW-102"]


def test_the_clusters_name_is_asked_for() -> None:
    confirmed_rotation("te", "te")
    for typed in ("", "other"):
        with pytest.raises(Refused) as raised:
            confirmed_rotation("te", typed)
        assert raised.value.code == "SHW-850"


def test_the_command_takes_its_options() -> None:
    words = ["f.yaml", "--plan", "--confirm", "te", "--until", "trust", "--back", "--beside-gpu-pods", "--despite-pods"]
    asked = COMMAND.parser().parse_args([*words, "--report", "r.json", "--quiet"])
    assert (asked.plan, asked.confirm, asked.until, asked.back) == (True, "te", "trust", True)
    assert (asked.beside_gpu_pods, asked.despite_pods, COMMAND.mode(asked)) == (True, True, "plan")
    plain = COMMAND.parser().parse_args(["f.yaml"])
    assert (plain.until, plain.back, COMMAND.mode(plain)) == ("end", False, "rotate-ca")
    assert COMMAND.verb == "rotate-ca"
    assert HIGHEST["rotate-ca"] is Impact.SERVICE  # no step of it may disturb workloads


# --- where it stands


def stand(scene: Scene, pair: Pair, folders: str, **trusted: str) -> None:
    """Let hosts trust `old`, `new`, or both in an order (`old new`); let control planes have the folder of both."""
    text = {"old": pair.old, "new": pair.new}
    for host in scene.run.hosts:
        words = trusted.get(host.name, trusted.get("rest", "old")).split()
        there = host.name in folders.split()
        scene.run.authority.hosts[host.name] = AuthoritySeen(
            tuple(who(text[word]) for word in words),
            "".join(text[word] for word in words),
            pair.old if there else "",
            pair.new if there else "",
            "subject=CN = kubernetes",
        )


@pytest.mark.parametrize(
    ("folders", "trusted", "back", "dropping"),
    [
        ("", {}, False, False),
        ("cp1", {}, False, False),
        ("cp1 cp2 cp3", {"cp1": "old new"}, False, False),
        ("cp1 cp2 cp3", {"rest": "old new", "cp1": "new old"}, False, False),
        ("cp1 cp2 cp3", {"rest": "new old", "cp1": "new"}, False, True),
        ("cp1", {"rest": "new"}, False, True),
        ("cp1", {}, True, True),
        ("cp1 cp2 cp3", {"cp1": "old new"}, True, True),
        ("cp1 cp2 cp3", {"rest": "old new", "cp1": "new old"}, True, False),
        ("cp1 cp2 cp3", {"rest": "old new", "cp3": "old"}, False, False),
    ],
)
def test_where_a_rotation_stands_is_read_from_whom_each_host_trusts(  # noqa: PLR0917 - the table's columns
    monkeypatch: pytest.MonkeyPatch,
    pair: Pair,
    folders: str,
    trusted: dict[str, str],
    back: bool,  # noqa: FBT001
    dropping: bool,  # noqa: FBT001
) -> None:
    scene = Scene(monkeypatch)
    own = scene.run.authority
    own.back = back
    stand(scene, pair, folders, **trusted)
    look.place(scene.run)
    assert own.dropping is dropping
    assert own.source == folders.partition(" ")[0]
    assert own.pair == (Pair(pair.old, pair.new, back) if folders else Pair(pair.old))


@pytest.mark.parametrize(
    ("folders", "trusted", "back", "code"),
    [
        ("", {}, True, "SHW-857"),
        ("cp1 cp2 cp3", {"rest": "new old", "cp1": "new"}, True, "SHW-857"),
        ("", {"w1": "new"}, False, "SHW-853"),
        ("", {"cp1": "old new"}, False, "SHW-853"),
        ("", {"w1": ""}, False, "SHW-853"),
    ],
)
def test_what_is_of_no_rotation_and_a_way_back_that_is_none_are_refused(  # noqa: PLR0917 - the table's columns
    monkeypatch: pytest.MonkeyPatch,
    pair: Pair,
    folders: str,
    trusted: dict[str, str],
    back: bool,  # noqa: FBT001
    code: str,
) -> None:
    scene = Scene(monkeypatch)
    scene.run.authority.back = back
    stand(scene, pair, folders, **trusted)
    with pytest.raises(Refused) as raised:
        look.place(scene.run)
    assert raised.value.code == code


def test_two_rotations_at_once_are_refused(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    scene = Scene(monkeypatch)
    stand(scene, pair, "cp1 cp2")
    scene.run.authority.hosts["cp2"] = AuthoritySeen((who(pair.old),), pair.old, pair.old, pair.old)
    with pytest.raises(Refused, match="two rotations") as raised:
        look.place(scene.run)
    assert raised.value.code == "SHW-853"


def test_a_ca_of_a_rotation_of_the_last_day_is_what_a_second_run_wants() -> None:
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415

    def named(hours: float) -> str:
        return f"subject=CN = kubernetes-ca-{datetime.now(UTC) - timedelta(hours=hours):%Y%m%dT%H%M%SZ}"

    assert look._made(named(1))
    assert [look._made(text) for text in (named(25), "subject=CN = kubernetes", "", "kubernetes-ca-x")] == [""] * 4


# --- what a killed run left at work


@pytest.mark.parametrize(
    ("host", "mode", "waits"), [("cp1", "rotate", True), ("cp1", "plan", False), ("w1", "rotate", False)]
)
async def test_what_a_host_still_does_for_a_killed_run_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    mode: str,
    waits: bool,  # noqa: FBT001
) -> None:
    run, settled = Scene(monkeypatch).run, list[str]()
    if mode == "plan":
        run.allow = Impact.NOTHING

    class Busy(KnownFacts):
        """A host with an operation at work."""

        def forget(self) -> None:
            """Know what is known."""

        async def settled(self, *names: str, seconds: int) -> None:
            """Keep what is waited for."""
            assert seconds > 0
            settled.extend(names)

    async def nothing(*_: Any) -> Any:
        return SimpleNamespace(joined=False)

    monkeypatch.setattr(run, "session", lambda _: Busy({}))
    monkeypatch.setattr(look, "recognise", nothing)
    monkeypatch.setattr(look, "survey", nothing)
    await look.look(run, "authority_look", host)
    assert ("restart-kube-apiserver" in settled, "kubeadm-certs" in settled) == (waits, waits)


@pytest.mark.parametrize("begun", [True, False])
async def test_an_api_that_starts_anew_is_waited_for_where_a_rotation_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
    pair: Pair,
    begun: bool,  # noqa: FBT001
) -> None:
    scene, waited, asked = Scene(monkeypatch), list[str](), list[str]()
    stand(scene, pair, "cp1 cp2 cp3" if begun else "")

    async def wait(_: Run, __: str, check: Any, ___: Any, **____: Any) -> StepResult:
        waited.append(check.name)
        return StepResult(check.name, "ok")

    async def looked(steps: Any, *_: Any) -> list[StepResult]:
        asked.extend(step.name for step in steps)
        return [StepResult(step.name, "ok") for step in steps]

    async def nothing(*_: Any) -> Any:
        return SimpleNamespace(forget=lambda: None)

    monkeypatch.setattr(look, "wait_for", wait)
    monkeypatch.setattr(look, "look_at_all", looked)
    monkeypatch.setattr(look, "find_busy", nothing)
    monkeypatch.setattr(look, "find_left", none_left)
    monkeypatch.setattr(look, "_tell", nothing)
    monkeypatch.setattr(scene.run, "kube", nothing)
    monkeypatch.setattr(scene.run, "session", lambda _: SimpleNamespace(name="cp1"))
    await look.may_rotate(scene.run, "authority_possible", "cluster")
    assert waited == ([API] if begun else [])
    assert ("a verified backup of the last hour is there" in asked) is not begun
    assert "every node of the cluster was reached, and is Ready" in asked


# --- a stage


async def results_of(monkeypatch: pytest.MonkeyPatch, run: Run, host: str, *found: StepResult) -> tuple[Any, list[str]]:
    """Return what trusting on a host gave, and what was waited for."""
    waited: list[str] = []

    async def converged(*_: Any, **__: Any) -> list[StepResult]:
        return list(found)

    async def wait(_: Run, __: str, check: Any, ___: Any, **____: Any) -> StepResult:
        waited.append(f"{check.name} {getattr(check, 'kubelet_since', '')}".strip())
        return StepResult(check.name, "ok")

    async def nothing(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(forget=lambda: None)

    async def kept(*_: Any) -> Any:
        return StepResult("kept", "ok")

    async def reads(_: Any) -> Any:
        return SimpleNamespace(active_since=77)

    monkeypatch.setattr(work, "converge", converged)
    monkeypatch.setattr(work, "wait_for", wait)
    monkeypatch.setattr(work, "new_lease", nothing)
    monkeypatch.setattr(work, "keep_renewed", kept)
    monkeypatch.setattr(run, "kube", nothing)
    monkeypatch.setattr(run, "reconnect", nothing)
    monkeypatch.setattr(run, "session", lambda name: SimpleNamespace(name=name, forget=lambda: None, read=reads))
    return await work.trust(run, "authority_trusted", host), waited


RESTARTED = StepResult(work.ASKS.name, "changed", Impact.SERVICE, restarts="kubelet")


async def none_left(_: Run) -> tuple[str, ...]:
    """Find nothing that an earlier rotation left."""
    return ()


API, ACCEPTS = "the Kubernetes API answers and is ready", "6443 accepts clients of the CA that is wanted"


async def test_a_control_plane_answers_and_accepts_both_before_the_next_one_is_touched(
    monkeypatch: pytest.MonkeyPatch, pair: Pair
) -> None:
    run = Scene(monkeypatch).run
    run.authority.pair = pair
    results, waited = await results_of(monkeypatch, run, "cp1", RESTARTED)
    assert [line for line in waited if line in (API, "the node is Ready 77", ACCEPTS)] == [
        API,
        "the node is Ready 77",
        ACCEPTS,
    ]
    assert "kept" in [one.step for one in results]
    results, waited = await results_of(monkeypatch, run, "w1", RESTARTED)
    assert waited == ["the node is Ready 77"]
    broken = StepResult("x", "failed", error=Permanent("broken"))
    assert (await results_of(monkeypatch, run, "cp2", RESTARTED, broken))[1] == []


async def test_a_plan_foresees_what_a_changed_ca_restarts(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    run = Scene(monkeypatch).run
    run.authority.pair, run.allow = pair, Impact.NOTHING
    changed = StepResult(AuthorityTrusted.name, "drifted", Impact.FILES, Drift("one", "both"))
    rows = [StepResult(StaticPodLoaded(part, "", "", 0).name, "ok") for part in ("kube-apiserver", "kube-scheduler")]
    results, waited = await results_of(monkeypatch, run, "cp1", changed, *rows)
    assert ([one.outcome for one in results], waited) == (["drifted", "drifted", "ok"], [])


def test_the_steps_of_trust_come_in_an_order_that_a_kill_at_any_moment_leaves_right(
    monkeypatch: pytest.MonkeyPatch, pair: Pair
) -> None:
    run = Scene(monkeypatch).run
    run.authority.pair = pair
    names = [step.name for step in work.trust_steps(run, "cp1", pair.both)]
    signs, trusts = "the controller manager signs with the CA that is wanted", AuthorityTrusted.name
    assert names.index(signs) < names.index(trusts) < names.index("kube-apiserver uses its current certificates")
    over = [step.name for step in work.trust_steps(run, "cp1", (pair.new,), over=True)]
    assert over.index(trusts) < over.index(signs)  # with two certificates in its file it would not start
    assert next(step.name for step in work.trust_steps(run, "w1", pair.both)) == trusts
    assert over[-1] == names[-1] == work.ASKS.name


def test_kube_vip_reads_each_new_admin_conf_on_control_planes_once_the_api_server_has_the_ca(
    monkeypatch: pytest.MonkeyPatch, pair: Pair
) -> None:
    run, reads = Scene(monkeypatch).run, VipPodReadAdmin.name
    run.authority.pair = pair
    for vip, there in (("", False), ("{address: 10.9.0.200}", False), ("{address: 10.9.0.200, by: kube-vip}", True)):
        run.cluster = cluster(3, f"kubernetes: {{api_vip: {vip}}}\n" if vip else "")
        for steps in (work.trust_steps(run, "cp1", pair.both), work.leaf_steps(run, "cp1")):
            names = [step.name for step in steps]
            assert (reads in names) is there
            assert not there or names.index("kube-apiserver uses its current certificates") < names.index(reads)
        assert reads not in [step.name for step in work.trust_steps(run, "w1", pair.both)]


def test_what_is_withheld_for_pods_of_others_is_a_part_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Scene(monkeypatch).run
    run.admitted.add("cp1")
    rows = (StepRow(work.PODS_READ, "drifted", "made before: site/web", "restarted"),)
    run.results.append(StageResult("cluster", "authority_told", "drifted", rows))
    assert report_of_verb(run).outcome == "partial"


# --- pods, and the proof


async def told(
    monkeypatch: pytest.MonkeyPatch, scene: Scene, *old: Holder
) -> tuple[list[StepResult], list[str], list[str]]:
    """Return what telling pods gave, which steps were applied in the cluster, and what was waited for."""
    applied: list[str] = []
    waited: list[str] = []

    async def by_api(_: Run, __: str, steps: Any) -> list[StepResult]:
        applied.extend(step.name for step in steps)
        return [StepResult(step.name, "changed") for step in steps]

    async def wait(_: Run, __: str, check: Any, ___: Any, **____: Any) -> StepResult:
        waited.append(check.name)
        return StepResult(check.name, "ok")

    async def kube() -> Any:
        return SimpleNamespace(forget=lambda: None)

    async def holders(_: Any) -> list[Holder]:
        return list(old)

    monkeypatch.setattr(work, "by_api", by_api)
    monkeypatch.setattr(work, "wait_for", wait)
    monkeypatch.setattr(work, "holders_of_old", holders)
    monkeypatch.setattr("shipway.steps.authority.objects.holders_of_old", holders)
    monkeypatch.setattr(scene.run, "kube", kube)
    return await work.spread(scene.run, "authority_told", "cluster"), applied, waited


OURS, THEIRS = Holder("kube-system", "x", "DaemonSet", "kube-proxy"), Holder("site", "y", "Deployment", "web")


async def test_pods_of_ours_are_made_anew_once_all_are_told_and_those_of_others_hold_it_up(
    monkeypatch: pytest.MonkeyPatch, pair: Pair
) -> None:
    scene = Scene(monkeypatch)
    own = scene.run.authority
    stand(scene, pair, "cp1 cp2 cp3", rest="old new")
    own.pair = pair
    results, applied, waited = await told(monkeypatch, scene, OURS, THEIRS, Holder("kube-system", "alone"))
    assert applied == [ClusterInfoTrusts.name, PodsToldSince.name, PartsReadAnew.name]
    assert waited == [
        PodsAreTold.name,
        ExtensionsTold.name,
        "DaemonSet kube-system/kube-proxy runs everywhere it should",
    ]
    assert own.stale == ("kube-system/alone", "site/web")
    assert (results[-1].step, results[-1].outcome) == (work.PODS_READ, "drifted")
    own.despite_pods = True
    results, _, _ = await told(monkeypatch, scene, THEIRS)
    assert results[-1].outcome == "ok"
    rests, goes_on = scene.run.warned
    assert "the run rests" in rests
    assert "will not reach the API: site/web" in goes_on
    own.despite_pods = False
    results, _, _ = await told(monkeypatch, scene, OURS)
    assert (results[-1].outcome, own.stale) == ("ok", ())


@pytest.mark.parametrize("back", [False, True])
async def test_pods_are_made_anew_but_once(monkeypatch: pytest.MonkeyPatch, pair: Pair, back: bool) -> None:  # noqa: FBT001
    scene = Scene(monkeypatch)
    stand(scene, pair, "cp1 cp2 cp3", rest="old new", cp2="old new" if back else "new old")
    scene.run.authority.pair, scene.run.authority.back = pair, back
    _, applied, _ = await told(monkeypatch, scene, OURS, THEIRS)
    assert (applied, scene.run.authority.stale) == ([ClusterInfoTrusts.name], ())


@pytest.mark.parametrize("wrong", ["", "w1", "cluster"])
async def test_the_proof_asks_every_host_and_the_cluster_anew_and_names_what_needs_the_other(
    monkeypatch: pytest.MonkeyPatch, pair: Pair, wrong: str
) -> None:
    scene = Scene(monkeypatch)
    run, asked = scene.run, dict[str, list[str]]()
    run.authority.pair = pair

    async def looked(steps: Any, on: Any) -> list[StepResult]:
        asked[on.name] = [step.name for step in steps]
        bad = StepResult("a certificate", "drifted", drift=Drift("by another", "by the wanted one"))
        return [StepResult("fine", "ok"), *([bad] if on.name == wrong else [])]

    def session(name: str) -> Any:
        return SimpleNamespace(name=name, forget=lambda: None)

    async def kube() -> Any:
        return session("cluster")

    monkeypatch.setattr(run, "kube", kube)
    monkeypatch.setattr(run, "session", session)
    monkeypatch.setattr(work, "look_at_all", looked)
    if wrong:
        with pytest.raises(Permanent, match=f"{wrong}: a certificate: by another") as raised:
            await work.prove(run, "authority_proof", "cluster")
        assert raised.value.code == "SHW-855"
        return
    (result,) = await work.prove(run, "authority_proof", "cluster")
    assert (result.step, result.outcome) == (work.NOTHING_LEFT, "ok")
    shows, signed = "6443 shows a certificate of the CA that is wanted", LeafsSigned.name
    assert {shows, signed, work.ASKS.name, KubeletClientSigned.name} <= set(asked["cp2"])
    assert KubeletClientSigned.name in asked["w1"]
    assert shows not in asked["w1"]
    assert {ClusterInfoTrusts.name, PodsAreTold.name, ExtensionsTold.name} <= set(asked["cluster"])
    run.authority.dropping = True  # what was cut off in the last stage is that stage's to mend
    await work.prove(run, "authority_proof", "cluster")
    assert {shows, signed, KubeletClientSigned.name} <= set(asked["cp2"])
    assert work.ASKS.name not in asked["cp2"]
    assert not [name for name in asked["cp2"] if name.endswith("uses its current certificates")]


# --- what is kept from kubeadm meanwhile


@pytest.mark.parametrize(
    ("rotating", "whole", "code"), [(True, False, "SHW-856"), (True, True, ""), (False, False, "")]
)
async def test_no_control_plane_joins_while_two_cas_are_trusted(
    monkeypatch: pytest.MonkeyPatch,
    pair: Pair,
    rotating: bool,  # noqa: FBT001
    whole: bool,  # noqa: FBT001
    code: str,
) -> None:
    run = Scene(monkeypatch).run
    lead = KnownFacts({FileText(AUTHORITY): pair.old + (pair.new if rotating else "")})
    brought: list[str] = []

    async def bring(*_: Any) -> list[StepResult]:
        brought.append("brought")
        return [StepResult("joined", "failed", error=Permanent("that is enough"))]

    run.seen.surveys["cp2"] = SimpleNamespace(joined=whole, gpus=0, evidence=SimpleNamespace(whole=whole))  # type: ignore[assignment]
    monkeypatch.setattr(run, "session", lambda name: lead if name == "cp1" else SimpleNamespace(forget=lambda: None))
    monkeypatch.setattr(run, "family", lambda _: None)
    monkeypatch.setattr(run, "kube", AsyncMock(return_value=Objects()))
    monkeypatch.setattr(table, "peers_of", lambda *_: ())
    monkeypatch.setattr(table, "kubelet_declared", lambda _: {})
    monkeypatch.setattr(table.join_control_plane, "steps", lambda *_: [])
    monkeypatch.setattr(table, "_bring", bring)

    class Backed:
        def __init__(self, _: Any, what: str) -> None:
            self.what = what

        async def check(self, _: Any) -> None:
            brought.append(self.what)

    monkeypatch.setattr(table, "BackupBefore", Backed)
    if code:
        with pytest.raises(Refused) as raised:
            await table._join_control_plane(run, "join_control_plane", "cp2")
        assert raised.value.code == code
    else:
        await table._join_control_plane(run, "join_control_plane", "cp2")
    asked = [] if code or whole else ["cp2 becomes a member of etcd"]
    assert brought == ([] if code else [*asked, "brought"])
    if not code:
        run.backup.source, brought[:] = "20261129T013000Z", []
        await table._join_control_plane(run, "join_control_plane", "cp2")
        assert brought == ["brought"], "a restore has the backup that it needs"
        run.backup.source, run.retirement.control_plane, brought[:] = "", True, []
        await table._join_control_plane(run, "join_control_plane", "cp2")
        assert brought == ["brought"], "it was asked for when the one before was taken out, which may take an hour"


async def test_an_upgrade_is_refused_while_two_cas_are_trusted(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    run = Scene(monkeypatch).run
    run.upgrade.have, run.upgrade.begun = run.cluster.kubernetes.version, True
    lead = KnownFacts({FileText(AUTHORITY): pair.old + pair.new})
    monkeypatch.setattr(run, "session", lambda _: lead)
    results = await upgrade_look._on_control(run, "upgrade_possible")
    assert "SHW-856" in [one.error.code for one in results if one.error]
