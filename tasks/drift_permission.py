"""What a pass may repair where: the cluster file's limit, running GPU workloads, the maintenance window."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from shipway.step import Impact
from shipway.window import next_opening, open_now
from tasks.context import CLUSTER, Run
from tasks.findings import Finding


@dataclass(frozen=True, slots=True)
class Permission:
    """What was asked for, what the clock leaves of it, and why less."""

    asked: Impact
    now: Impact
    why: str = ""

    def of(self, run: Run, host: str) -> Impact:
        """Give the highest impact on a host without a drain: files only where GPU workloads run."""
        busy = host in run.busy and host not in run.cluster.repair.disturb
        return min(self.now, Impact.FILES if busy else Impact.SERVICE)

    def drains(self, run: Run, finding: Finding) -> bool:
        """Say whether the finding is repaired on a drained host: it disturbs workloads, and that was allowed."""
        return self.now is Impact.WORKLOADS and finding.host != CLUSTER and finding.level > self.of(run, finding.host)


def permission(run: Run, asked: Impact, now: datetime) -> Permission:
    """Give the permission of a pass that begins now; outside the maintenance window only files may change."""
    window = run.cluster.repair.window
    if window is None or asked <= Impact.FILES or open_now(window, now):
        return Permission(asked, asked)
    opens = next_opening(window, now)
    when = f"it opens {opens:%Y-%m-%d %H:%M}" if opens else "it never opens again"
    return Permission(asked, Impact.FILES, f"outside the maintenance window; {when}")


def repairable(run: Run, allowed: Permission, finding: Finding, most: Impact) -> bool:
    """Say whether this pass repairs the finding; `most` is the highest impact its part may ever have."""
    if finding.level is Impact.NOTHING or finding.level > most:
        return False
    return finding.level <= allowed.of(run, finding.host) or allowed.drains(run, finding)


def judged(run: Run, allowed: Permission, findings: Iterable[Finding], path: str) -> list[Finding]:
    """Give the findings that are not repaired with the reason, and with the command that would do it."""
    return [_judged(run, allowed, finding, path) for finding in findings]


def _judged(run: Run, allowed: Permission, finding: Finding, path: str) -> Finding:
    if finding.stage in ("join_worker", "control_plane") and finding.level is Impact.WORKLOADS:
        command = f"python -m flows.bootstrap {path} --host {finding.host}"
        return finding.became("reported", "joining is a bootstrap's work, not a repair's", command)
    if finding.level is Impact.NOTHING:
        return finding
    named = "" if finding.host == CLUSTER else f" --host {finding.host}"
    level = finding.level if finding.host not in run.busy else Impact.WORKLOADS
    command = f"python -m flows.drift_repair {path} --repair {level.name.lower()}{named}"
    if finding.level > allowed.asked:
        return finding.became("reported", f"repairs of {finding.impact} are not allowed", command)
    if finding.level > allowed.now:
        return finding.became("held back", allowed.why, command)
    if finding.host in run.busy and finding.level > allowed.of(run, finding.host):
        return finding.became("held back", run.busy[finding.host], command)
    return finding
