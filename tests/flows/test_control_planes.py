"""The order in which several control planes come: one after the other, workers beside them, none where none may."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from flows import bootstrap
from shipway.ownership.evidence import Evidence
from tasks.context import Run
from tests.ownership.test_leading import cluster, plane

STATE = object()


class Scene:
    """A run whose stages are only kept; those of `lost` fail, and those of `slow` wait for a word."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seen: dict[str, Evidence], lead: str = "cp1") -> None:
        self.run = Run(cluster(), "bootstrap")
        self.run.seen.surveys = {name: SimpleNamespace(evidence=one, gpus=0) for name, one in seen.items()}  # type: ignore[assignment]
        self.run.lead = lead
        self.begun: list[tuple[str, str]] = []
        self.lost: set[tuple[str, str]] = set()
        self.at_once = self.most = 0
        monkeypatch.setattr(bootstrap, "on", self.on)

    async def on(self, stage: str, host: str, *after: Any) -> Any:
        """Keep the stage, or skip it where what it builds on is not there."""
        if None in after:
            self.run.skip(host, stage)
            return None
        self.begun.append((str(stage), host))
        if stage == "join_control_plane":
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        for _ in range(3):
            await asyncio.sleep(0)
        if stage == "join_control_plane":
            self.at_once -= 1
        return None if (str(stage), host) in self.lost else STATE

    async def bring_up(self) -> None:
        """Run what a bootstrap runs, every host admitted."""
        run = self.run

        class Admitted:
            def __init__(self, *_: Any) -> None:
                run.admitted |= {host.name for host in run.hosts}

            async def contradicted(self) -> bool:
                return False

            async def of(self, name: str) -> Any:
                del name
                return STATE

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(bootstrap, "Admission", Admitted)
            await bootstrap.bring_up(run)

    def joined(self) -> list[str]:
        """Return the hosts whose join as a control plane began."""
        return [host for stage, host in self.begun if stage == "join_control_plane"]


BARE = {name: Evidence(name) for name in ("cp1", "cp2", "cp3", "w1")}


async def test_the_first_is_initialised_and_the_others_join_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, BARE)
    await scene.bring_up()
    assert [host for stage, host in scene.begun if stage == "control_plane"] == ["cp1"]
    assert (scene.joined(), scene.most) == (["cp2", "cp3"], 1)
    assert [host for stage, host in scene.begun if stage == "join_worker"] == ["w1"]
    assert scene.begun.index(("control_plane_ready", "cluster")) < scene.begun.index(("join_control_plane", "cp2"))
    assert scene.run.ready == {"cp1", "cp2", "cp3", "w1"}


async def test_a_bare_first_host_joins_where_another_one_holds_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, {**BARE, "cp2": plane("cp2"), "cp3": plane("cp3")}, lead="cp2")
    await scene.bring_up()
    assert [host for stage, host in scene.begun if stage == "control_plane"] == ["cp2"]
    assert scene.joined() == ["cp3", "cp1"]


async def test_after_a_join_that_failed_no_other_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, BARE)
    scene.lost = {("join_control_plane", "cp2")}
    await scene.bring_up()
    assert scene.joined() == ["cp2"]
    assert any(one.host == "cp3" and one.outcome == "unknown" for one in scene.run.results)
    assert "w1" in scene.run.ready


async def test_one_that_would_make_the_members_even_is_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, BARE)
    scene.lost = {("kubernetes_packages", "cp2")}
    await scene.bring_up()
    assert scene.joined() == []
    (error,) = (error for one in scene.run.results for error in one.errors)
    assert (error.host, error.code) == ("cp3", "SHW-764")


async def test_without_a_control_plane_nobody_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, BARE)
    scene.lost = {("control_plane", "cp1")}
    await scene.bring_up()
    assert scene.joined() == []
    assert not scene.run.ready
