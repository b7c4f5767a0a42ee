"""A rotation of the key that signs tokens: the order, what holds it, and what proves each control plane."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from flows import rotate_ca as flow
from flows.cli.rotate_ca import COMMAND
from shipway.errors import Permanent, Refused
from shipway.facts.files import FileText
from shipway.redact import redact
from shipway.step import Drift, Impact, StepResult
from shipway.steps.authority.leafs import LeafsSigned
from shipway.steps.authority.objects import NoTimeKept, PartsReadAnew, PodsToldSince, SigningChanges
from shipway.steps.authority.pair import Pair, PairKept, PairThere, SignerIs, paired, who
from shipway.steps.authority.possible import KeyThere, NoRotation
from shipway.steps.authority.signing import ReadByUs
from shipway.steps.authority.token_secrets import OwnTokensSigned, Waiting
from shipway.steps.authority.tokens import KeysPublished, TokenSigned, TokensSignedByUs, TokensTaken
from shipway.steps.authority.trust import AuthorityTrusted
from shipway.steps.authority.which import SERVICE_ACCOUNTS
from shipway.steps.kubernetes.nodes import NodesReady
from tasks.authority import look, work
from tasks.passes.authority import AuthoritySeen
from tests.flows.test_rotate_ca import of
from tests.flows.test_rotate_other_ca import PLANES, UP, Stages, scene_of
from tests.kubernetes.test_tokens import pair, pki
from tests.places.facts import KnownFacts, said

__all__ = ["pair", "pki"]  # fixtures
OF = SERVICE_ACCOUNTS
TRUST = [*of("made", *PLANES), *of("trusted", *PLANES)]
SIGN = [*of("signs", *PLANES), "told cluster"]
END = ["proof cluster", *of("dropped", *PLANES), "alone cluster", *of("kept", "cp3", "cp2", "cp1")]


# --- the order


@pytest.mark.parametrize(
    ("until", "stale", "asked"),
    [
        ("trust", (), TRUST),
        ("certificates", (), [*TRUST, *SIGN]),
        ("end", (), [*TRUST, *SIGN, *END]),
        ("end", ("site/default-token",), [*TRUST, *SIGN]),
        ("certificates", ("site/default-token",), [*TRUST, *SIGN]),
    ],
)
async def test_tokens_are_signed_anew_once_all_sign_and_what_is_left_holds_the_end(
    monkeypatch: pytest.MonkeyPatch, until: Any, stale: tuple[str, ...], asked: list[str]
) -> None:
    scene = scene_of(monkeypatch, OF)
    scene.run.authority.until, scene.run.authority.stale = until, stale
    await flow.rotate(scene.run)
    assert scene.asked == asked


async def test_what_does_not_succeed_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [*TRUST, *SIGN, *END]
    for at, last in enumerate(whole):
        scene = scene_of(monkeypatch, OF)
        scene.failing = (last,)
        await flow.rotate(scene.run)
        assert scene.asked == whole[: at + 1]


async def test_a_plan_goes_all_the_way_and_a_last_stage_that_was_begun_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_of(monkeypatch, OF)
    scene.run.mode = "plan"
    await flow.rotate(scene.run)
    assert scene.asked == [*TRUST, *SIGN, *END[1:]]
    scene = scene_of(monkeypatch, OF)
    scene.run.authority.dropping, scene.run.authority.source = True, "cp2"
    await flow.rotate(scene.run)
    assert scene.asked == [*of("made", "cp2", "cp1", "cp3"), *END]


def test_the_command_takes_it_and_its_word() -> None:
    asked = COMMAND.parser().parse_args(["f.yaml", "--of", "service-accounts", "--despite-tokens"])
    assert (asked.of, asked.despite_tokens) == ("service-accounts", True)
    assert not COMMAND.parser().parse_args(["f.yaml"]).despite_tokens


# --- where it stands, and what forbids it


def test_where_it_stands_is_read_from_sa_pub(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    scene = scene_of(monkeypatch, OF, pair)
    own = scene.run.authority
    look.place(scene.run)
    assert (own.pair, own.source, own.dropping) == (pair, "cp1", False)
    own.hosts["cp2"] = AuthoritySeen((who(pair.new),), "", pair.old, pair.new)
    look.place(scene.run)
    assert own.dropping
    own.back = True
    with pytest.raises(Refused, match="cp2 trusts the new key alone") as raised:
        look.place(scene.run)
    assert raised.value.code == "SHW-857"
    own.back = False
    own.hosts["cp3"] = AuthoritySeen((who(pair.old),), "", pair.old, pair.old)
    with pytest.raises(Refused, match="another pair of keys"):
        look.place(scene.run)
    for name in PLANES:
        own.hosts[name] = AuthoritySeen((who(pair.old), who(pair.new)), pair.old + pair.new)
    with pytest.raises(Refused, match=f"{OF.said} is") as raised:  # somebody's own rotation
        look.place(scene.run)
    assert raised.value.code == "SHW-853"
    brought = f"/etc/kubernetes/before-renewal-sa-{datetime.now(UTC) - timedelta(hours=1):%Y%m%dT%H%M%SZ}\n"
    assert look._made(brought, OF)
    assert look._made("", OF) == ""


async def test_what_is_looked_at_on_a_control_plane_and_asked_of_it(
    monkeypatch: pytest.MonkeyPatch, pair: Pair
) -> None:
    run = scene_of(monkeypatch, OF, pair).run
    kinds = [type(one) for one in look._forbidding(OF, control=True)]
    assert {TokensSignedByUs, KeyThere, NoRotation} <= set(kinds)
    assert ReadByUs not in kinds
    assert [type(one).__name__ for one in look._forbidding(OF, control=False)] == ["ClockRight"]
    assert look._on_control(run) == []
    run.authority.source = ""
    asked = look._on_control(run)
    assert [type(one) for one in asked[1:]] == [KeysPublished, TokenSigned]
    assert asked[1:] == [KeysPublished((pair.old,), look.server_of(run, "cp1")), TokenSigned(pair.old, asked[2].server)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("minutes", "told"), [(30, True), (-1, False)])
async def test_a_plan_names_what_will_hold_it(
    monkeypatch: pytest.MonkeyPatch,
    pair: Pair,
    minutes: int,
    told: bool,  # noqa: FBT001
) -> None:
    run = scene_of(monkeypatch, OF, pair).run
    keep(monkeypatch, look, ["site/long"], Waiting(("site/web",), datetime.now(UTC) + timedelta(minutes=minutes)))
    await look._tell(run, None)  # type: ignore[arg-type]
    assert "site/long" in run.warned[0]
    assert any("tokens of 1 pods" in said for said in run.warned) is told


def keep(monkeypatch: pytest.MonkeyPatch, module: Any, tokens: list[str], waiting: Waiting | None) -> None:
    """Let a cluster keep these tokens of the other key, and pods that wait for theirs."""

    async def others(_: Any, __: Any, spaces: frozenset[str]) -> list[str]:
        assert {"kube-system", "kube-public", "kube-node-lease"} <= spaces
        return tokens

    async def find(*_: Any) -> Waiting | None:
        return waiting

    monkeypatch.setattr(module, "tokens_of_others", others)
    monkeypatch.setattr(module, "find_waiting", find)


# --- a stage


class Tokens(Stages):
    """A run on control planes whose sa.pub holds both, the old one first, in a cluster with these objects."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pair: Pair, *failing: type, first: str = "old") -> None:
        super().__init__(monkeypatch, OF, pair, *failing)
        self.mark: Any = None
        both = pair.old + pair.new if first == "old" else pair.new + pair.old

        facts = {FileText(OF.path): both, paired(OF.path, OF.key): said("")}

        class Plane(KnownFacts):
            """A control plane."""

            def forget(self) -> None:
                """Know what is known."""

        async def get(*_: Any) -> Any:
            return self.mark

        async def none(*_: Any) -> list[Any]:
            return []

        kube = SimpleNamespace(forget=lambda: None, name="cluster", get=get)
        monkeypatch.setattr(self.run, "session", lambda _: Plane(facts))
        monkeypatch.setattr(self.run, "kube", self.returning(kube))
        monkeypatch.setattr(PartsReadAnew, "workloads", none)


