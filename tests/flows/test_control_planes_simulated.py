"""Three control planes of a SIMULATED lab, by the flow itself: made, run again, and mended from what broke off."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.bootstrap import bootstrap
from flows.cli.demo import Demo
from flows.drift_repair import drift_repair
from flows.remove import remove
from lab.simulated.control import ask
from tasks.context import VIEW
from tasks.report import Report
from tests.flows.story import Kept
from tests.places.prefect import Place, hurried

# A minute of `make test-faults`; each goes on from what the one before it left.
pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("three")]
PLANES = ("te1", "te2", "te3")


def _bootstrapped(file: Path, **asked: Any) -> Report:
    view = Kept()
    VIEW.set(view)
    asyncio.run(bootstrap(str(file), return_state=True, **asked))
    assert isinstance(view.run.report, Report)
    return view.run.report


def changed(report: Report) -> dict[str, list[str]]:
    """Return by host the steps that changed something."""
    found: dict[str, list[str]] = {}
    for stage in report.stages:
        found.setdefault(stage.host, []).extend(row.step for row in stage.rows if row.outcome == "changed")
    return {host: steps for host, steps in found.items() if steps}


@pytest.fixture(scope="module")
def lab(prefect_place: Place) -> Any:
    """Yield the folder of a lab and a file with three control planes and one worker."""
    assert prefect_place
    with hurried(), Demo(latency=0.02) as demo:
        data = yaml.safe_load(demo.cluster_file().read_text(encoding="utf-8"))
        data["hosts"] = [
            {**host, "roles": ["control_plane" if host["name"] in PLANES else "worker"]} for host in data["hosts"]
        ]
        file = demo.folder / "three.yaml"
        file.write_text(yaml.safe_dump(data), encoding="utf-8")
        yield demo.folder, file


def test_three_control_planes_are_made_and_a_second_run_changes_nothing(lab: tuple[Path, Path]) -> None:
    folder, file = lab
    first = _bootstrapped(file)
    assert first.outcome == "ok", first.errors
    assert all("the control plane has joined" in changed(first)[name] for name in PLANES[1:])
    text = ask(folder, do="file", host="te4", path="/etc/hosts")["text"]
    assert "127.0.0.1 api.simulated.internal" in text
    unknown = ask(folder, do="unsimulated")["commands"]
    assert unknown == {}
    again = _bootstrapped(file)
    assert (again.outcome, changed(again)) == ("ok", {})


def test_a_plan_says_what_the_removal_of_one_of_three_means_and_changes_nothing(lab: tuple[Path, Path]) -> None:
    folder, file = lab
    before = ask(folder, do="digest")["digests"]
    refused = asyncio.run(_removed(file, "remove"))
    assert [error.code for error in refused.errors] == ["SHW-707"]
    plan = asyncio.run(_removed(file, "plan", to_replace=True))
    assert {error.step for error in plan.errors} <= {"no container of a pod is left"}  # its question is not simulated
    would = {(stage.host, row.step) for stage in plan.stages for row in stage.rows if row.outcome == "drifted"}
    assert {
        ("te4", "the proxy to the API knows every control plane"),
        ("cluster", "te3 is no member of etcd"),
        ("cluster", "node te3 is not in the cluster"),
        ("te3", "nothing of kubeadm's is left"),
    } <= would
    assert ask(folder, do="digest")["digests"] == before


async def _removed(file: Path, mode: Any, **asked: Any) -> Report:
    state = await remove(str(file), "te3", mode, return_state=True, **asked)
    report = await state.aresult(raise_on_failure=False)
    assert isinstance(report, Report)
    return report


def test_a_cluster_that_was_made_with_an_address_goes_on_by_it_unasked(prefect_place: Place) -> None:
    assert prefect_place
    with hurried(), Demo(latency=0.02) as demo:
        open_file = demo.cluster_file()
        data = yaml.safe_load(open_file.read_text(encoding="utf-8"))
        address = data["hosts"][0]["address"]
        data["kubernetes"] = {**data.get("kubernetes", {}), "api_endpoint": address}
        old = open_file.with_name("old.yaml")
        old.write_text(yaml.safe_dump(data), encoding="utf-8")
        first = _bootstrapped(old)
        assert first.outcome == "ok", first.errors
        before = ask(demo.folder, do="digest")["digests"]
        again = _bootstrapped(open_file)
        assert (again.outcome, changed(again)) == ("ok", {})
        assert ask(demo.folder, do="digest")["digests"] == before
        assert "internal" not in ask(demo.folder, do="file", host="te2", path="/etc/hosts")["text"]
        findings = asyncio.run(_found(open_file))
        assert findings == []


async def _found(file: Path) -> list[str]:
    state = await drift_repair(str(file), "none", return_state=True)
    report = await state.aresult(raise_on_failure=False)
    return [f"{one.host}: {one.step}: {one.have}" for one in report.findings]
