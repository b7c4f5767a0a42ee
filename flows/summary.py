"""What is said at a run's end: the hosts, the cards, errors with their fixes, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.terminal import STYLES
from tasks.context import Run
from tasks.report import Report

NEXT = {
    "planned": "next: the same command without --plan brings this about",
    "drifted": "next: what is withheld beside running pods is named above, with the command that does it when it may",
    "refused": "nothing was changed",
}
COUNTED = ("ok", "changed", "drifted", "unknown", "failed")


def grouped(report: Report) -> list[str]:
    """Give each error once, "hosts: step: message [code] Next: fix", however many hosts it befell."""
    hosts: dict[tuple[str, str, str, str], list[str]] = {}
    for error in report.errors:
        hosts.setdefault((error.step, error.cause, error.code, error.fix), []).append(error.host)
    return [f"{_named(names)}{step}: {cause} [{code}] Next: {fix}" for (step, cause, code, fix), names in hosts.items()]


def _named(names: Sequence[str]) -> str:
    known = [name for name in dict.fromkeys(names) if name]
    return f"{', '.join(known)}: " if known else ""


def say(console: Console, report: Report, run: Run | None, *, simulated: bool = False, gone: bool = False) -> None:
    """Print the end of a run; `gone` when its SIMULATED lab ends with it."""
    mark = "SIMULATED " if simulated else ""
    if report.hosts:
        console.print(_table(report, f"{mark}{report.mode} of {report.cluster}: {report.outcome}"))
    if report.mode == "plan":
        _planned(console, report)
    for line in grouped(report):
        console.print(f"error: {line}", markup=False, highlight=False, soft_wrap=True, style="red")
    for warning in report.warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True, style="yellow")
    gpus = report.gpus
    if report.mode == "bootstrap" and report.hosts:
        seen = f"{gpus['expected']} expected, {gpus['allocatable']} allocatable, {gpus['verified']} verified"
        console.print(f"{mark}GPUs: {seen}", highlight=False)
    console.print(f"{mark}outcome: {report.outcome}, {report.seconds:.0f} s", highlight=False)
    for line in _next(report, run, gone=gone):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(report: Report, title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    counted = [name for name in COUNTED if name in ("ok", "changed") or any(host.steps[name] for host in report.hosts)]
    for column in ("host", "role", "outcome", *counted, "trips", "seconds"):
        table.add_column(column, justify="left" if column in ("host", "role", "outcome") else "right", no_wrap=True)
    for host in report.hosts:
        counts = [str(host.steps[outcome]) for outcome in counted]
        cells = (host.name, host.role, host.outcome, *counts, str(host.round_trips), f"{host.seconds:.1f}")
        table.add_row(*cells, style=STYLES[host.outcome])
    return table


def _planned(console: Console, report: Report) -> None:
    """List what a bootstrap would change, and what cannot be told yet; the same on many hosts is said once.

    What a bootstrap would refuse has failed, and is told as the error it will be.
    """
    for outcome, words in (("drifted", "would change"), ("unknown", "cannot be told yet")):
        hosts: dict[str, list[str]] = {}
        for stage in report.stages:
            for row in stage.rows:
                if row.outcome == outcome:
                    detail = f"have {row.have}; want {row.want}" if row.want else row.why
                    hosts.setdefault(f"{row.step} ({detail})", []).append(stage.host)
        for sentence, names in hosts.items():
            line = f"{words}: {sentence} [{', '.join(dict.fromkeys(names))}]"
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _next(report: Report, run: Run | None, *, gone: bool) -> list[str]:
    """Give what to do next."""
    if gone:
        return ["the SIMULATED lab is gone; `--keep` leaves one up to look around in"]
    kubeconfig: Path | None = run.folder / "kubeconfig" if run else None
    if report.outcome in ("ok", "partial") and report.mode == "bootstrap" and kubeconfig and kubeconfig.exists():
        lines = [f"kubeconfig: {kubeconfig}", f"look around: kubectl --kubeconfig {kubeconfig} get nodes -o wide"]
        if report.outcome == "partial":
            lines.append("then: mend what is named above and run the same command again; it does only what is missing")
        return lines
    if (line := NEXT.get(report.outcome)) is not None:
        return [line]
    if report.mode == "plan":
        return ["nothing was changed; next: mend what is named above, for a run without --plan would end by it too"]
    return ["next: mend what is named above and run the same command again; it goes on where this run ended"]
