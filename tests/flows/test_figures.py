"""`shipway verify --level full` on a SIMULATED cluster: what it measures is in report, artifact and terminal."""

from __future__ import annotations

import asyncio
import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from flows.cli.summary import say
from flows.cli.verify import build_parser
from flows.verify import verify_cluster
from tasks.context import ON_OPEN, Run
from tasks.passes.figures import Level
from tasks.report import Report
from tests.drift.scene import Scene
from tests.places.prefect import rows

pytestmark = pytest.mark.xdist_group("drift")


def verified(scene: Scene, level: Level) -> tuple[Report, str]:
    """Return the report of a verification, and what its end says on a terminal."""
    opened: list[Run] = []

    async def fly() -> Report:
        token = ON_OPEN.set(opened.append)
        try:
            state = await verify_cluster(str(scene.file), level=level, return_state=True)
        finally:
            ON_OPEN.reset(token)
        report: Report = await state.aresult(raise_on_failure=False)
        return report

    report, text = asyncio.run(fly()), StringIO()
    say(Console(file=text, width=200), report, opened[0])
    return report, text.getvalue()


def test_the_level_is_quick_unless_another_is_asked_for() -> None:
    parser = build_parser("shipway verify")
    assert parser.parse_args(["c.yaml"]).level == "quick"
    assert parser.parse_args(["c.yaml", "--level", "full"]).level == "full"


def test_what_each_gpu_reaches_is_told_and_a_false_one_fails_the_run(scene: Scene, tmp_path: Path) -> None:
    scene.drift("te2", "figures", wrong="yes")
    try:
        report, said = verified(scene, "full")
    finally:
        scene.drift("te2", "figures")
    assert (report.outcome, report.exit_code) == ("partial", 2)
    (error,) = report.errors
    assert (error.host, error.code) == ("te2", "SHW-631")
    assert "SIMULATED H200" in error.cause
    figures = report.gpus["figures"]
    assert (figures["level"], figures["bad"]) == ("full", 1)
    assert {row["host"] for row in figures["rows"]} == {"te1", "te2", "te3", "cluster"}
    assert "te2: bad: SIMULATED H200" in said
    assert "matmul 399.9" in said
    assert f"figures: {figures['good']} good, 1 bad" in said
    report.write(tmp_path / "report.json")
    key = f"verify-{report.cluster}-figures"
    (data,) = rows(scene.home, "select data from artifact where key = ? order by created desc limit 1", key)
    assert [line["verdict"] for line in json.loads(json.loads(data[0]))] == ["bad", "not judged", "good", "good"]
    report, said = verified(scene, "full")  # what was false is told no more: nothing of it is left on the node
    assert (report.outcome, report.exit_code) == ("ok", 0), report.errors
    assert report.gpus["figures"]["bad"] == 0
