"""The report of a run: outcome, hosts, GPUs, warnings and errors, as plain data that anyone can read back."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from shipway.cluster_parts import HostSpec
from shipway.errors import ErrorReport, ShipwayError, Transient
from shipway.solver import warnings_of
from shipway.step import Outcome
from tasks.causes import list_hosts
from tasks.context import CLUSTER, Mode, Run
from tasks.stage_result import WORST_FIRST, StageResult, reported, worst

RunOutcome = Literal["ok", "planned", "drifted", "partial", "failed", "refused"]
NO_CARDS: dict[str, Any] = {"expected": 0, "allocatable": 0, "verified": 0, "devices": []}
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


@dataclass(frozen=True, slots=True)
class Report:
    """What a run found and did; docs/reading-a-run.md explains every field."""

    cluster: str
    profile: str
    mode: Mode
    outcome: RunOutcome
    seconds: float
    hosts: tuple[HostRow, ...] = ()
    gpus: dict[str, Any] = field(default_factory=lambda: dict(NO_CARDS))
    warnings: tuple[str, ...] = ()
    errors: tuple[ErrorReport, ...] = ()
    stages: tuple[StageResult, ...] = ()

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
        """Give the report as indented JSON."""
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


def refused(error: ShipwayError, mode: Mode, *, outcome: RunOutcome = "refused") -> Report:
    """Return the report of a run that was refused before anything was looked at, or that has no report of its own."""
    return Report("", "", mode, outcome, 0.0, errors=(reported(error),))


def report_of(run: Run, *, broken_off: str = "") -> Report:
    """Give the report of a run; `broken_off` says what ended it before its time."""
    hosts = tuple(_host_row(run, host) for host in run.hosts)
    errors = [error for result in run.results for error in result.errors]
    if broken_off:
        fix = "Run again: every step looks first, so the run goes on where this one ended."
        errors.append(reported(Transient(broken_off, step="the run", code="SHW-209", fix=fix)))
    outcome: RunOutcome = "failed" if broken_off else _outcome(run, hosts, errors)
    warnings = [*warnings_of(run.cluster), *_limits(run), *run.warned, *(run.proof.notes if run.proof else ())]
    return Report(
        run.cluster.name,
        run.cluster.profile,
        run.mode,
        outcome,
        round(time.monotonic() - run.started, 1),
        hosts,
        _gpus(run),
        tuple(warnings),
        tuple(dict.fromkeys(errors)),
        tuple(run.results),
    )


def _host_row(run: Run, host: HostSpec) -> HostRow:
    """Give a host's row; an error that names the host counts, whichever stage told it."""
    own = [result for result in run.results if result.host == host.name]
    named = any(error.host == host.name for result in run.results for error in result.errors)
    steps = Counter(row.outcome for result in own for row in result.rows)
    outcome = "failed" if named else worst([result.outcome for result in own])
    if outcome in ("ok", "changed") and run.mode == "bootstrap" and host.name not in run.ready:
        outcome = "unknown"
    role = "control_plane" if host in run.cluster.control_planes else "worker"
    counts = {name: steps[name] for name in get_args(Outcome)}
    seconds = round(sum(result.seconds for result in own), 1)
    return HostRow(host.name, role, outcome, counts, run.session(host.name).round_trips, seconds)


def _outcome(run: Run, hosts: Sequence[HostRow], errors: Sequence[ErrorReport]) -> RunOutcome:
    """Judge the run. Every host and every card: ok; some: partial; no control plane, host or card at all: failed."""
    if not run.admitted:
        return "refused"
    if run.mode == "plan":
        return _foreseen(run, hosts) if errors else "planned"
    gate = any(result.stage == "control_plane_ready" and result.stands for result in run.results)
    well = [host for host in hosts if host.outcome in ("ok", "changed")]
    stand = [host for host in hosts if host.outcome in ("ok", "changed", "drifted")]
    cards = sum(run.provable(host) for host in run.hosts if host.name in {row.name for row in stand})
    proven = run.proof is not None and (run.proof.verified > 0 or not cards)
    # Where running pods hold every GPU, what is withheld beside them is no failure, and nothing is left to prove with.
    withheld = not errors and len(stand) == len(hosts) and len(well) < len(hosts) and bool(run.busy or run.podded)
    if not gate or not stand or not (proven or withheld):
        return "failed"
    if withheld:
        return "drifted"
    whole = len(well) == len(hosts) and not errors and run.proof is not None and run.proof.outcome != "failed"
    shared = all(result.outcome in ("ok", "changed") for result in run.results if result.host == CLUSTER)
    return "ok" if whole and shared else "partial"


def _foreseen(run: Run, hosts: Sequence[HostRow]) -> RunOutcome:
    """Return how a run would end that finds what this plan found: without its control plane or any host, it fails."""
    lost = {host.name for host in hosts if host.outcome == "failed"}
    gate = any(r.stage in ("control_plane", "control_plane_ready") and not r.stands for r in run.results)
    return "failed" if gate or run.control.name in lost or len(lost) == len(hosts) else "partial"


def _gpus(run: Run) -> dict[str, Any]:
    """Give the part about cards: those expected of all hosts of the run, and what the proof showed."""
    shown = run.proof.as_dict() if run.proof else NO_CARDS
    return {**shown, "expected": max(sum(run.provable(host) for host in run.hosts), int(shown["expected"]))}


def _withheld(run: Run) -> list[str]:
    """Tell each step that was not applied beside running pods, with the command that does it on a drained host."""
    rows = {
        (result.host, row.step): row
        for result in run.results
        if result.host in run.busy or result.host in run.podded
        for row in result.rows
        if row.outcome == "drifted"
    }
    how = "python -m flows.drift_repair FILE --repair workloads --host"
    return [
        f"{host}: withheld: {step} (have {row.have}; want {row.want}); on a drained host: `{how} {host}`"
        for (host, step), row in rows.items()
    ]


def _limits(run: Run) -> list[str]:
    """Tell of hosts on which nothing was changed that could disturb GPU workloads, what waits there, and idle cards."""
    busy = [f"{host}: only files may change while GPU workloads run there: {why}" for host, why in run.busy.items()]
    busy += [f"{host}: containerd is not restarted: {why}" for host, why in run.podded.items() if host not in run.busy]
    busy += _withheld(run)
    idle = [host for host in run.hosts if run.cards(host) and not run.provable(host)]
    how = "pods are kept off the control plane (kubernetes.schedule_on_control_plane)"
    notices = [f"{name}: {text}" for name, survey in run.surveys.items() for text in survey.notices]
    return [*busy, *notices, *(f"{host.name}: its {run.cards(host)} cards are not used: {how}" for host in idle)]
