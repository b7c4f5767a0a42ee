"""The order of a restore: all is stopped before the data of one change, then the others join; what fails is undone."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from flows import bootstrap
from flows import restore as restores
from shipway.backup.choice import Choice, Kind
from shipway.errors import Refused
from shipway.ownership.evidence import Evidence
from tasks.context import Run
from tests.ownership.test_leading import cluster, plane

STATE = object()
BARE = {name: Evidence(name) for name in ("cp1", "cp2", "cp3")}
WHOLE = {name: plane(name) for name in ("cp1", "cp2", "cp3")}
W1 = {"w1": Evidence("w1", certificate=True)}


class Scene:
    """A restore whose stages are only kept; those of `lost` fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seen: dict[str, Evidence], lead: str = "cp1") -> None:
        self.run = Run(cluster(), "restore")
        self.run.seen.surveys = {name: SimpleNamespace(evidence=one, gpus=0) for name, one in seen.items()}  # type: ignore[assignment]
        self.lead, self.seen = lead, seen
        self.begun: list[tuple[str, str]] = []
        self.lost: set[tuple[str, str]] = set()
        for module in (bootstrap, restores):
            monkeypatch.setattr(module, "on", self.on)
        for name in ("claim_host", "verify"):
            monkeypatch.setattr(restores, name, self.nothing)
        monkeypatch.setattr(restores, "disagreement", self.disagreement)
        self.faults: list[Any] = []

    async def nothing(self, _: Run) -> None:
        """Do nothing."""

    async def disagreement(self, _: Run) -> list[Any]:
        """Return what contradicts."""
        return self.faults

    async def on(self, stage: str, host: str, *after: Any) -> Any:
        """Keep the stage, or skip it where what it builds on is not there."""
        if None in after:
            self.run.skip(host, stage)
            return None
        self.begun.append((str(stage), host))
        await asyncio.sleep(0)
        if stage == "restore_possible":
            kinds: dict[str, Kind] = {
                name: "joins" if one.joining else "runs" if one.whole else "bare"
                for name, one in self.seen.items()
                if name != "w1"
            }
            self.run.backup.choice = Choice(self.lead, "one", "id", begun=False, brought=True, kinds=kinds)
            self.run.lead = self.lead
        if stage == "restore_aside":
            self.see(host, plane(host, joining=True))
        if stage == "restore_backup" and not self.seen[host].whole:
            self.see(host, Evidence(host, etcd=True, pki=True, started_by="te"))
        return None if (str(stage), host) in self.lost else STATE

    def see(self, host: str, one: Evidence) -> None:
        """Let the run know what a host shows now."""
        self.run.seen.surveys[host] = SimpleNamespace(evidence=one, gpus=0)  # type: ignore[assignment]

    def hosts(self, stage: str) -> list[str]:
        """Return the hosts on which a stage began, in order."""
        return [host for name, host in self.begun if name == stage]

    def at(self, stage: str, host: str) -> int:
        """Return when a stage began."""
        return self.begun.index((stage, host))


async def test_of_three_that_live_all_are_stopped_one_is_restored_and_the_others_join_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, {**WHOLE, **W1}, lead="cp2")
    await restores.bring_back(scene.run)
    assert sorted(scene.hosts("restore_stop")) == ["cp1", "cp2", "cp3"]
    restored, ready = scene.at("restore_backup", "cp2"), scene.at("control_plane_ready", "cluster")
    assert max(scene.at("restore_stop", name) for name in WHOLE) < restored < ready
    assert scene.hosts("restore_backup") == ["cp2"]
    assert scene.hosts("restore_aside") == ["cp1", "cp3"]
    assert ready < min(scene.at("restore_aside", name) for name in ("cp1", "cp3"))
    assert scene.at("forget_nodes", "cluster") < scene.at("join_control_plane", "cp1")
    assert scene.hosts("join_control_plane") == ["cp1", "cp3"]
    assert sorted(scene.hosts("restart_kubelet")) == ["cp2", "w1"], "those that join anew start theirs anyway"
    assert scene.hosts("control_plane") == []
    assert scene.hosts("prepare_system") == []
    assert scene.run.ready == {"cp1", "cp2", "cp3", "w1"}


async def test_three_bare_hosts_are_prepared_one_is_initialised_from_the_backup_and_the_others_join(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, {**BARE, **W1})
    await restores.bring_back(scene.run)
    assert sorted(scene.hosts("kubernetes_packages")) == ["cp1", "cp2", "cp3"]
    order = ["kubernetes_packages", "restore_bring", "restore_backup", "control_plane"]
    places = [scene.at(stage, "cp1") for stage in order]
    assert places == sorted(places)
    assert scene.hosts("restore_stop") == scene.hosts("restore_aside") == []
    assert scene.hosts("join_control_plane") == ["cp2", "cp3"]
    assert scene.hosts("restart_kubelet") == ["w1"]
    assert scene.run.ready == {"cp1", "cp2", "cp3", "w1"}