@pytest.mark.parametrize(
    ("stage", "names"),
    [
        ("trust", [*UP, "KeysPublished", "TokensTaken"]),
        ("sign", [*UP, "KeysPublished", "TokenSigned", "TokensTaken"]),
        ("drop", [*UP, "KeysPublished", "TokenSigned", "TokensTaken"]),
    ],
)
async def test_each_control_plane_is_proven_before_the_next_one_is_touched(
    monkeypatch: pytest.MonkeyPatch, pair: Pair, stage: str, names: list[str]
) -> None:
    stages = Tokens(monkeypatch, pair)
    results = await getattr(work, stage)(stages.run, "authority", "cp2")
    assert stages.names == names
    assert not [one for one in results if one.outcome == "failed"]
    server = look.server_of(stages.run, "cp2")
    keys = {type(one): one for one in stages.waited}
    assert set(keys[KeysPublished].keys) == ({pair.new} if stage == "drop" else {pair.old, pair.new})
    assert keys[TokensTaken] == TokensTaken(pair, server, refused=stage == "drop")
    if stage != "trust":
        assert keys[TokenSigned] == TokenSigned(pair.new, server)
    stages.run.allow = Impact.NOTHING
    stages.waited.clear()
    await getattr(work, stage)(stages.run, "authority", "cp2")
    assert stages.waited == []


