"""The order of a replacement, what ends it early, and what its report tells."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prefect.states import Completed

from flows import bootstrap, remove, replace, retiring, waves
from shipway.errors import ApiUnavailable, Refused
from shipway.step import Impact
from shipway.steps.system.names import HostsNamed
from tasks.context import Run
from tasks.replace import work
from tasks.replace.report import replace_report
from tasks.stage_result import StageResult, StepRow
from tests.ownership.test_leading import cluster
from tests.places.facts import DEBIAN, KnownFacts
from tests.replace.test_allowed import moved

PREPARED = ["prepare_system w1", "container_runtime w1", "kubernetes_packages w1"]
OUT = ["drain_node w1", "stop_kubelet w1", "delete_node cluster", "reset_host w1"]
JOIN = ["control_plane_ready cluster", "join_worker w1", "node_settings w1"]
LEARN = ["learn_address cp2", "learn_address cp3", "learn_address cp1"]
LOOK = ["preflight w1", "may_replace w1", "may_remove w1"]
MAY = [*LOOK, "lock", "control_plane_ready cluster", "busy"]
AGAIN = ["may_replace w1", "may_remove w1"]


class Flown:
    """A run whose stages do nothing but be counted; one of them fails, `times` times out of all."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, mode: Any = "bootstrap", fails: str = "", after: int = 0
    ) -> None:
        self.run, self.ran = Run(moved(Run(cluster(), mode), "w1", "10.9.0.99"), mode, ("w1",)), list[str]()
        self.run.kind, self.run.retirement.host, self.run.lead, self.run.file = "replace", "w1", "cp1", "te.yaml"
        self.at: dict[str, str] = {}
        self.skipped: list[str] = []  # stages that say that they were not tried
        self.noted: list[str] = []  # of where the machine is that goes
        self._fails, self._after = fails, after
        for module in (bootstrap, remove, replace, waves):
            monkeypatch.setattr(module, "on", self.on)
        monkeypatch.setattr(retiring, "lease_or_host", self.lock)
        monkeypatch.setattr(replace, "find_busy", self.busy)
        monkeypatch.setattr(replace, "verify", self.verify)
        monkeypatch.setattr(replace, "keep_old", lambda _: self.noted.append("kept"))
        monkeypatch.setattr(replace, "forget_old", lambda _: self.noted.append("forgotten"))
        monkeypatch.setattr(replace, "tell_not_reset", lambda _: self.noted.append("told"))
        monkeypatch.setattr(remove, "tell_closed", self.closed)
        monkeypatch.setattr(self.run, "gpus_of", lambda _: 0)
        self.kept_out: Any = None

    async def on(self, stage: str, host: str, *after: Any) -> Any:
        """Run a stage."""
        if None in after:
            self.skipped.append(f"{stage} {host}")
            return None
        self.ran.append(f"{stage} {host}")
        self.at[stage] = self.run.cluster.host("w1").address
        failed = stage == self._fails and self.ran.count(f"{stage} {host}") > self._after
        changes = stage in ("delete_node", "join_worker")
        outcome: Any = "failed" if failed else "changed" if changes else "ok"
        self.run.results.append(StageResult(host, stage, outcome, (StepRow("a step", outcome),)))
        return None if failed else Completed()

    async def lock(self, *_: Any) -> Any:
        """Hold the cluster."""
        self.ran.append("lock")
        return self.kept_out

    async def busy(self, _: Run) -> None:
        """Count that running pods are asked for."""
        self.ran.append("busy")

    async def closed(self, _: Run) -> None:
        """Tell nothing of the node."""

    async def verify(self, run: Run, *, close: bool) -> None:
        """Count the proof."""
        assert run is self.run
        assert close
        self.ran.append("proof")

    def goes(self, *, itself: bool = False) -> None:
        """Let a machine have to go."""
        old = self.run.cluster if itself else moved(self.run, "w1", "10.9.0.7")
        self.run.replacement.old, self.run.replacement.itself, self.run.replacement.known = old, itself, itself


