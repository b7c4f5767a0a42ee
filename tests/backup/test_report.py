"""How a backup or restore is judged: refused only where nothing was changed, ok only where all is as wanted."""

from __future__ import annotations

import pytest

from shipway.cluster_file import parse_cluster
from shipway.errors import ErrorReport
from shipway.step import Outcome
from tasks.context import Run
from tasks.judging import report_of_verb
from tasks.stage_result import Mode, StageResult

FILE = "name: te\nhosts: [{name: cp1, address: 192.0.2.1}]\n"
ERROR = ErrorReport("cp1", "a step", "SHW-722", "no room", "Make room.", retryable=False)


@pytest.mark.parametrize(
    ("mode", "admitted", "outcomes", "broken_off", "wanted"),
    [
        ("backup", {"cp1"}, ["ok", "changed"], "", ("ok", 0)),
        ("backup", {"cp1"}, ["ok", "drifted"], "", ("partial", 2)),
        ("backup", set(), ["failed"], "", ("refused", 1)),
        ("restore", {"cp1"}, ["ok", "failed"], "", ("failed", 3)),
        ("restore", set(), ["ok"], "the run was interrupted", ("failed", 3)),
        ("plan", set(), ["ok", "drifted"], "", ("planned", 0)),
        ("plan", set(), ["failed"], "", ("refused", 1)),
    ],
)
async def test_the_outcome_says_whether_anything_was_changed(
    mode: Mode, admitted: set[str], outcomes: list[Outcome], broken_off: str, wanted: tuple[str, int]
) -> None:
    run = Run(parse_cluster(FILE), mode)
    run.admitted |= admitted
    for outcome in outcomes:
        errors = (ERROR,) if outcome == "failed" else ()
        run.results.append(StageResult("cp1", "take_backup", outcome, errors=errors))
    report = report_of_verb(run, broken_off=broken_off)
    assert (report.outcome, report.exit_code) == wanted
