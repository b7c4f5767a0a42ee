"""How a stage ended on a host: plain data for the report, the artifacts and the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from shipway.converge import EARLIER_FAILED
from shipway.errors import Blocked, DeadlineExceeded, ErrorReport, Permanent, ShipwayError
from shipway.known_failures.catalogue import diagnose
from shipway.redact import redact
from shipway.step import Impact, Outcome, StepResult
from tasks.causes import group_errors, shorten

Mode = Literal[
    "bootstrap",
    "plan",
    "drift",
    "verify",
    "remove",
    "replace",
    "reset",
    "backup",
    "restore",
    "certificates",
    "move-endpoint",
    "rotate-ca",
    "harden",
    "upgrade",
    "maintain",
]
CLUSTER = "cluster"  # the host name of what is done on the cluster as a whole
WORST_FIRST: tuple[Outcome, ...] = ("failed", "unknown", "drifted", "changed", "ok")
SAID, SAID_EACH = 2, 240  # errors in a state's message, and characters of each: the report has all of them whole
NOT_TRIED = "not tried: an earlier stage did not succeed"
BY_HAND = "Bring the host to what is wanted (no step can do it for you), then run again."


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step's line: what was, what was wanted, and why it failed or could not be determined."""

    step: str
    outcome: Outcome
    have: str = ""
    want: str = ""
    why: str = ""
    seconds: float = 0.0
    id: str = ""  # what the step is about, in a form that outlives its wording

    @property
    def follows(self) -> bool:
        """Whether it was not tried only because of what failed before it: that is reported once, where it failed."""
        return self.outcome == "unknown" and self.why in (NOT_TRIED, EARLIER_FAILED)

    @classmethod
    def of(cls, result: StepResult) -> StepRow:
        """Return the line of a step's result, every text redacted."""
        have, want = (result.drift.have, result.drift.want) if result.drift else ("", "")
        why = result.error.message if result.error else ""
        return cls(
            result.step, result.outcome, redact(have), redact(want), redact(why), round(result.seconds, 3), result.id
        )


@dataclass(frozen=True, slots=True)
class StageResult:
    """One stage on one host (or on `cluster`); `round_trips` counts SSH exchanges with it, `seconds` is wall time."""

    host: str
    stage: str
    outcome: Outcome
    rows: tuple[StepRow, ...] = ()
    round_trips: int = 0
    seconds: float = 0.0
    errors: tuple[ErrorReport, ...] = ()

    @property
    def stands(self) -> bool:
        """Whether what comes after may build on it."""
        return not self.errors

    @property
    def may_pass(self) -> bool:
        """Whether trying again can help."""
        return any(error.retryable for error in self.errors)

    @property
    def said(self) -> str:
        """One line for a task run's state: what failed, or what was done."""
        if self.errors:
            return causes(self.errors, host=False)
        counts = {outcome: sum(row.outcome == outcome for row in self.rows) for outcome in reversed(WORST_FIRST)}
        return ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "nothing to do"


def causes(errors: Sequence[ErrorReport], *, host: bool = True) -> str:
    """Return the causes of errors as one line for a state's message, each once and ending at a word."""
    known = [one.said if host else replace(one, hosts=()).said for one in group_errors(errors)]
    shown = "; ".join(shorten(one, SAID_EACH) for one in known[:SAID])
    return shown + (f"; and {len(known) - SAID} more" if len(known) > SAID else "")


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the worst of the outcomes; `ok` for none."""
    return next((outcome for outcome in WORST_FIRST if outcome in outcomes), "ok")


def find_lost(errors: Sequence[ShipwayError]) -> frozenset[str]:
    """Return what no longer answered: names of hosts, `cluster` for the API."""
    return frozenset(CLUSTER if error.lost == "api" else error.host for error in errors if error.lost)


def errors_of(host: str, results: Sequence[StepResult], allow: Impact) -> tuple[ShipwayError, ...]:
    """Return what keeps later stages from building on these: failures, and what no step can bring about.

    A plan reports drift, it does not fail by it; a drift that only a higher permission may change is no error.
    """
    found: list[ShipwayError] = []
    for result in results:
        if result.outcome == "failed" and result.error:
            found.append(result.error.at(host=host, step=result.step))
        elif result.outcome == "drifted" and result.impact is Impact.NOTHING and allow is not Impact.NOTHING:
            found.append(fault(host, result))
    return tuple(found)


def foreseen(host: str, results: Sequence[StepResult], *, pending: bool) -> list[StepResult]:
    """Return a plan's results with what a run would make of each check that is not as wanted and that no step changes.

    Where nothing before it would be changed, a run ends there: it has failed. Where something would be (`pending`: in
    an earlier stage), that decides: it cannot be determined yet.
    """
    known: list[StepResult] = []
    for result in results:
        seen = result
        if result.outcome == "drifted" and result.impact is Impact.NOTHING:
            if pending:
                waits = Blocked("what would be changed before it decides", host=host, step=result.step)
                seen = replace(result, outcome="unknown", drift=None, error=waits)
            else:
                seen = replace(result, outcome="failed", error=fault(host, result))
        pending = pending or seen.outcome in ("drifted", "unknown")
        known.append(seen)
    return known


def fault(host: str, result: StepResult) -> ShipwayError:
    """Return the error of a check that is not as wanted and that nothing can apply, as the catalogue knows it."""
    known = diagnose(result.drift.have) if result.drift else None
    code, fix = (known.code, known.fix) if known else ("", BY_HAND)
    return Permanent(str(result.drift), host=host, step=result.step, code=code, fix=fix)


def report_redacted(error: ShipwayError) -> ErrorReport:
    """Return the error as a row of the report, its texts redacted."""
    row = error.report()
    return ErrorReport(row.host, row.step, row.code, redact(row.cause), redact(row.fix), row.retryable)


def fail_by(error: ShipwayError, host: str, stage: str, *, step: str = "") -> StageResult:
    """Return the result of a stage that was not begun for an error; `step` is what that is said to keep from."""
    return StageResult(host, stage, "failed", errors=(report_redacted(error.at(host=host, step=step or stage)),))


def report_timeout(host: str, stage: str, seconds: float, last: str) -> StageResult:
    """Return the result of a stage that ran out of its time; `last` is the last thing seen."""
    message = f"not done after {seconds:.0f} s; last seen: {last or 'nothing yet'}"
    error = report_redacted(DeadlineExceeded(message, host=host, step=stage))
    return StageResult(host, stage, "failed", seconds=seconds, errors=(error,))
