"""Nodes with sick GPUs are kept from pods before all else in a pass, and opened by proofs after all else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from shipway.errors import Blocked
from shipway.gpu.health.model import GpuHealth
from shipway.stage import StageName
from shipway.step import Drift, Impact, StepResult, id_of
from shipway.steps.gpu.sound import GpusSound, ReleasedByProof, UnfitKeptFromPods
from shipway.survey.gpu_health import HealthLook
from tasks.context import Run
from tasks.drift import parts, repair
from tasks.drift.parts import Part
from tasks.findings import Finding
from tests.places.facts import KnownFacts
from tests.places.kube import cluster_of


@dataclass(frozen=True)
class Other:
    """A step that was not done yet; what is done it says in `did`."""

    impact: ClassVar[Impact] = Impact.START
    node: str
    did: list[str] = field(hash=False)
    fails: bool = False
    name: str = "something else"

    async def check(self, _: Any) -> Drift | None:
        """Look whether it was done."""
        return None if f"{self.name} {self.node}" in self.did else Drift("no", "yes")

    async def apply(self, _: Any) -> None:
        """Do it."""
        if self.fails:
            raise Blocked("the kubelet does not answer")
        self.did.append(f"{self.name} {self.node}")


@dataclass(frozen=True)
class Mark(Other):
    """Stands for the mark."""

    name: str = "mark"


@dataclass(frozen=True)
class Release(Other):
    """Stands for the release."""

    name: str = ReleasedByProof.name


Passed = Callable[[], Any]


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> tuple[Run, list[str], Passed]:
    """Return a run, what it did, and the repair of its cluster: two nodes, on the first of which a step fails."""
    run, did = Run(cluster_of(["te1", "te2"]), "drift"), list[str]()
    run.allow = Impact.SERVICE
    of = [
        Part(node, StageName.NODE_SETTINGS, [Other(node, did, node == "te1"), Mark(node, did), Release(node, did)])
        for node in ("te1", "te2")
    ]

    async def look(run: Run, *_: str) -> list[StepResult]:
        run.drift.of_cluster = [
            Finding(part.host, part.stage, step.name, "no", "yes", "START", id=id_of(step))
            for part in of
            for step in part.steps
            if await step.check(None)
        ]
        return []

    async def nothing(*_: Any) -> Any:
        return KnownFacts({})

    run.kube = nothing  # type: ignore[assignment, method-assign]
    for name, value in {
        "UnfitKeptFromPods": Mark,
        "ReleasedByProof": Release,
        "cluster_parts": lambda _: of,
        "look_at_cluster": look,
        "new_lease": nothing,
        "time": SimpleNamespace(time=lambda: 4.0, monotonic=lambda: 0.0),
    }.items():
        monkeypatch.setattr(repair, name, value)

    async def go() -> list[Finding]:
        await look(run)
        await repair.repair_cluster(run, "repair_cluster", "cluster")
        return run.drift.of_cluster

    return run, did, go


async def test_marks_wait_for_nothing_and_nothing_waits_for_releases(passed: Any, monkeypatch: Any) -> None:
    """A node behind one whose step failed, or whose proof took its ten minutes, was not marked in any pass."""
    _, did, go = passed
    found = {(one.host, one.step): one.action for one in await go()}
    release = ReleasedByProof.name
    assert did == ["mark te1", "mark te2", "something else te2", f"{release} te1", f"{release} te2"]
    assert found["te1", "something else"] == "failed"
    assert found["te1", "mark"] == found["te1", release] == "repaired"
    did.clear()
    monkeypatch.setattr(repair, "time", SimpleNamespace(time=lambda: 5.0, monotonic=lambda: 0.0))
    await go()
    assert did[-2:] == [f"{release} te2", f"{release} te1"], "the next pass begins with another node"


async def test_a_release_that_the_time_did_not_come_to_is_told_as_held_back(passed: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(repair, "RELEASE_SECONDS", -1.0)
    _, did, go = passed
    late = [one for one in await go() if one.step == ReleasedByProof.name]
    assert [(one.host, one.action, one.why) for one in late] == [
        (node, "held back", repair.LATE) for node in ("te1", "te2")
    ]
    assert did[:2] == ["mark te1", "mark te2"]


@pytest.mark.parametrize(
    ("quarantine", "open_plane", "host", "steps"),
    [
        (True, True, "te1", [GpusSound, UnfitKeptFromPods, ReleasedByProof]),
        (False, True, "te1", [GpusSound, ReleasedByProof]),  # a mark outlives its switch, and is told of
        (True, False, "te1", [GpusSound, ReleasedByProof]),  # no pod comes there anyway, and none could prove it
        (True, True, "te2", [ReleasedByProof]),  # nothing is known of it
        (True, True, "te3", []),
    ],
)
def test_a_node_is_marked_where_that_was_asked_and_a_mark_is_always_looked_for(
    quarantine: bool,  # noqa: FBT001
    open_plane: bool,  # noqa: FBT001
    host: str,
    steps: list[type],
) -> None:
    """Without its switch nobody told of a node that was closed, and a control plane could never be opened again."""
    hosts = [{"name": f"te{at}", "address": f"10.9.0.1{at}", "gpus": 2 * (at < 3)} for at in (1, 2, 3)]
    kubernetes = {"version": "1.31.0", "schedule_on_control_plane": open_plane}
    cluster = cluster_of((), hosts=hosts, repair={"quarantine": quarantine}, kubernetes=kubernetes)
    run = Run(cluster, "drift")
    run.drift.health["te1"] = HealthLook((GpuHealth("GPU-1", "", "0000:10:00.0", "A"),))
    made = parts._sound(run, cluster.host(host))
    assert [type(step) for step in made] == steps
    assert all(step.expected == run.provable(cluster.host(host)) for step in made if isinstance(step, ReleasedByProof))
