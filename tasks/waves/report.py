"""The report of a run in waves: the report of a run, the order of the hosts, and what a person should know of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from prefect.artifacts import acreate_table_artifact
from prefect.logging import get_run_logger

from tasks.artifacts import leave
from tasks.context import Run
from tasks.judging import report_of
from tasks.passes.waves import OrderRow
from tasks.report import Report, RunOutcome
from tasks.waves.hosts import is_control


@dataclass(frozen=True, slots=True)
class WaveReport(Report):
    """What such a run found and did; `order` is how the hosts come, `notes` what is to be known before it."""

    order: tuple[OrderRow, ...] = ()
    notes: tuple[str, ...] = ()


def wave_report(run: Run, *, broken_off: str = "") -> WaveReport:
    """Return the report; `broken_off` says what ended the run before its time."""
    plain, seen = report_of(run, broken_off=broken_off), run.waves
    errors = plain.errors if seen.stopped is None else tuple(dict.fromkeys((*plain.errors, seen.stopped)))
    warnings = tuple(f"{name} is left out: {why}" for name, why in sorted(seen.skipped.items()))
    shown = {name: getattr(plain, name) for name in Report.__dataclass_fields__}
    made = WaveReport(**shown, order=tuple(seen.order), notes=tuple(seen.notes))
    return replace(
        made,
        outcome=_outcome(run, broken_off=broken_off, failed=bool(errors)),
        errors=errors,
        warnings=(*plain.warnings, *warnings),
    )


def _outcome(run: Run, *, broken_off: str, failed: bool) -> RunOutcome:
    """Judge the run: refused before anything was changed; failed without a control plane; partial where hosts wait."""
    seen = run.waves
    if broken_off:
        return "failed"
    if failed and not seen.changed:
        return "refused"
    if run.mode == "plan":
        return "planned"
    if any(not result.stands and _is_shared(run, result.host) for result in run.results):
        return "failed"
    return "partial" if failed or seen.skipped else "ok"


def _is_shared(run: Run, host: str) -> bool:
    """Say whether all rests on it: the cluster itself, or a control plane."""
    return host not in {spec.name for spec in run.cluster.hosts} or is_control(run, host)


async def leave_waves(run: Run) -> None:
    """Leave the artifacts of every run, and the order of the hosts."""
    await leave(run)
    report = run.report
    if not isinstance(report, WaveReport) or not report.order:
        return
    rows = [
        {"host": row.host, "wave": row.wave, "has": row.have, "gets": row.want, "pods that leave": row.pods}
        | {"GPU jobs": ", ".join(row.jobs)}
        for row in report.order
    ]
    verb = run.waves.verb
    said = "\n".join((f"The order of the {verb}", "", *(f"- {note}" for note in report.notes)))
    try:
        await acreate_table_artifact(rows, key=f"{verb}-{run.cluster.name}-order", description=said)
    except Exception as error:  # noqa: BLE001 - an artifact is no reason to fail a run
        get_run_logger().warning("no table of the order: %s", error)
