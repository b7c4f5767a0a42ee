"""Drift on real hosts: an untouched cluster shows none; each row of the table is found and comes to its end."""

from __future__ import annotations

import time

import pytest

from tests.drift.page import keep
from tests.drift.rows import ROWS, Row
from tests.lab.conftest import Site
from tests.lab.drifting import passed

pytestmark = pytest.mark.lab
UNTIL_TRIES = 90


def waited(drifting: Site, row: Row) -> None:
    for _ in range(UNTIL_TRIES):
        if drifting.holds(row.on, f"{{ {row.until}; }} >/dev/null 2>&1"):
            return
        time.sleep(1)
    pytest.fail(f"not so after {UNTIL_TRIES} tries: {row.until}")


def settled(drifting: Site) -> None:
    """Wait until the break before this one has passed: a kubelet tells of a GPU's return some seconds after it."""
    query = "get nodes -o jsonpath='{range .items[*]}{.metadata.name}={.status.allocatable.nvidia\\.com/gpu} {end}'"
    for _ in range(UNTIL_TRIES):
        if {"w1=2", "w2=2"} <= set(drifting.kubectl(query).split()):
            return
        time.sleep(1)
    pytest.fail(f"not all GPUs are allocatable after {UNTIL_TRIES} tries")


def test_an_untouched_cluster_shows_no_drift_twenty_times(drifting: Site) -> None:
    for _ in range(20):
        report = passed(drifting, "none")
        assert (report.outcome, report.findings) == ("ok", ())
        assert all(host.round_trips <= 3 for host in report.hosts)


LONG = pytest.mark.lab_long  # a minute and more: `make test-lab-long`


@pytest.mark.parametrize("row", [pytest.param(row, id=row.what, marks=[LONG] * row.long) for row in ROWS])
def test_what_is_broken_is_found_and_comes_to_its_end(drifting: Site, row: Row) -> None:
    settled(drifting)
    if "NotReady" in row.what:
        drifting.on("w1", "systemctl stop kubelet")
    drifting.lab.exec(row.on, "bash", "-c", row.script)
    if row.until:
        waited(drifting, row)
    try:
        report = passed(drifting, "service")
    finally:
        if row.undo:
            drifting.lab.exec(row.on, "bash", "-c", row.undo)
    main = [f for f in report.findings if f.host == row.host and f.step.startswith(row.step)]
    assert main, report.findings
    assert {finding.action for finding in main} == {row.end}
    assert row.why in main[0].why
    rest = [finding for finding in report.findings if finding not in main]
    assert all(finding.step.startswith(row.also or ("nothing",)) for finding in rest), rest
    if row.end == "repaired":
        assert report.outcome == "ok", rest
    keep(row.what, main[0], "containers")


def test_afterwards_nothing_is_left(drifting: Site) -> None:
    settled(drifting)
    assert passed(drifting, "none").findings == ()