async def test_what_a_killed_run_had_put_aside_joins_without_being_stopped_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, {**WHOLE, "cp3": plane("cp3", joining=True), **W1})
    await restores.bring_back(scene.run)
    assert scene.hosts("restore_aside") == ["cp2"]
    assert scene.hosts("join_control_plane") == ["cp2", "cp3"]
    assert "cp3" not in scene.hosts("restore_stop") + scene.hosts("restart_kubelet")


async def test_a_single_control_plane_is_restored_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, {"cp1": WHOLE["cp1"], **W1})
    scene.run = Run(cluster(1), "restore")
    for name, one in scene.seen.items():
        scene.see(name, one)
    await restores.bring_back(scene.run)
    stages = [name for name, _ in scene.begun if name != "preflight"]
    assert stages == [
        *("restore_possible", "restore_loses", "restore_bring", "restore_backup", "control_plane_ready"),
        *("restart_kubelet", "restart_kubelet", "start_watchers"),
    ]


@pytest.mark.parametrize("fails", [("restore_stop", "cp3"), ("restore_backup", "cp1")])
async def test_where_the_data_do_not_come_what_was_stopped_is_started_the_host_with_the_data_first(
    monkeypatch: pytest.MonkeyPatch, fails: tuple[str, str]
) -> None:
    scene = Scene(monkeypatch, {**WHOLE, **W1})
    scene.lost = {fails}
    await restores.bring_back(scene.run)
    assert scene.hosts("restore_undo") == ["cp1", "cp2", "cp3"]
    assert scene.hosts("restore_aside") == []


async def test_where_the_data_were_changed_the_others_stay_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, {**WHOLE, **W1})
    scene.lost = {("restore_backup", "cp1"), ("restore_undo", "cp1")}
    await restores.bring_back(scene.run)
    assert scene.hosts("restore_undo") == ["cp1"]


async def test_a_plan_goes_through_the_same_stages_up_to_what_needs_the_restored_api(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, {**WHOLE, **W1})
    scene.run.mode = "plan"
    await restores.bring_back(scene.run)
    assert [name for name, _ in scene.begun][-2:] == ["restore_aside", "restore_aside"]
    assert not scene.hosts("restore_undo") + scene.hosts("join_control_plane")


@pytest.mark.parametrize("lost", ["cp2", "cp1"])
async def test_a_control_plane_that_was_not_seen_keeps_from_a_restore(
    monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    scene = Scene(monkeypatch, {**WHOLE, **W1})
    scene.lost = {("preflight", lost)}
    await restores.bring_back(scene.run)
    assert {name for name, _ in scene.begun} == {"preflight"}
    (error,) = (error for one in scene.run.results for error in one.errors)
    assert (error.host, error.code) == (lost, "SHW-753")
    assert f"--gone {lost}" in error.fix


async def test_one_that_is_gone_is_not_waited_for_and_one_that_answers_is_not_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = {name: one for name, one in {**WHOLE, **W1}.items() if name != "cp3"}
    scene = Scene(monkeypatch, seen)
    scene.run.only, scene.run.backup.gone = ("cp1", "cp2", "w1"), ("cp3",)
    await restores.bring_back(scene.run)
    assert scene.hosts("restore_stop") == ["cp1", "cp2"]
    assert scene.hosts("join_control_plane") == [], "two members bear the loss of none"
    (error,) = (error for one in scene.run.results for error in one.errors)
    assert (error.host, error.code) == ("cp2", "SHW-764")
    answering = Scene(monkeypatch, {**WHOLE, **W1})
    answering.run.only, answering.run.backup.gone = ("cp1", "cp2", "w1"), ("cp3",)
    await restores.bring_back(answering.run)
    (error,) = (error for one in answering.run.results for error in one.errors)
    assert (error.host, error.code) == ("cp3", "SHW-754")


@pytest.mark.parametrize(
    ("gone", "code"), [(("w1",), "SHW-100"), (("cp9",), "SHW-100"), (("cp1", "cp2", "cp3"), "SHW-753")]
)
def test_only_control_planes_can_be_gone_and_never_all(gone: tuple[str, ...], code: str) -> None:
    with pytest.raises(Refused) as caught:
        restores._without(cluster(), gone)
    assert caught.value.code == code


async def test_a_lost_control_plane_is_no_contradiction_and_every_other_one_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, {**BARE, **W1})
    scene.faults = [_fault("SHW-318")]
    assert await restores.contradicting(scene.run) == []
    scene.faults = [_fault("SHW-318"), _fault("SHW-309")]
    assert [one.code for one in await restores.contradicting(scene.run)] == ["SHW-309"]


def _fault(code: str) -> Any:
    return SimpleNamespace(code=code)
