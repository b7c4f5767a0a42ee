"""A worker of a SIMULATED lab whose system asks for a restart, by the flow: refused, planned, restarted, opened."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.bootstrap import bootstrap
from flows.cli.demo import Demo
from flows.maintain import maintain
from lab.simulated.control import ask
from tasks.context import VIEW
from tasks.waves.report import WaveReport
from tests.flows.story import Kept
from tests.places.prefect import Place, hurried

pytestmark = pytest.mark.faults  # a minute: `make test-faults`
MARK = "/run/reboot-required"
MODULE = "/lib/modules/5.15.0-134-generic/updates/dkms/nvidia.ko"


def fly(flow: Any, file: Path, *words: Any) -> Any:
    """Run a flow on the lab; return its report."""
    view = Kept()
    VIEW.set(view)
    asyncio.run(flow(str(file), *words, return_state=True))
    return view.run.report


def changed(report: WaveReport) -> set[tuple[str, str]]:
    """Return host and step of what was changed."""
    return {(stage.host, row.step) for stage in report.stages for row in stage.rows if row.outcome == "changed"}


def test_a_worker_that_asks_for_a_restart_is_restarted_once_and_nobody_else(prefect_place: Place) -> None:
    assert prefect_place
    with hurried(), Demo(latency=0.02) as demo:
        data = yaml.safe_load(demo.cluster_file().read_text(encoding="utf-8"))
        data |= {"maintain": {"packages": "none"}, "upgrade": {"soak_seconds": 1}}
        file = demo.folder / "maintained.yaml"
        file.write_text(yaml.safe_dump(data), encoding="utf-8")
        assert fly(bootstrap, file).outcome == "ok"
        nothing = fly(maintain, file, "maintain")
        assert (nothing.outcome, nothing.order, changed(nothing)) == ("ok", (), set()), nothing.errors
        ask(demo.folder, do="drift", host="te3", kind="edit", path=MARK, add="*** System restart required ***")
        refused = fly(maintain, file, "maintain")
        assert (refused.outcome, [one.code for one in refused.errors]) == ("refused", ["SHW-820"])
        ask(demo.folder, do="drift", host="te3", kind="edit", path=MODULE, add="SIMULATED module")
        plan = fly(maintain, file, "plan")
        assert (plan.outcome, [row.host for row in plan.order]) == ("planned", ["te3"]), plan.errors
        assert "a restart: the system asks for it" in plan.order[0].want
        done = fly(maintain, file, "maintain")
        assert done.outcome == "ok", done.errors
        assert ("te3", "the host runs what is installed") in changed(done)
        assert {host for host, _ in changed(done)} == {"te3"}
        again = fly(maintain, file, "maintain")
        assert (again.outcome, again.order, changed(again)) == ("ok", (), set())
        unknown = ask(demo.folder, do="unsimulated")["commands"]
        certificates = "openssl x509"  # their ends are looked at by a script that the lab does not know
        assert [line for lines in unknown.values() for line in lines if certificates not in line] == []