@pytest.mark.parametrize("stage", ["trust", "sign", "drop"])
async def test_files_come_first_then_what_reads_them(monkeypatch: pytest.MonkeyPatch, pair: Pair, stage: str) -> None:
    stages = Tokens(monkeypatch, pair)
    await getattr(work, stage)(stages.run, "authority", "cp2")
    names = [type(one).__name__ for one in stages.converged][3:]
    assert names == [("SignerIs" if stage == "sign" else "AuthorityTrusted"), "StaticPodLoaded", "StaticPodLoaded"]
    api, manager = stages.converged[-2:]
    assert (api.part, api.also) == ("kube-apiserver", (OF.path, OF.key))
    assert (manager.part, manager.also) == ("kube-controller-manager", (OF.path, OF.key))
    assert "CA" not in stages.converged[3].name
    if stage != "sign":
        assert stages.converged[3].of is OF


@pytest.mark.parametrize(("first", "kept"), [("old", True), ("new", False)])
async def test_that_another_key_signs_is_kept_before_the_control_plane_changes_over(
    monkeypatch: pytest.MonkeyPatch,
    pair: Pair,
    first: str,
    kept: bool,  # noqa: FBT001
) -> None:
    stages = Tokens(monkeypatch, pair, first=first)
    await work.sign(stages.run, "authority_signs", "cp1")
    assert stages.applied == ([SigningChanges()] if kept else [])

    async def fails(*_: Any) -> list[StepResult]:
        return [StepResult("kept", "failed", error=Permanent("no API"))]

    stages.converged.clear()
    monkeypatch.setattr(work, "by_api", fails)
    await work.sign(stages.run, "authority_signs", "cp1")
    assert (stages.converged == []) is kept


async def tell(
    monkeypatch: pytest.MonkeyPatch, stages: Tokens, tokens: list[str], waiting: Waiting | None
) -> dict[str, StepResult]:
    keep(monkeypatch, work, tokens, waiting)
    results = await work.spread(stages.run, "authority_told", "cluster")
    return {one.step: one for one in results}


async def test_ours_are_signed_anew_by_us_and_those_of_others_hold_it_by_name(
    monkeypatch: pytest.MonkeyPatch, pair: Pair
) -> None:
    stages = Tokens(monkeypatch, pair)
    own = stages.run.authority
    results = await tell(monkeypatch, stages, ["site/default-token"], None)
    signed, told, parts = stages.applied
    assert (type(signed), told, type(parts)) == (OwnTokensSigned, PodsToldSince((pair.new,)), PartsReadAnew)
    assert {"kube-system", "kube-public", "kube-node-lease"} <= signed.spaces
    assert "default" not in signed.spaces
    held = results[work.SECRETS_SIGNED]
    assert (held.outcome, held.impact, own.stale) == ("drifted", Impact.SERVICE, ("site/default-token",))
    assert held.drift is not None
    assert "--despite-tokens" in held.drift.want
    assert results[work.PODS_ASKED].outcome == "ok"
    assert work.EMPTY in redact(stages.run.warned[0])  # as a report has it: no word of the command is hidden
    own.despite_tokens = True
    results = await tell(monkeypatch, stages, ["site/default-token"], None)
    assert (results[work.SECRETS_SIGNED].outcome, own.stale) == ("ok", ())
    assert len(stages.run.warned) == 2  # it is said all the same


@pytest.mark.parametrize(("minutes", "outcome"), [(30, "drifted"), (-1, "ok")])
async def test_pods_whose_kubelets_have_not_asked_hold_it_with_a_time(
    monkeypatch: pytest.MonkeyPatch, pair: Pair, minutes: int, outcome: str
) -> None:
    stages = Tokens(monkeypatch, pair)
    until = datetime.now(UTC) + timedelta(minutes=minutes)
    stages.run.authority.despite_tokens = True  # no word makes kubelets ask
    results = await tell(monkeypatch, stages, [], Waiting(("site/web",), until))
    held = results[work.PODS_ASKED]
    assert held.outcome == outcome
    if outcome == "drifted":
        assert held.drift is not None
        assert held.drift.want == f"run again after {until:%Y-%m-%d %H:%M} UTC"
        assert stages.run.authority.stale == ("site/web",)
    else:
        assert stages.run.authority.stale == ()