async def test_the_machine_that_comes_is_prepared_before_the_other_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    flown = Flown(monkeypatch)
    flown.goes()
    await replace.exchange(flown.run, "w1")
    assert flown.ran == [*MAY, *PREPARED, *AGAIN, *OUT, *JOIN, *LEARN, "proof"]
    of_old = {stage for stage, address in flown.at.items() if address == "10.9.0.7"}
    assert of_old == {"may_remove", "drain_node", "stop_kubelet", "delete_node", "reset_host"}
    assert flown.noted == ["kept", "forgotten"]
    (told,) = flown.run.retirement.left
    assert told.startswith("w1: 10.9.0.99 is prepared; 10.9.0.7 is drained, taken out and reset; then 10.9.0.99 joins")


async def test_a_plan_goes_the_same_way_and_asks_for_the_removal_once(monkeypatch: pytest.MonkeyPatch) -> None:
    flown = Flown(monkeypatch, "plan")
    flown.goes()
    await replace.exchange(flown.run, "w1")
    assert flown.ran == [*MAY, *PREPARED, *OUT, *JOIN, *LEARN, "proof"]
    assert flown.noted == []


async def test_a_machine_that_is_made_anew_is_prepared_once_it_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    flown = Flown(monkeypatch)
    flown.goes(itself=True)
    await replace.exchange(flown.run, "w1")
    assert flown.ran == [*MAY, *OUT, "preflight w1", "busy", *PREPARED, *JOIN, "proof"]
    plan = Flown(monkeypatch, "plan")
    plan.goes(itself=True)
    await replace.exchange(plan.run, "w1")
    assert plan.ran == [*MAY, *OUT], "what it will be once it is bare nobody sees on it now"
    assert "prepared anew (prepare_system, container_runtime, kubernetes_packages)" in plan.run.retirement.left[0]


async def test_of_a_machine_that_is_gone_only_the_node_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    flown = Flown(monkeypatch)
    flown.goes()
    flown.run.retirement.dead = True
    await replace.exchange(flown.run, "w1")
    assert flown.ran == [*MAY, *PREPARED, *AGAIN, "delete_node cluster", *JOIN, *LEARN, "proof"]
    assert "the node of 10.9.0.7 is deleted" in flown.run.retirement.left[0]
    assert "was w1 at 10.9.0.7: install it anew" in flown.run.retirement.left[1]


@pytest.mark.parametrize("itself", [True, False])
async def test_where_no_machine_has_to_go_none_is_taken_out(
    monkeypatch: pytest.MonkeyPatch,
    itself: bool,  # noqa: FBT001 - a table
) -> None:
    flown = Flown(monkeypatch)
    flown.run.replacement.itself = flown.run.replacement.known = itself
    await replace.exchange(flown.run, "w1")
    assert flown.ran == [*LOOK[:2], *MAY[3:], *PREPARED, *JOIN, *([] if itself else LEARN), "proof"]
    assert ("--remake" in flown.run.retirement.left[0]) == itself
    assert flown.noted == ["told"], "of a machine that had the place before"


