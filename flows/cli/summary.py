"""What is said at a run's end: the hosts, the GPUs, errors with their fixes, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.cli.terminal import STYLES
from shipway.errors import ErrorReport
from tasks.causes import group_errors, list_hosts
from tasks.context import Run
from tasks.report import HostRow, Report, say_follows

NEXT = {
    "planned": "next: the same command without --plan brings this about",
    "drifted": "next: what is withheld beside running pods is named above, with the command that does it when it may",
    "refused": "nothing was changed",
}
BESIDE = (
    "next: the same command without --plan brings about what disturbs no running pod; the rest it withholds and names"
)
MEND = "mend what is named above and run the same command again; it does only what is missing"
LATER = "nothing is to be mended; `python -m flows.verify` proves the GPUs when some are free"
BY_PROOF = ("bootstrap", "verify", "replace")
MANY = 20  # hosts from which on those with the same role and outcome share a row
COUNTED = ("ok", "changed", "drifted", "unknown", "failed")


def tell_errors(console: Console, errors: Sequence[ErrorReport]) -> None:
    """Print each cause once, "hosts: step: cause [code] Next: fix", however many hosts it befell."""
    for one in group_errors(errors):
        line = f"error: {one.said} Next: {one.fix}"
        console.print(line, markup=False, highlight=False, soft_wrap=True, style="red")
        for detail in one.each:
            console.print(f"       {detail}", markup=False, highlight=False, soft_wrap=True, style="red")


def say(console: Console, report: Report, run: Run | None, *, simulated: bool = False, gone: bool = False) -> None:
    """Print the end of a run; `gone` when its SIMULATED lab ends with it."""
    mark = "SIMULATED " if simulated else ""
    kind = run.kind if run else report.mode
    if report.hosts:
        console.print(_table(report, f"{mark}{kind} of {report.cluster}: {report.outcome}"))
    if report.mode == "plan":
        _tell_planned(console, report)
    tell_errors(console, report.errors)
    for line in say_follows(report.stages):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for warning in report.warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True, style="yellow")
    gpus = report.gpus
    if report.mode in BY_PROOF and kind in BY_PROOF and report.hosts:
        seen = f"{gpus['expected']} expected, {gpus['allocatable']} allocatable, {gpus['verified']} verified"
        held = "; pods hold every one, so none was free to be proven" if gpus.get("outcome") == "all held" else ""
        console.print(f"{mark}GPUs: {seen}{held}", markup=False, highlight=False, soft_wrap=True)
    if run and run.figures.rows:
        _tell_figures(console, run)
    console.print(f"{mark}outcome: {report.outcome}, {report.seconds:.0f} s", highlight=False)
    for line in _next(report, run, gone=gone):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _tell_figures(console: Console, run: Run) -> None:
    """Print a line per GPU, the bad first, and how many figures are good, bad, not judged."""
    for gpu in run.figures.table():
        aside = ("host", "verdict", "GPU", "why")
        shown = (gpu["GPU"], *(f"{name} {value}" for name, value in gpu.items() if value and name not in aside))
        told = f"{gpu['host']}: {gpu['verdict']}: {', '.join(shown)}" + (f": {gpu['why']}" if gpu["why"] else "")
        style = "red" if gpu["verdict"] == "bad" else None
        console.print(told, markup=False, highlight=False, soft_wrap=True, style=style)
    console.print(f"figures: {run.figures.said}", markup=False, highlight=False, soft_wrap=True)


def _table(report: Report, title: str) -> Table:
    """Return the table of the hosts; of many, those with the same role and outcome share a row."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    counted = [name for name in COUNTED if name in ("ok", "changed") or any(host.steps[name] for host in report.hosts)]
    table.add_column("host", overflow="fold")
    for column in ("role", "outcome", *counted, "trips", "seconds"):
        table.add_column(column, justify="left" if column in ("role", "outcome") else "right", no_wrap=True)
    rows: dict[tuple[str, ...], list[HostRow]] = {}
    for host in report.hosts:
        own = () if len(report.hosts) > MANY else (host.name,)
        rows.setdefault((host.role, host.outcome, *own), []).append(host)
    for (role, outcome, *_), hosts in rows.items():
        counts = [_span(host.steps[name] for host in hosts) for name in counted]
        seconds = f"{max(host.seconds for host in hosts):.1f}"
        trips = _span(host.round_trips for host in hosts)
        names = list_hosts(host.name for host in hosts)
        table.add_row(names, role, outcome, *counts, trips, seconds, style=STYLES[hosts[0].outcome])
    return table


def _span(numbers: Iterable[int]) -> str:
    """Return the numbers of the hosts that share a row: "3", or "3-5"."""
    known = sorted(set(numbers))
    return str(known[0]) if len(known) == 1 else f"{known[0]}-{known[-1]}"


def _tell_planned(console: Console, report: Report) -> None:
    """List what a bootstrap would change, and what cannot be determined yet; the same on many hosts is said once.

    What a bootstrap would refuse has failed, and is reported as the error it will be; what was not tried after that is
    counted below it.
    """
    for outcome, words in (("drifted", "would change"), ("unknown", "cannot be determined yet")):
        hosts: dict[str, list[str]] = {}
        for stage in report.stages:
            for row in stage.rows:
                if row.outcome == outcome and not row.follows:
                    detail = f"have {row.have}; want {row.want}" if row.want else row.why
                    hosts.setdefault(f"{row.step} ({detail})", []).append(stage.host)
        for sentence, names in hosts.items():
            line = f"{words}: {sentence} [{list_hosts(names)}]"
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _next(report: Report, run: Run | None, *, gone: bool) -> list[str]:
    """Return what to do next."""
    if gone:
        return ["the SIMULATED lab is gone; `--keep` leaves one up to look around in"]
    kubeconfig: Path | None = run.folder / "kubeconfig" if run else None
    if report.outcome in ("ok", "partial") and report.mode in BY_PROOF and kubeconfig and kubeconfig.exists():
        lines = [f"kubeconfig: {kubeconfig}", f"look around: kubectl --kubeconfig {kubeconfig} get nodes -o wide"]
        if report.outcome == "partial":
            whole = report.gpus.get("outcome") == "all held" and not report.errors
            lines.append("then: " + (LATER if whole else MEND))
        return lines
    if report.outcome == "planned" and run and (run.seen.busy or run.seen.podded) and report.counted["drifted"]:
        return [BESIDE]
    if report.outcome == "ok" or report.outcome in NEXT:
        return [NEXT[report.outcome]] if report.outcome in NEXT else []
    if report.mode == "plan":
        return ["nothing was changed; next: mend what is named above, for a run without --plan would end by it too"]
    return ["next: mend what is named above and run the same command again; it goes on where this run ended"]