async def test_a_way_back_from_where_no_token_was_signed_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch, pair: Pair
) -> None:
    stages = Tokens(monkeypatch, pair)
    stages.run.authority.back, stages.run.authority.pair = True, Pair(pair.old, pair.new, back=True, of=OF)
    waiting = Waiting(("site/web",), datetime.now(UTC) + timedelta(hours=1))
    results = await tell(monkeypatch, stages, ["x"], waiting)
    assert (list(results), stages.applied, stages.run.authority.stale) == (
        ["no token was signed by the other key"],
        [],
        (),
    )
    stages.mark = {"kind": "ConfigMap", "metadata": {}}
    await tell(monkeypatch, stages, ["x"], waiting)
    assert stages.applied[1] == PodsToldSince((pair.old,))
    assert stages.run.authority.stale == ("x", "site/web")


async def test_a_plan_of_it_changes_nothing_and_is_held_by_nothing(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    stages = Tokens(monkeypatch, pair)
    stages.run.allow = Impact.NOTHING
    await tell(monkeypatch, stages, ["x"], None)
    assert [type(one) for one in stages.applied] == [OwnTokensSigned]
    assert stages.run.authority.stale == ()


async def test_the_proof_asks_every_control_plane_whom_it_signs_by_and_whether_all_nodes_are_ready(
    monkeypatch: pytest.MonkeyPatch, pair: Pair
) -> None:
    stages, asked = Tokens(monkeypatch, pair), dict[str, list[Any]]()
    monkeypatch.setattr(stages.run, "session", lambda name: SimpleNamespace(name=name, forget=lambda: None))
    bad = [""]

    async def looked(steps: Any, on: Any) -> list[StepResult]:
        asked[on.name] = list(steps)
        return [StepResult("signs", "drifted", drift=Drift("old", "new"))] if on.name == bad[0] else []

    monkeypatch.setattr(work, "look_at_all", looked)
    (result,) = await work.prove(stages.run, "authority_proof", "cluster")
    assert (result.step, result.outcome) == (work.ALL_SIGN, "ok")
    assert set(asked) == {*PLANES, "cluster"}
    kinds = [type(one) for one in asked["cp3"]]
    assert {AuthorityTrusted, SignerIs, TokenSigned} <= set(kinds)
    assert LeafsSigned not in kinds
    assert asked["cluster"] == [NodesReady((*PLANES, "w1"))]
    bad[0] = "cp3"
    with pytest.raises(Permanent, match="the other key is needed still: cp3") as raised:
        await work.prove(stages.run, "authority_proof", "cluster")
    assert raised.value.code == "SHW-855"


async def test_the_pair_is_made_in_its_own_folder_kept_from_there_and_nothing_of_it_stays_in_the_cluster(
    monkeypatch: pytest.MonkeyPatch, pair: Pair
) -> None:
    stages = Tokens(monkeypatch, pair)
    own = stages.run.authority
    own.source, own.pair = "", Pair(pair.old, of=OF)

    class Made(KnownFacts):
        """A host that has both."""

        def forget(self) -> None:
            """Know what is known."""

    both = {FileText(f"{OF.folder}/{role}.pub"): getattr(pair, role) for role in ("old", "new")}
    monkeypatch.setattr(stages.run, "session", lambda _: Made(both))
    await work.make(stages.run, "authority_made", "cp2")
    assert (own.source, own.pair) == ("cp2", pair)
    await work.end(stages.run, "authority_kept", "cp2")
    made, kept = stages.converged
    assert (type(made), made.of, type(kept), kept.of) == (PairThere, OF, PairKept, OF)
    assert not [one.name for one in (made, kept) if "CA" in one.name]
    await work.unspread(stages.run, "authority_alone", "cluster")
    assert stages.applied == [NoTimeKept()]


def test_a_plan_foresees_what_is_started_anew() -> None:
    api, manager = work.loaded("kube-apiserver"), work.loaded("kube-controller-manager")
    for name in (work.TRUSTS["key"], work.SIGNS["key"]):
        rows = [
            StepResult(name, "drifted", drift=Drift("one", "both")),
            StepResult(api, "ok"),
            StepResult(manager, "ok"),
        ]
        foreseen = work._foreseen(rows)
        assert {one.step for one in foreseen if one.outcome == "drifted"} == {name, api, manager}
