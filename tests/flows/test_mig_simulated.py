"""GPUs of a SIMULATED cluster are divided, divided otherwise and made whole again, by the flows themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli.demo import Demo
from shipway.kube.client import Kube
from tasks.findings import Finding
from tests.drift.scene import Scene
from tests.flows.story import LATENCY, Story
from tests.places.prefect import Place, hurried

pytestmark = pytest.mark.faults  # two minutes: `make test-faults`
CLASSES = {
    "thirds": {"sharing": "mig-single", "mig": "all-3g.71gb"},
    "profiles": {"sharing": "mig-mixed", "mig": "all-2g.35gb"},
}


@pytest.fixture(scope="module")
def lab(prefect_place: Place, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Yield what runs the flows on a cluster with GPUs by CDI, and what writes its file."""
    with hurried(), Demo(profile="current", latency=LATENCY) as demo:
        file = demo.cluster_file()
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        gpu = {**data.get("gpu", {}), "mode": "cdi"}

        def declare(**of: str) -> Path:
            hosts = [{**one, **({"gpu_class": of[one["name"]]} if one["name"] in of else {})} for one in data["hosts"]]
            file.write_text(yaml.safe_dump({**data, "hosts": hosts, "gpu": {**gpu, "classes": CLASSES}}))
            return file

        story = Story(prefect_place.home, demo.folder, tmp_path_factory.mktemp("reports"))
        yield story, declare, Scene(demo.folder, file, file, prefect_place.home)


def told(scene: Scene, repair: Any) -> dict[tuple[str, str], Finding]:
    return {(one.host, one.id): one for one in scene.passed(repair).findings}


def offered(scene: Scene, node: str) -> dict[str, str]:
    found: dict[str, str] = {}

    async def look(kube: Kube) -> None:
        has = ((await kube.get("v1", "Node", node, fresh=True)) or {})["status"]["allocatable"]
        found.update({name: amount for name, amount in has.items() if name.startswith("nvidia.com/") and amount != "0"})

    scene._through(look)
    return found


def test_gpus_are_divided_on_bare_hosts_and_on_hosts_in_service_and_made_whole(lab: Any) -> None:
    story, declare, scene = lab
    ran = story.fly("bare", declare(te2="thirds")).report
    assert (ran.outcome, ran.errors) == ("ok", ())
    count = ran.gpus["expected"]
    assert ran.gpus["verified"] == count
    assert offered(scene, "te2") == {"nvidia.com/gpu": str(2 * gpus_of(ran, "te2"))}
    assert scene.passed("none").findings == ()
    again = story.fly("again", declare(te2="thirds")).report
    assert [row.step for stage in again.stages for row in stage.rows if row.outcome == "changed"] == []

    scene.gpu_pod("te2")
    held = story.fly("held", declare(te2="profiles", te3="thirds")).report
    rows = {(stage.host, row.id): row for stage in held.stages for row in stage.rows}
    why = "it is not so yet that the GPUs are divided as all-2g.35gb; GPUs are held by te2: default/training"
    assert why in rows["te2", "NodeClass te2"].have
    assert "divided as all-3g.71gb" in rows["te3", "NodeClass te3"].have
    assert held.gpus["verified"] == held.gpus["expected"] - 1 == count - 1
    before = told(scene, "service")
    assert {key: one.action for key, one in before.items() if key[1] == "GpusDivided"} == {
        ("te2", "GpusDivided"): "reported",
        ("te3", "GpusDivided"): "reported",
    }
    after = told(scene, "workloads")
    assert after["te3", "GpusDivided"].action == "repaired", after
    assert after["te2", "GpusDivided"].action != "repaired", after
    assert offered(scene, "te3") == {"nvidia.com/gpu": str(2 * gpus_of(held, "te3"))}
    scene.no_gpu_pod()
    after = told(scene, "workloads")
    assert after["te2", "GpusDivided"].action == "repaired", after
    assert offered(scene, "te2") == {"nvidia.com/mig-2g.35gb": str(3 * gpus_of(held, "te2"))}
    over = story.fly("over", declare(te2="profiles", te3="thirds")).report
    assert (over.outcome, over.errors) == ("ok", ())
    assert over.gpus["verified"] == over.gpus["expected"]

    declare()
    after = told(scene, "workloads")
    assert {key[0]: one.action for key, one in after.items() if key[1] == "GpusWhole"} == {
        "te2": "repaired",
        "te3": "repaired",
    }
    back = story.fly("back", declare()).report
    assert (back.outcome, back.errors) == ("ok", ())
    assert back.gpus["verified"] == back.gpus["expected"] == sum(gpus_of(back, one) for one in ("te2", "te3", "te4"))
    assert scene.passed("none").findings == ()


def gpus_of(report: Any, host: str) -> int:
    """Return how many GPUs a host of the lab has."""
    return next(int(one.gpus or 0) for one in report.hosts if one.name == host)
