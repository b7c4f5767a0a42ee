"""How a replacement ended: as a bootstrap of the host does, with what the removal leaves to a person."""

from __future__ import annotations

from dataclasses import replace

from tasks.context import Run
from tasks.judging import report_of
from tasks.report import Report


def replace_report(run: Run, *, broken_off: str = "") -> Report:
    """Return the report; `broken_off` says what ended the run before its time."""
    report = report_of(run, broken_off=broken_off)
    return replace(report, warnings=tuple(dict.fromkeys((*run.retirement.left, *report.warnings))))
