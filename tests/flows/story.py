"""What happened to one SIMULATED lab: a plan of bare hosts, a refusal, a bootstrap without a host, one with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from prefect import State

from flows.bootstrap import bootstrap
from flows.cli.demo import Demo
from lab.simulated.control import ask
from shipway.cluster_file import load_cluster
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.step import Outcome
from shipway.steps.gpu.device_list import STRATEGY
from shipway.steps.gpu.toolkit import CONFIG as TOOLKIT_CONFIG
from tasks.context import VIEW, Run, Unseen
from tasks.report import Report
from tasks.stage_result import Mode
from tasks.stages import device_plugin
from tests.places.prefect import Place, hurried

if TYPE_CHECKING:
    from tests.drift.scene import Scene

LAST = "te4"
LATENCY = 0.02  # of the labs that flows run on: nobody watches them


class Kept(Unseen):
    """A view that keeps the run."""

    run: Run

    def begin_run(self, run: Run) -> None:
        """Keep it."""
        self.run = run


@dataclass
class Flown:
    """One run: its report, its context, its flow run's state."""

    report: Report
    run: Run
    state: State[Any]

    def stages(self, host: str) -> dict[str, Outcome]:
        """Return the outcomes of a host's stages."""
        return {stage.stage: stage.outcome for stage in self.report.stages if stage.host == host}


@dataclass
class Story:
    """What happened to one lab: a plan of bare hosts, a bootstrap without one of them, and one with it."""

    home: Path
    folder: Path
    reports: Path
    before: dict[str, str] = field(default_factory=dict)
    after_plan: dict[str, str] = field(default_factory=dict)
    flown: dict[str, Flown] = field(default_factory=dict)
    commands: list[list[str]] = field(default_factory=list)

    def fly(self, name: str, file: Path, mode: Mode = "bootstrap", hosts: tuple[str, ...] = ()) -> Flown:
        """Run the flow."""
        view = Kept()
        VIEW.set(view)
        report = str(self.reports / f"{name}.json")
        state = asyncio.run(bootstrap(str(file), mode, hosts, (), report, return_state=True))
        assert view.run.report is not None
        self.flown[name] = Flown(view.run.report, view.run, state)
        return self.flown[name]

    def scene(self, file: Path) -> Scene:
        """Return what changes the cluster behind Shipway's back."""
        from tests.drift.scene import Scene  # noqa: PLC0415 - it imports this module

        return Scene(self.folder, file, file, self.home)

    def opened(self, file: Path) -> None:
        """Put the cluster back to how it was before GPUs were isolated, with a pod that was given one on te2."""
        scene = self.scene(file)
        for host in ("te2", "te3", LAST):
            scene.drift(host, "remove", path=TOOLKIT_CONFIG)
        cluster = load_cluster(file)
        (obj,) = device_plugin.daemon_set(cluster)
        container = {**obj["spec"]["template"]["spec"]["containers"][0]}
        container["env"] = [one for one in container["env"] if one["name"] != STRATEGY]
        changes = {"spec": {"template": {"spec": {"containers": [container]}}}}
        scene.patched("DaemonSet", NVIDIA.plugin.daemon_set, changes, NVIDIA.plugin.namespace, "apps/v1")
        scene.rolled_out(NVIDIA.plugin.daemon_set, NVIDIA.plugin.namespace)
        scene.gpu_pod("te2")


def patient(file: Path, **over: Any) -> Path:
    """Return a copy of a lab's cluster file that does not wait long for a host that is gone."""
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    data["ssh"]["connect_seconds"] = 3
    made = file.with_name(f"{'-'.join(['test', *over])}.yaml")
    made.write_text(yaml.safe_dump({**data, **over}), encoding="utf-8")
    return made


@contextmanager
def heard(place: Place, reports: Path) -> Iterator[Story]:
    """Let it all happen; the lab lives on until the end."""
    with hurried(), Demo(latency=LATENCY) as lab:
        file = patient(lab.cluster_file())
        story = Story(place.home, lab.folder, reports)
        story.before = ask(lab.folder, do="digest")["digests"]
        story.fly("plan", file, "plan")
        story.after_plan = ask(lab.folder, do="digest")["digests"]
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        greedy = [{**host, "gpus": 3} if host["name"] == "te1" else host for host in data["hosts"]]
        story.fly("refused", patient(file, hosts=greedy))
        story.fly("plan_of_refused", patient(file, hosts=greedy), "plan")
        one = [{**host, "gpus": 3} if host["name"] == "te2" else host for host in data["hosts"]]
        story.fly("plan_of_partial", patient(file, hosts=one), "plan")
        ask(lab.folder, do="cut", host=LAST, refuse=True)
        story.fly("without", file)
        ask(lab.folder, do="plug", host=LAST)
        story.fly("whole", file)
        story.opened(file)
        story.fly("closing", file)
        story.scene(file).no_gpu_pod()
        story.fly("closed", file)
        by_default = patient(file, gpu={**data.get("gpu", {}), "mode": "default_runtime"})
        story.scene(file).gpu_pod("te2")
        story.fly("switching", by_default)
        story.scene(file).no_gpu_pod()
        story.fly("switched", by_default)
        story.commands = [ran["words"] for name in ("te1", LAST) for ran in ask(lab.folder, do="ran", host=name)["ran"]]
        everything = [one for flown in story.flown.values() for one in flown.run.flow_runs]
        assert place.api.drain(everything, sum(len(flown.run.task_runs) for flown in story.flown.values())) == ""
        yield story
