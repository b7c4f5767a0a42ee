"""Counts the cases of all fault tests, whichever process ran them; says how many there were and how long it took."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.plain import installed
from tests.faults.undisturbed import Known, undisturbed

_STARTED = time.monotonic()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the cases by kind, what could not be spoiled, and the wall time."""
    reports = [one for group in ("passed", "failed") for one in terminalreporter.getreports(group)]
    counts: Counter[str] = Counter()
    for report in reports:
        own = [dict(value) for name, value in report.user_properties if name == "cases"]
        counts.update(own[0]) if own else counts.update([report.nodeid.rpartition("::")[2].partition("[")[0]])
    if not counts:
        return
    heard = dict.fromkeys(value for report in reports for name, value in report.user_properties if name == "reported")
    never = {kind: counts.pop(kind) for kind in list(counts) if kind.startswith("never came")}
    minutes = (time.monotonic() - _STARTED) / 60
    terminalreporter.section("faults")
    for line in heard:
        terminalreporter.write_line(line)
    for kind, count in sorted(counts.items()):
        terminalreporter.write_line(f"{count:5}  {kind}")
    terminalreporter.write_line(f"{sum(counts.values())} cases in {minutes:.1f} minutes")
    if never:
        terminalreporter.write_line(f"of these, nothing was spoiled in {sum(never.values())}: the exchange never came")


@pytest.fixture
def counted(record_property: Any) -> dict[str, int]:
    """Return the counts of cases by kind that end up in the summary; a plain dict, for it travels between processes."""
    counts: dict[str, int] = {}
    record_property("cases", counts)
    return counts


@pytest.fixture(scope="module")
def known() -> Iterator[Known]:
    """What an undisturbed bootstrap does and leaves; the plain ways are in place meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        installed(patch)
        yield asyncio.run(undisturbed())
