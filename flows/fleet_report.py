"""The report of a fleet run: the groups' reports joined, with every host accounted for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flows.fleet_group import WELL

NO_STEPS = {"ok": 0, "changed": 0, "drifted": 0, "unknown": 0, "failed": 0}
CODE = "SHW-209"
FIX = "Read that run's log, see that workers of its pool are online, and run the fleet again."


@dataclass(frozen=True, slots=True)
class Group:
    """What came back of one group: its report, or in words why there is none."""

    hosts: tuple[str, ...]
    flow_run: str
    state: str
    seconds: float
    report: dict[str, Any] | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class FleetReport:
    """All groups joined; `outcome` is the worst of them, and partial where some came back and others did not."""

    cluster: str
    what: str
    outcome: str
    seconds: float
    groups: tuple[dict[str, Any], ...] = ()
    hosts: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    errors: tuple[dict[str, Any], ...] = ()
    stages: tuple[dict[str, Any], ...] = field(default=())
    findings: tuple[dict[str, Any], ...] = ()

    @property
    def counted(self) -> dict[str, int]:
        """Return the hosts by outcome."""
        outcomes = [str(host["outcome"]) for host in self.hosts]
        return {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}


def join_reports(cluster: str, what: str, groups: Sequence[Group], seconds: float) -> FleetReport:
    """Join the groups' reports. A host that no report speaks of is `unknown`, and an error says why."""
    hosts: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    warnings: list[str] = []
    stages: list[dict[str, Any]] = []
    findings: list[dict[str, Any]] = []
    missing = 0
    for group in groups:
        report = group.report or {}
        known = {host["name"]: host for host in report.get("hosts", ())}
        hosts += [known.get(name) or _unknown(name) for name in group.hosts]
        errors += report.get("errors", ())
        findings += report.get("findings", ())
        warnings += report.get("warnings", ())
        stages += report.get("stages", ())
        lost = [name for name in group.hosts if name not in known]
        missing += len(lost)
        errors += [_error(name, group) for name in lost]
    return FleetReport(
        cluster,
        what,
        _outcome(groups, len(hosts), missing),
        round(seconds, 1),
        tuple(_row(group) for group in groups),
        tuple(hosts),
        tuple(dict.fromkeys(warnings)),
        tuple(_once(errors)),
        tuple(stages),
        tuple(findings),
    )


def _unknown(name: str) -> dict[str, Any]:
    return {"name": name, "role": "", "outcome": "unknown", "steps": NO_STEPS, "round_trips": 0, "seconds": 0.0}


def _error(host: str, group: Group) -> dict[str, Any]:
    """Return the error of a host that was not looked at."""
    cause = f"no report came back of flow run {group.flow_run}: {group.why or group.state}"
    return {"host": host, "step": "the group", "code": CODE, "cause": cause, "fix": FIX, "retryable": True}


def _once(errors: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each error once: what befell the cluster as a whole is in every group's report."""
    return list({(e.get("host"), e.get("step"), e.get("cause")): e for e in errors}.values())


def _row(group: Group) -> dict[str, Any]:
    outcome = group.report["outcome"] if group.report else "none"
    return {
        "first": group.hosts[0],
        "last": group.hosts[-1],
        "hosts": len(group.hosts),
        "outcome": outcome,
        "state": group.state,
        "seconds": round(group.seconds, 1),
        "flow run": group.flow_run,
    }


def _outcome(groups: Sequence[Group], hosts: int, missing: int) -> str:
    """Judge the fleet: as its groups say where they agree; failed where no host was looked at; else partial."""
    if missing:
        return "failed" if missing == hosts else "partial"
    outcomes = {str(group.report["outcome"]) for group in groups if group.report}
    if len(outcomes) == 1:
        return outcomes.pop()
    if outcomes <= set(WELL):
        return "ok"
    return "drifted" if outcomes <= {*WELL, "drifted"} else "partial"
