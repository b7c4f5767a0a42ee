"""A worker of a SIMULATED lab is replaced by another machine, by the flow itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from flows.bootstrap import bootstrap
from flows.cli.demo import Demo
from flows.replace import replace
from lab.simulated.control import ask
from shipway.facts.files import FileText
from shipway.host.session import Command, Host
from shipway.step import Drift, Impact
from shipway.steps.reset.kubelet import RESETTING, KubeletOff, NodeUndone
from tasks.report import Report
from tasks.retire import work
from tests.flows.story import LATENCY, patient
from tests.places.prefect import Place, hurried

Lab = tuple[Path, Path]
# What a simulated host cannot tell: so a plan of a reset, and no reset, is tried there.
NOT_SIMULATED = "no container of a pod is left"


@pytest.fixture(scope="module")
def lab(prefect_place: Place) -> Iterator[Lab]:
    """Yield a lab's folder and the file of its cluster of three hosts; te4's machine is bare, and in no file."""
    assert prefect_place
    with hurried(), Demo(latency=LATENCY) as demo:
        file = patient(demo.cluster_file())
        of_three = named(file, "te1", "te2", "te3")
        made = asyncio.run(_report(bootstrap, of_three))
        assert made.outcome == "ok", made.errors
        yield demo.folder, file


def named(file: Path, *names: str, **at: str) -> Path:
    """Write a file of these hosts, some of them at the address of another one; return its path."""
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    addresses = {host["name"]: host["address"] for host in data["hosts"]}
    data["hosts"] = [
        {**host, "address": addresses[at.get(host["name"], host["name"])]}
        for host in data["hosts"]
        if host["name"] in names
    ]
    written = file.with_name("of-some.yaml")
    written.write_text(yaml.safe_dump(data), encoding="utf-8")
    return written


async def _report(flow: Any, file: Path, *parameters: Any, **more: Any) -> Report:
    state = await flow(str(file), *parameters, return_state=True, **more)
    report = await state.aresult(raise_on_failure=False)
    assert isinstance(report, Report), report
    return report


def replaced(file: Path, mode: str = "replace", host: str = "te3", **more: Any) -> Report:
    """Run the flow to its end."""
    return asyncio.run(_report(replace, file, host, mode, **more))


def stages(report: Report) -> list[str]:
    """Return the stages in order, each with its host."""
    return [f"{one.stage} {one.host}" for one in report.stages]


def changed(report: Report) -> list[str]:
    """Return the steps that changed something."""
    return [row.step for stage in report.stages for row in stage.rows if row.outcome == "changed"]


@dataclass(frozen=True)
class MarkGone:
    """What the last step of a reset does with the mark of one."""

    impact: ClassVar[Impact] = Impact.FILES
    name: str = "no mark of a reset is left"

    async def check(self, on: Host) -> Drift | None:
        """Look for it."""
        return Drift("there", "none") if await on.read(FileText(RESETTING)) is not None else None

    async def apply(self, on: Host) -> None:
        """Remove it."""
        await on.do(Command(("rm", "-f", RESETTING)))


@pytest.fixture
def told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a reset end once kubeadm has undone the node: what comes after is not simulated."""
    whole = work.reset_steps

    def steps(*asked: Any) -> list[Any]:
        return [*(step for step in whole(*asked) if isinstance(step, KubeletOff | NodeUndone)), MarkGone()]

    monkeypatch.setattr(work, "reset_steps", steps)


def test_planes(prefect_place: Place, told_apart: None) -> None:
    with hurried(), Demo(latency=LATENCY) as demo:
        file = patient(demo.cluster_file())
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        for one in data["hosts"]:
            one["roles"] = ["control_plane"]
        file.write_text(yaml.safe_dump(data), encoding="utf-8")
        made = asyncio.run(_report(bootstrap, named(file, "te1", "te2", "te3")))
        assert made.outcome == "ok", made.errors
        for host in ("te3", "te1"):
            new = named(file, "te1", "te2", "te3", **{"te3":"te4", **({} if host == "te3" else {host: "te3"})})
            print(replaced(new, "plan", host=host).as_json())
            print(replaced(new, host=host).as_json())
        print(replaced(new, host=host, remake=True).as_json())
        print(asyncio.run(_report(bootstrap, new)).as_json())
        print(ask(demo.folder, do="unsimulated")["commands"])
