"""The report of a run about certificates: the report of a run, and the table of certificates."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from prefect.artifacts import acreate_table_artifact
from prefect.logging import get_run_logger

from shipway.cluster.parts import HostSpec
from shipway.errors import ErrorReport, Transient
from shipway.rules.solver import warnings_of
from tasks.artifacts import leave
from tasks.certificates.rows import KUBEADM
from tasks.context import Run
from tasks.passes.certificates import CertificateRow
from tasks.report import HostRow, Report, RunOutcome, row_of
from tasks.stage_result import report_redacted, worst

AGAIN = "Run again: what was renewed stays, and what is not loaded yet is loaded then."


@dataclass(frozen=True, slots=True)
class CertificatesReport(Report):
    """What a run about certificates found and did; `certificates` are as they were at its end."""

    certificates: tuple[CertificateRow, ...] = ()


def certificates_report(run: Run, *, broken_off: str = "") -> CertificatesReport:
    """Return the report; `broken_off` says what ended the run before its time."""
    hosts = tuple(_host_row(run, host) for host in run.hosts)
    errors = [error for result in run.results for error in result.errors]
    if broken_off:
        errors.append(report_redacted(Transient(broken_off, step="the run", code="SHW-209", fix=AGAIN)))
    outcome: RunOutcome = "failed" if broken_off else _outcome(run, hosts, errors)
    return CertificatesReport(
        run.cluster.name,
        run.cluster.profile,
        run.reported_mode,
        outcome,
        round(time.monotonic() - run.started, 1),
        hosts,
        warnings=(*warnings_of(run.cluster), *run.warned, *_findings(run), *run.certificates.left),
        errors=tuple(dict.fromkeys(errors)),
        stages=tuple(run.results),
        certificates=tuple(row for host in run.hosts for row in run.certificates.rows.get(host.name, ())),
    )


def _findings(run: Run) -> Iterator[str]:
    """Yield what the table says of certificates that no step of this command renews or loads."""
    for host in run.hosts:
        for row in run.certificates.rows.get(host.name, ()):
            if row.finding and row.renewed_by != KUBEADM:
                yield f"{row.host}: {row.name} (ends {row.ends}): {row.finding}"


def _host_row(run: Run, host: HostSpec) -> HostRow:
    own = [result for result in run.results if result.host == host.name]
    last = own[1:] or own  # what a look found is not what is left after it
    failed = any(result.errors for result in own)
    outcome = "failed" if failed else worst([result.outcome for result in last]) if own else "unknown"
    role = "control_plane" if host in run.cluster.control_planes else "worker"
    row = row_of(host.name, role, outcome, last, run.session(host.name).round_trips)
    return replace(row, seconds=round(sum(result.seconds for result in own), 1))


def _outcome(run: Run, hosts: Sequence[HostRow], errors: Sequence[ErrorReport]) -> RunOutcome:
    """Judge the run: without its control plane, or any host, it has failed; where some are left, it is partial."""
    lost = {host.name for host in hosts if host.outcome in ("failed", "unknown")}
    if errors or lost:
        return "failed" if run.control.name in lost or len(lost) == len(hosts) else "partial"
    if run.mode == "plan":
        return "planned"
    return "drifted" if any(result.outcome == "drifted" for result in run.results[len(hosts) :]) else "ok"


async def leave_certificates(run: Run) -> None:
    """Leave the artifacts of every run, and the table of certificates."""
    await leave(run)
    report = run.report
    if not isinstance(report, CertificatesReport):
        return
    rows = [
        {"host": r.host, "certificate": r.name, "days left": r.days, "ends": r.ends, "renewed by": r.renewed_by}
        | {"served": r.served, "finding": r.finding}
        for r in report.certificates
    ]
    key = f"certificates-{run.cluster.name}-table"
    try:
        await acreate_table_artifact(rows, key=key, description="Every certificate, when it ends, what is served")
    except Exception as error:  # noqa: BLE001 - an artifact is no reason to fail a run
        get_run_logger().warning("no table of certificates: %s", error)