@pytest.mark.parametrize("fails", ["preflight", "may_replace", "may_remove"])
async def test_every_refusal_of_both_machines_is_heard_and_nothing_is_locked(
    monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    flown = Flown(monkeypatch, fails=fails)
    flown.goes()
    await replace.exchange(flown.run, "w1")
    assert (flown.ran, flown.skipped) == (LOOK, [])
    assert replace_report(flown.run).outcome == "refused"


@pytest.mark.parametrize("fails", [one.split()[0] for one in (*PREPARED, *OUT, *JOIN)])
async def test_what_fails_ends_it_before_the_next(monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    flown = Flown(monkeypatch, fails=fails, after=int(fails == "control_plane_ready"))
    flown.goes()
    await replace.exchange(flown.run, "w1")
    whole = [*MAY, *PREPARED, *AGAIN, *OUT, *JOIN]
    first = len(MAY) if fails == "control_plane_ready" else 0
    assert flown.ran == whole[: [one.split()[0] for one in whole].index(fails, first) + 1]
    assert replace_report(flown.run).outcome == "failed"
    out = fails not in ("prepare_system", "container_runtime", "kubernetes_packages")
    assert flown.noted == (["kept"] if out else []) + (["forgotten"] if "reset_host w1" in flown.ran[:-1] else [])
    told = "nothing has its place" in "".join(flown.run.retirement.left)
    assert told == (fails in ("reset_host", *(one.split()[0] for one in JOIN)))


@pytest.mark.parametrize(
    ("host", "told"), [("cp2", ["learn_address cp3", "learn_address w1", "learn_address cp1"]), ("w1", [])]
)
async def test_a_control_plane_that_is_made_anew_comes_back_into_the_proxies(
    monkeypatch: pytest.MonkeyPatch, host: str, told: list[str]
) -> None:
    """Its address is known, and each worker's proxy was loaded without it when it left."""
    flown = Flown(monkeypatch)
    flown.run.replacement.known = True
    await replace.tell_others(flown.run, host)
    assert flown.ran == told


@pytest.mark.parametrize("mode", ["plan", "bootstrap"])
async def test_where_the_cluster_takes_no_join_nothing_is_prepared_and_nothing_taken_out(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """An upgrade was broken off, say: the file has another version than the API server."""
    flown = Flown(monkeypatch, mode, fails="control_plane_ready")
    flown.goes()
    await replace.exchange(flown.run, "w1")
    assert flown.ran == MAY[:-1]
    assert (replace_report(flown.run).outcome, flown.run.retirement.left) == ("refused", [])


@pytest.mark.parametrize(("imex", "gpus", "asks"), [("host", 4, True), ("workloads", 4, False), ("host", 0, False)])
async def test_a_machine_that_comes_runs_imex_where_hosts_do_and_the_others_are_told_of(
    monkeypatch: pytest.MonkeyPatch,
    imex: str,
    gpus: int,
    asks: bool,  # noqa: FBT001 - a table
) -> None:
    flown = Flown(monkeypatch)
    flown.goes()
    driver = {"source": "cuda", "branch": 580, "imex": imex}
    gpu = flown.run.cluster.gpu.model_copy(update={"driver": flown.run.cluster.gpu.driver.model_copy(update=driver)})
    flown.run.cluster = flown.run.cluster.model_copy(update={"gpu": gpu})
    flown.goes()
    monkeypatch.setattr(flown.run, "gpus_of", lambda _: gpus)
    monkeypatch.setattr(replace, "preparation_of", lambda *_: [])
    monkeypatch.setattr(bootstrap, "preparation_of", lambda *_: [])
    await replace.exchange(flown.run, "w1")
    assert flown.ran[-2:] == (["gpu_imex w1", "proof"] if asks else [LEARN[-1], "proof"])
    assert any("their IMEX learns of its new address" in one for one in flown.run.retirement.left) == asks


async def test_one_that_joined_in_nobodys_place_leaves_none_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    flown = Flown(monkeypatch, fails="node_settings")
    await replace.exchange(flown.run, "w1")
    assert "nothing has its place" not in "".join(flown.run.retirement.left)


@pytest.mark.parametrize(
    ("host", "vip", "told"),
    [
        ("cp2", "10.9.0.100", True),
        ("w1", "10.9.0.100", False),
        ("cp2", "", False),
        ("cp2", "10.9.0.100, by: kube-vip", False),  # none of them is told of the others
    ],
)
async def test_what_keepalived_is_not_told_of_is_told_to_a_person(
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    vip: str,
    told: bool,  # noqa: FBT001 - a table
) -> None:
    flown = Flown(monkeypatch)
    flown.run.cluster = cluster(more=f"kubernetes: {{api_vip: {{address: {vip}}}}}\n" if vip else "")
    await replace.tell_others(flown.run, host)
    assert ["10.9.0.100" in one for one in flown.run.retirement.left] == ([True] if told else [])


async def test_the_flow_asks_for_what_it_was_given_beside_another_control_plane(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flown, heard = Flown(monkeypatch), list[Any]()

    @asynccontextmanager
    async def running(*asked: Any) -> AsyncIterator[Run]:
        heard.append(asked[:5])
        yield flown.run

    async def done(run: Run, host: str) -> None:
        heard.append((run, host))

    given: dict[str, Any] = {"address": "10.9.0.7", "report_file": "report.json"}
    given |= dict.fromkeys(("dead", "evict_gpu_pods", "remake"), True)
    for name, double in (("running", running), ("lead_beside", done), ("exchange", done), ("verdict", lambda _: "end")):
        monkeypatch.setattr(replace, name, double)
    assert await replace.replace.fn("te.yaml", "w1", "replace", **given) == "end"
    assert heard == [("te.yaml", "bootstrap", ("w1",), (), "report.json"), (flown.run, "w1"), (flown.run, "w1")]
    asked, made = flown.run.retirement, flown.run.replacement
    assert (asked.host, asked.dead, asked.evict_gpu_pods, asked.to_replace) == ("w1", True, True, True)
    assert (made.remake, made.address) == (True, "10.9.0.7")


async def test_what_came_while_the_other_was_prepared_keeps_the_host_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for at, fails in enumerate(("may_replace", "may_remove"), start=1):
        flown = Flown(monkeypatch, fails=fails, after=1)
        flown.goes()
        await replace.exchange(flown.run, "w1")
        assert flown.ran == [*MAY, *PREPARED, *AGAIN[:at]]
        assert flown.run.replacement.agreed is not None
        assert flown.noted == []


async def test_no_other_run_is_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    flown = Flown(monkeypatch)
    flown.goes()
    flown.kept_out = Refused("another run works on it", code="SHW-102")
    with pytest.raises(Refused):
        await replace.exchange(flown.run, "w1")
    flown.ran.clear()
    flown.kept_out = ApiUnavailable("away")
    await replace.exchange(flown.run, "w1")
    assert flown.ran == [*LOOK, "lock"]
    assert replace_report(flown.run).outcome == "refused"


async def test_the_leading_control_plane_learns_the_address_only_once_all_others_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flown = Flown(monkeypatch, fails="learn_address")
    flown.goes()
    await replace.exchange(flown.run, "w1")
    assert [one for one in flown.ran if one.startswith("learn_address")] == LEARN[:2]
    assert flown.ran[-1] == "proof", "the host is there all the same"


async def test_a_host_learns_the_address_by_files_and_what_runs_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    run, heard = Run(cluster(), "bootstrap", ("w1",)), list[Any]()

    async def recognise(_: Any) -> Any:
        return DEBIAN

    async def converge(steps: list[Any], on: Any, limit: Impact, _: Any) -> list[Any]:
        heard.append((steps, on.name, limit))
        return []

    class Place(KnownFacts):
        def forget(self) -> None:
            """Look anew."""

    monkeypatch.setattr(run, "session", lambda _: Place({}))
    monkeypatch.setattr(work, "recognise", recognise)
    monkeypatch.setattr(work, "converge", converge)
    await work.learn_address(run, "learn_address", "cp2")
    ((steps, _, limit),) = heard
    (named,) = (step for step in steps if isinstance(step, HostsNamed))
    assert named.entries["w1"] == "10.9.0.9"
    assert limit is Impact.START


def test_the_report_is_a_replacements_and_tells_each_thing_once() -> None:
    run = Run(cluster(), "bootstrap", ("w1",))
    run.kind, run.retirement.host = "replace", "w1"
    run.retirement.left += ["a", "a"]
    report = replace_report(run, broken_off="the run was interrupted")
    assert (report.mode, report.outcome) == ("replace", "failed")
    assert report.warnings.count("a") == 1
