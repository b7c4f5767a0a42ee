"""How a run ended that takes a host out: refused, planned, done or failed, and what stays."""

from __future__ import annotations

import time

from shipway.stage import StageName
from tasks.context import Run
from tasks.report import HostRow, Report, RunOutcome, broken_off_by, row_of
from tasks.stage_result import worst

ALLOWED = (StageName.MAY_REMOVE, StageName.MAY_RESET, StageName.MAY_RESET_ALL)
OF_NODE = (StageName.LEAVE_ETCD, StageName.DELETE_NODE)  # done in the cluster, and about the host


def retire_report(run: Run, *, broken_off: str = "") -> Report:
    """Return the report of a run that takes hosts out; `broken_off` says what ended it before its time."""
    errors = [error for result in run.results for error in result.errors]
    if broken_off:
        errors.append(broken_off_by(broken_off))
    names = [host.name for host in run.cluster.hosts] if run.retirement.whole else [run.retirement.host]
    return Report(
        run.cluster.name,
        run.cluster.profile,
        run.mode,
        "failed" if broken_off else outcome_of(run),
        round(time.monotonic() - run.started, 1),
        tuple(_host_row(run, name) for name in names if name),
        warnings=(*run.warned, *run.retirement.left),
        errors=tuple(dict.fromkeys(errors)),
        stages=tuple(run.results),
    )


def outcome_of(run: Run) -> RunOutcome:
    """Judge the run: refused where nothing was changed and something forbade it, failed where a later stage failed."""
    failed = [result for result in run.results if result.errors]
    changed = any(row.outcome == "changed" for result in run.results for row in result.rows)
    if any(result.stage in ALLOWED for result in failed) and not changed:
        return "refused"
    if failed:
        return "failed"
    return "planned" if run.mode == "plan" else "ok"


def _host_row(run: Run, name: str) -> HostRow:
    own = [result for result in run.results if result.host == name or result.stage in OF_NODE]
    known = {host.name for host in run.cluster.hosts}
    role = "control_plane" if name in {host.name for host in run.cluster.control_planes} else "worker"
    trips = run.session(name).round_trips if name in known else 0
    return row_of(name, role, worst([result.outcome for result in own]), own, trips)
