"""The report of a drift pass: the report of a run, and what became of every finding."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from shipway.cluster.parts import HostSpec
from shipway.errors import ErrorReport, Transient
from shipway.rules.solver import warnings_of
from shipway.step import Outcome
from tasks.context import Run
from tasks.drift.gpu_map import as_rows, list_gpus
from tasks.findings import Finding, count_by_action, distinct, sort_left
from tasks.report import NO_GPUS, HostRow, Report, RunOutcome
from tasks.stage_result import StageResult, report_redacted, worst

AGAIN = "Run the pass again: it looks first, so a repair that was cut off is finished."


@dataclass(frozen=True, slots=True)
class DriftReport(Report):
    """What a pass found and what became of it.

    `repair` is the highest impact that was allowed, `fights` what was repaired three times and more within a day,
    `trend` the last passes with their counts.
    """

    repair: str = "none"
    findings: tuple[Finding, ...] = ()
    fights: tuple[str, ...] = ()
    trend: tuple[dict[str, Any], ...] = ()


def findings_of(run: Run) -> list[Finding]:
    """Return all findings of a pass in the order of the cluster file's hosts, the cluster's last."""
    hosts = [f for host in run.hosts for f in run.drift.findings.get(host.name, ())]
    return distinct([*hosts, *run.drift.across, *run.drift.of_cluster])


def drift_report(run: Run, *, broken_off: str = "") -> DriftReport:
    """Return the report of a pass; `broken_off` says what ended it before its time."""
    findings = findings_of(run)
    errors = list(_unseen(run))
    if broken_off:
        errors.append(report_redacted(Transient(broken_off, step="the run", code="SHW-209", fix=AGAIN)))
    expected = sum(run.provable(host) for host in run.hosts)
    return DriftReport(
        run.cluster.name,
        run.cluster.profile,
        run.mode,
        "failed" if broken_off else _outcome(run, findings, errors),
        round(time.monotonic() - run.started, 1),
        tuple(_row(run, host, findings) for host in run.hosts),
        {
            **NO_GPUS,
            "expected": expected,
            "allocatable": sum(run.drift.allocatable.get(host.name, 0) for host in run.hosts),
            "map": as_rows(list_gpus(run)),
        },
        warnings=(*warnings_of(run.cluster), *run.warned),
        errors=tuple(dict.fromkeys(errors)),
        stages=tuple(_short(result) for result in run.results),
        findings=tuple(findings),
        repair=run.allow.name.lower(),
        fights=tuple(run.drift.fights),
        trend=tuple(run.drift.trend),
    )


def _short(result: StageResult) -> StageResult:
    """Leave out the steps that are as wanted: of a thousand hosts they are megabytes."""
    return replace(result, rows=tuple(row for row in result.rows if row.outcome != "ok"))


def _unseen(run: Run) -> Sequence[ErrorReport]:
    """Return what kept from looking at a host or the cluster at all; what a look found is a finding, no error."""
    failed = [result for result in run.results if result.errors]
    later = {(result.host, result.stage) for result in run.results if not result.errors}
    return [
        error
        for result in failed
        for error in result.errors
        if not result.rows and (result.host, result.stage) not in later
    ]


def _row(run: Run, host: HostSpec, findings: Sequence[Finding]) -> HostRow:
    """Return a host's row: repaired counts as changed, what is left as drifted, a host that was not seen as failed."""
    own = [finding for finding in findings if finding.host == host.name]
    results = [result for result in run.results if result.host == host.name]
    steps: Counter[Outcome] = Counter(row.outcome for result in results[:1] for row in result.rows)
    ends: tuple[Outcome, ...] = ("drifted", "unknown", "failed")
    for end in ends:
        del steps[end]  # the findings tell what became of those
    steps["changed"] = sum(finding.action == "repaired" for finding in own)
    steps["drifted"] = len(own) - steps["changed"]
    outcome = worst([end for end in get_args(Outcome) if steps[end]])
    if host.name not in run.seen.surveys:
        outcome, steps["failed"] = "failed", 1
    role = "control_plane" if host in run.cluster.control_planes else "worker"
    seconds = round(sum(result.seconds for result in results), 1)
    counts = {name: steps[name] for name in get_args(Outcome)}
    return HostRow(host.name, role, outcome, counts, run.session(host.name).round_trips, seconds)


def _outcome(run: Run, findings: Sequence[Finding], errors: Sequence[ErrorReport]) -> RunOutcome:
    """Judge: nothing seen at all failed; some host or the API not seen is partial; drift that is left is drifted."""
    if not run.seen.surveys:
        return "failed"
    if errors:
        return "partial"
    return "drifted" if sort_left(findings) else "ok"


def summarise(report: DriftReport) -> str:
    """Return a pass in a line: hosts, and what became of the findings."""
    counts = count_by_action(report.findings)
    ends = ", ".join(f"{count} {action}" for action, count in counts.items()) or "no drift"
    return f"{report.outcome}: {len(report.hosts)} hosts; {ends}"
