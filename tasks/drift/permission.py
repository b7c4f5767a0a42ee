"""What a pass may repair where: the file's limit, GPU workloads, the window, an approval; asked anew at each act.

A permission is never kept: looking, an approval and the repair of other hosts take hours, in which windows close and
pods start. Who decides asks `permission`, and each step right before it is applied asks `permit_of`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shipway.cluster.window import next_opening, open_now
from shipway.converge import Permit
from shipway.errors import ShipwayError
from shipway.stage import JOINED_BY, StageName
from shipway.step import Impact, Step, restart_of
from shipway.steps.upgrade.gpu_jobs import GpuJobsOver
from tasks.context import Run
from tasks.findings import Finding, key_of
from tasks.stage_result import CLUSTER
from tasks.stages.gpu_driver import command as driver_command
from tasks.workloads import beside_pods, find_busy

UNLISTED = "it was not in what was approved: it drifted, or changed, while the approval was awaited"


@dataclass(frozen=True, slots=True)
class Permission:
    """What was asked for, what the clock leaves of it, and why less."""

    asked: Impact
    now: Impact
    why: str = ""

    def of(self, run: Run, host: str) -> Impact:
        """Return the highest impact on a host without a drain: beside GPU workloads no service that runs is touched."""
        busy = host in run.seen.busy and host not in run.cluster.repair.disturb
        return min(self.now, Impact.START if busy else Impact.SERVICE)

    def drains(self, run: Run, finding: Finding) -> bool:
        """Say whether the finding is repaired on a drained host: it disturbs workloads, and that was allowed."""
        if self.now is not Impact.WORKLOADS or finding.host == CLUSTER or finding.host in run.drift.kept:
            return False
        return self.only_drained(run, finding)

    def only_drained(self, run: Run, finding: Finding) -> bool:
        """Say whether nothing but a drain would make way for the repair of a finding."""
        return finding.level > self.of(run, finding.host) or bool(_podded(run, finding))


MOST = Permission(Impact.WORKLOADS, Impact.WORKLOADS)  # all that can be asked for, at any time


def _podded(run: Run, finding: Finding) -> str:
    return beside_pods(run, finding.host, finding.restarts, finding.level)


def permission(run: Run, asked: Impact, now: datetime) -> Permission:
    """Return the permission at a time; outside the maintenance window only files may change."""
    window = run.cluster.repair.window
    if window is None or asked <= Impact.FILES or open_now(window, now):
        return Permission(asked, asked)
    opens = next_opening(window, now)
    when = f"it opens {opens:%Y-%m-%d %H:%M}" if opens else "it never opens again"
    return Permission(asked, Impact.FILES, f"outside the maintenance window; {when}")


def permission_now(run: Run) -> Permission:
    """Return the permission of this moment."""
    return permission(run, run.allow, datetime.now().astimezone())


async def permission_on(run: Run, host: str) -> Permission:
    """Return the permission of this moment, and learn whether GPU workloads run on the host now."""
    allowed = permission_now(run)
    if allowed.now > Impact.FILES:
        await find_busy(run, host)
    return allowed


async def find_kept(run: Run, only: str = "") -> None:
    """Keep why hosts on which something drifted (or one host) are not drained: what was decided of their GPU jobs.

    Nothing where no host is drained at all. Where the API cannot tell, none is.
    """
    if permission_now(run).now is not Impact.WORKLOADS:
        return
    drifted = [only] if only else [name for name, some in run.drift.findings.items() if some]
    for name in drifted:
        run.drift.kept.pop(name, None)
        if name in run.seen.surveys and run.seen.surveys[name].joined and (why := await _why_kept(run, name)):
            run.drift.kept[name] = why


async def _why_kept(run: Run, host: str) -> str:
    try:
        return await GpuJobsOver(host, run.cluster.upgrade.gpu_jobs, 0).why_kept(await run.kube())
    except ShipwayError as error:
        return f"the API cannot tell which GPU jobs run ({error.message})"


def permit_of(run: Run, host: str, *, drained: bool = False) -> Permit:
    """Return what each step on a host (or on a node through the API) is asked right before it is applied.

    A step that may not be applied any more is kept in the run with the reason. With `drained` running pods are
    no reason: the API disturbs none, and those that are on a drained host again tolerate what its cordon announced.
    """

    async def permit(step: Step[Any]) -> Impact:
        key = key_of(host, step)
        if key in run.drift.withheld:
            return Impact.NOTHING
        if step.impact <= Impact.FILES:
            return Impact.FILES
        allowed = permission_now(run) if drained else await permission_on(run, host)
        limit = allowed.now if drained else allowed.of(run, host)
        podded = "" if drained else beside_pods(run, host, restart_of(step), step.impact)
        if podded:
            limit = min(limit, Impact.START)
        if step.impact > limit:
            run.drift.withheld[key] = allowed.why or run.seen.busy.get(host, "") or podded
            if not allowed.why:
                run.drift.beside_pods.add(key)
        return limit

    return permit


def withhold_unapproved(run: Run, findings: Iterable[Finding]) -> None:
    """Withhold what was not in the plan that a person approved; nothing where nobody was asked."""
    if run.drift.approved is not None:
        run.drift.withheld |= {
            finding.key: UNLISTED for finding in findings if entry_of(finding) not in run.drift.approved
        }


def entry_of(finding: Finding) -> tuple[str, ...]:
    """Return what a finding is in a plan: the same step with something else there was not what was approved."""
    return finding.host, finding.step, finding.have, finding.want


def repairable(run: Run, allowed: Permission, finding: Finding, most: Impact) -> bool:
    """Say whether this pass repairs the finding; `most` is the highest impact its part may ever have."""
    if finding.level is Impact.NOTHING or finding.level > most or finding.key in run.drift.withheld:
        return False
    undrained = finding.level <= allowed.of(run, finding.host) and not _podded(run, finding)
    return undrained or allowed.drains(run, finding)


def explain_kept(run: Run, allowed: Permission, findings: Iterable[Finding], path: str) -> list[Finding]:
    """Return the findings that are not repaired with the reason, and with the command that would do it."""
    return [_explain(run, allowed, finding, path) for finding in findings]


def _explain(run: Run, allowed: Permission, finding: Finding, path: str) -> Finding:
    if finding.stage in JOINED_BY and finding.level is Impact.WORKLOADS:
        command = f"python -m flows.bootstrap {path} --host {finding.host}"
        return finding.became("reported", "joining is a bootstrap's work, not a repair's", command)
    if finding.stage == StageName.GPU_DRIVER and finding.level is Impact.WORKLOADS:
        return finding.became(
            "reported", "the driver of a host in service is changed by maintenance", driver_command(path)
        )
    if finding.level is Impact.NOTHING:
        return finding
    named = "" if finding.host == CLUSTER else f" --host {finding.host}"
    level = Impact.WORKLOADS if MOST.only_drained(run, finding) else finding.level
    command = f"python -m flows.drift_repair {path} --repair {level.permission}{named}"
    if allowed.asked is Impact.NOTHING:
        return finding.became("reported", "this pass only looks", command)
    if finding.level > allowed.asked:
        return finding.became("reported", f"repairs of {finding.level.permission} are not allowed", command)
    why = allowed.why if finding.level > allowed.now else run.drift.withheld.get(finding.key, "")
    if allowed.only_drained(run, finding):
        why = why or run.drift.kept.get(finding.host, "")
    if finding.host in run.seen.busy and finding.level > allowed.of(run, finding.host):
        why = why or run.seen.busy[finding.host]
    why = why or _podded(run, finding)
    return finding.became("held back", why, command) if why else finding
