"""A SIMULATED cluster goes over to GPUs that pods claim, host by host, by the flow itself; and it stays so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli.demo import Demo
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.kube.client import Kube
from tests.drift.scene import Scene
from tests.flows.story import LATENCY, Story
from tests.places.prefect import Place, hurried

# Two minutes of `make test-faults`; each goes on from what the one before it left.
pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("dra")]
MOVED, RETIRED = "node te2 has its GPUs claimed (DRA)", "no device plugin is left that no node needs"


@pytest.fixture(scope="module")
def lab(prefect_place: Place, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Yield what runs the flow on a cluster whose plugin hands GPUs out, a file that wants claims, and the scene."""
    with hurried(), Demo(profile="current", latency=LATENCY) as demo:
        file = demo.cluster_file()
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        claims = file.with_name("claims.yaml")
        claims.write_text(yaml.safe_dump({**data, "gpu": {"mode": "dra"}}), encoding="utf-8")
        story = Story(prefect_place.home, demo.folder, tmp_path_factory.mktemp("reports"))
        assert story.fly("first", file).report.outcome == "ok", story.flown["first"].report.errors
        yield story, claims, Scene(demo.folder, claims, claims, prefect_place.home)


def rows(story: Story, name: str, step: str) -> list[Any]:
    return [row for stage in story.flown[name].report.stages for row in stage.rows if row.step == step]


def changed(story: Story, name: str) -> list[str]:
    return [row.step for stage in story.flown[name].report.stages for row in stage.rows if row.outcome == "changed"]


def test_hosts_go_over_one_by_one_and_none_beside_a_pod_that_holds_a_gpu(lab: tuple[Story, Path, Scene]) -> None:
    story, claims, scene = lab
    scene.gpu_pod("te2")
    plan = story.fly("plan", claims, "plan").report
    assert (plan.outcome, plan.counted["changed"]) == ("planned", 0)
    assert {row.outcome for row in rows(story, "plan", MOVED)} == {"drifted"}
    held = story.fly("held", claims).report
    assert not held.errors
    assert "GPUs are held by te2: default/training" in rows(story, "held", MOVED)[-1].have
    assert {row.outcome for row in rows(story, "held", RETIRED)} == {"ok"}, "te2 needs it"
    gpus = held.gpus
    assert gpus["verified"] == gpus["allocatable"] - 1 == gpus["expected"] - 1
    today = [note.partition(" ")[0] for note in gpus["notes"] if "counts as it shares its GPUs today" in note]
    assert today == ["te2"], "the others went over"
    scene.no_gpu_pod()
    over = story.fly("over", claims).report
    assert (over.outcome, over.errors) == ("ok", ())
    assert over.gpus["verified"] == over.gpus["expected"] == gpus["expected"]
    assert [row.outcome for row in rows(story, "over", RETIRED)].count("changed") == 1
    again = story.fly("again", claims).report
    assert (again.outcome, changed(story, "again")) == ("ok", [])


def test_what_drifts_of_the_driver_is_found_and_brought_back(lab: tuple[Story, Path, Scene]) -> None:
    _, _, scene = lab
    found = scene.passed("none")
    assert [f"{one.host}: {one.step}: {one.have}" for one in found.findings] == []
    assert NVIDIA.claims

    async def gone(kube: Kube) -> None:
        await kube.delete("resource.k8s.io/v1", "DeviceClass", "gpu.nvidia.com")

    scene._through(gone)
    (finding,) = scene.passed("service").findings
    assert (finding.action, finding.step) == (
        "repaired",
        "the NVIDIA driver of claims 0.4.1 is declared for every node with GPUs",
    )
    assert scene.passed("none").findings == ()
