"""The report of a run: outcome, hosts, GPUs, warnings and errors, as plain data that anyone can read back."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from shipway.errors import ErrorReport, ShipwayError, Transient
from shipway.redact import redact
from shipway.step import Outcome
from tasks.causes import list_hosts
from tasks.stage_result import WORST_FIRST, Mode, StageResult, report_redacted

RunOutcome = Literal["ok", "planned", "drifted", "partial", "failed", "refused"]
NO_GPUS: dict[str, Any] = {"expected": 0, "allocatable": 0, "verified": 0, "devices": []}
EXIT_CODES: dict[RunOutcome, int] = {"ok": 0, "planned": 0, "refused": 1, "drifted": 2, "partial": 2, "failed": 3}


@dataclass(frozen=True, slots=True)
class HostRow:
    """One host: its worst stage, its steps counted by outcome, SSH round trips and seconds of work in all stages."""

    name: str
    role: str
    outcome: Outcome
    steps: dict[str, int]
    round_trips: int
    seconds: float


def row_of(name: str, role: str, outcome: Outcome, results: Sequence[StageResult], trips: int) -> HostRow:
    """Return a host's row, its steps counted by outcome and its seconds added up over the results of its stages."""
    steps = Counter(row.outcome for result in results for row in result.rows)
    counts = {known: steps[known] for known in get_args(Outcome)}
    return HostRow(name, role, outcome, counts, trips, round(sum(result.seconds for result in results), 1))


def broken_off_by(what: str) -> ErrorReport:
    """Return the error of a run that was ended before its time."""
    fix = "Run again: every step looks first, so the run goes on where this one ended."
    return report_redacted(Transient(what, step="the run", code="SHW-209", fix=fix))


@dataclass(frozen=True, slots=True)
class Report:
    """What a run found and did; docs/reading-a-run.md explains every field. Warnings are redacted as all else is."""

    cluster: str
    profile: str
    mode: Mode
    outcome: RunOutcome
    seconds: float
    hosts: tuple[HostRow, ...] = ()
    gpus: dict[str, Any] = field(default_factory=lambda: dict(NO_GPUS))
    warnings: tuple[str, ...] = ()
    errors: tuple[ErrorReport, ...] = ()
    stages: tuple[StageResult, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "warnings", tuple(map(redact, self.warnings)))

    @property
    def exit_code(self) -> int:
        """0 as wanted, 1 refused and nothing changed, 2 some hosts failed, 3 failed."""
        return EXIT_CODES[self.outcome]

    @property
    def counted(self) -> Counter[str]:
        """Steps by outcome, over all hosts and the cluster; the best first."""
        found = Counter(row.outcome for stage in self.stages for row in stage.rows)
        return Counter({outcome: found[outcome] for outcome in reversed(WORST_FIRST) if found[outcome]})

    def as_json(self) -> str:
        """Return the report as indented JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    def write(self, path: Path) -> None:
        """Put the report in place in one rename; raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(self.as_json())
            Path(fresh).chmod(0o644)
            Path(fresh).replace(path)
        except BaseException:
            Path(fresh).unlink(missing_ok=True)
            raise


def say_follows(stages: Sequence[StageResult]) -> list[str]:
    """Return a line for what was not tried because of what failed before it, which is an error of its own."""
    rows = [(stage, row) for stage in stages for row in stage.rows if row.follows]
    if not rows:
        return []
    names = list(dict.fromkeys(stage.stage for stage, _ in rows))
    hosts = list_hosts(stage.host for stage, _ in rows)
    return [f"not tried after that: {len(rows)} steps of {', '.join(names)} [{hosts}]"]


def report_refusal(error: ShipwayError, mode: Mode, *, outcome: RunOutcome = "refused") -> Report:
    """Return the report of a run that was refused before anything was looked at, or that has no report of its own."""
    return Report("", "", mode, outcome, 0.0, errors=(report_redacted(error),))
