"""What is said at the end of a drift pass: what is left with its command, what was repaired, what could not be seen."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.cli.summary import tell_errors
from tasks.causes import shorten
from tasks.drift.gpu_map import tell_map
from tasks.drift.report import DriftReport, summarise
from tasks.findings import Shared, commands_of, group_findings, sort_left

STYLES = {
    "repaired": "green",
    "reported": "yellow",
    "held back": "yellow",
    "came back": "bold red",
    "failed": "bold red",
}
SHOWN = 40


def say(console: Console, report: DriftReport) -> None:
    """Print the end of a pass."""
    rest = sort_left(report.findings)
    done = [finding for finding in report.findings if finding.action == "repaired"]
    if report.findings:
        console.print(_table(group_findings([*done, *rest]), f"drift of {report.cluster}"))
    for one in group_findings(rest):
        if why := one.first.why:
            line = f"why: {one.who}: {one.first.step}: {why}"
            console.print(line, markup=False, highlight=False, soft_wrap=True, style="yellow")
    for command in commands_of(rest):
        console.print(f"to repair: {command}", markup=False, highlight=False, soft_wrap=True)
    for line in report.fights:
        console.print(f"fight: {line}", markup=False, highlight=False, soft_wrap=True, style="yellow")
    for warning in report.warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True, style="yellow")
    tell_errors(console, report.errors)
    for line in tell_map(report.gpus.get("map", ())):
        console.print(f"GPUs: {line}", markup=False, highlight=False, soft_wrap=True)
    trips = max((host.round_trips for host in report.hosts), default=0)
    console.print(
        f"outcome: {summarise(report)}; at most {trips} round trips per host, {report.seconds:.0f} s", highlight=False
    )


def _table(findings: Sequence[Shared], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    for column in ("host", "step", "have", "want", "impact", "action"):
        table.add_column(column, no_wrap=column in ("impact", "action"))
    for one in findings[:SHOWN]:
        f = one.first
        cells = (one.who, f.step, shorten(f.have, 160), shorten(f.want, 160), f.impact.lower(), f.action)
        table.add_row(*(escape(cell) for cell in cells), style=STYLES[f.action])
    if len(findings) > SHOWN:
        table.caption = f"and {len(findings) - SHOWN} more: see the report"
    return table
