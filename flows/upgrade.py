"""An upgrade of Kubernetes, one minor at a time: control planes, then workers in waves. `python -m flows.upgrade`."""

from __future__ import annotations

if __name__ == "__main__":  # first of all, as in flows.bootstrap
    import runpy

    runpy.run_module("flows.cli.upgrade", run_name="__main__", alter_sys=True)

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Literal

from prefect import State, flow
from prefect.runtime import flow_run

from flows.approval import ask_wave
from flows.running import Manner, as_states, final_state, run_name, running
from shipway.cluster.model import Cluster
from shipway.cluster_file import in_version
from shipway.errors import Refused, ShipwayError
from shipway.stage import StageName
from tasks.context import Run
from tasks.locking import lease
from tasks.ownership import disagreement, keep
from tasks.report import Report
from tasks.run_stage import on
from tasks.stage_result import CLUSTER, causes, fail_by, report_redacted
from tasks.stages.listed import ADD_ONS, name_of
from tasks.upgrade.look import control_planes_in_order, is_control, waves_in_order
from tasks.upgrade.report import UpgradeReport, leave_upgrade, upgrade_report
from tasks.upgrade.soak import watch_workers
from tasks.upgrade.work import closed_until, end_upgrade

AT_ONCE = 50  # looks and fetches, as a drift pass
BACKUP_HOURS = 1  # one that is younger is as good as a new one: an upgrade that goes on takes no second


def upgrade_name() -> str:
    """Return the flow run's name: "upgrade te", "upgrade te (plan)"."""
    return run_name("upgrade", "plan" if flow_run.parameters.get("mode") == "plan" else "")


@flow(name="upgrade", flow_run_name=upgrade_name, persist_result=False)
@as_states
async def upgrade(
    cluster_file: str,
    mode: Literal["plan", "upgrade"] = "plan",
    to: str = "",
    backup: bool = True,  # noqa: FBT001, FBT002 - a flow's parameters are the fields of its form
    report_file: str | None = None,
) -> State[Report]:
    """Bring a running cluster to the version of its cluster file, or (mode plan) say in which order.

    Args:
        cluster_file: Path of the cluster file; in a deployment its name in the worker's folder, for example te.yaml.
        mode: plan changes nothing, names every refusal, and the order of the hosts; upgrade does it.
        to: Another version than the file's, as 1.36.2: a stop on the way there. Empty means the file's.
        backup: Take a verified backup of etcd first, unless one of the last hour is there; off: there must be one.
        report_file: Where the worker writes the report as JSON; none by default, the run has it as an artifact.
    """
    plan = mode == "plan"
    manner = Manner(plan, upgrade_report, leave_upgrade, "upgrade", partial(declare, version=to))
    async with running(cluster_file, "plan" if plan else "upgrade", (), (), report_file, manner) as run:
        run.upgrade.backup = backup
        try:
            if await may_go(run):
                await go(run)
        finally:
            await end_upgrade(run)
    return end(run)


def declare(cluster: Cluster, *, version: str) -> Cluster:
    """Return the cluster in the version that was asked for. Raises Refused for one that cannot be."""
    return in_version(cluster, version.strip().removeprefix("v")) if version.strip() else cluster


async def all_of(stage: StageName, hosts: Sequence[str], *after: State[object] | None) -> list[bool]:
    """Run a stage on hosts at once, not on too many; return by host whether what comes after may build on it."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(host: str) -> bool:
        async with gate:
            return await on(stage, host, *after) is not None

    return await asyncio.gather(*(one(host) for host in hosts))


async def may_go(run: Run) -> bool:
    """Look at all hosts and the cluster, and take its lock; say whether nothing forbids the upgrade.

    A worker that does not answer is left out and named; whatever else is wrong with a host forbids it.
    """
    names = [host.name for host in run.hosts]
    looked = dict(zip(names, await all_of(StageName.UPGRADE_LOOK, names), strict=True))
    if keep(run, await disagreement(run)):
        return False
    away = {name for name, stands in looked.items() if not stands and name not in run.seen.surveys}
    leave_out(run, {name for name in away if not is_control(run, name)})
    if any(is_control(run, name) for name in away):
        return False
    possible = await on(StageName.UPGRADE_POSSIBLE, CLUSTER)
    refused = [name for name, stands in looked.items() if not stands and name not in run.upgrade.skipped]
    if possible is None or refused:
        return False
    if (kept_out := await lease(run)) is not None:
        if isinstance(kept_out, Refused):
            raise kept_out
        run.results.append(fail_by(kept_out, run.control.name, StageName.UPGRADE_POSSIBLE))
        return False
    return True


def leave_out(run: Run, away: set[str]) -> None:
    """Leave workers out that do not answer: what their looks said goes into the reason, and is no error of the run."""
    said = {result.host: result.said for result in run.results if result.host in away}
    run.upgrade.skipped |= {name: f"it was not reached ({said.get(name, 'no answer')})" for name in away}
    run.results = [result for result in run.results if result.host not in away]


async def go(run: Run) -> None:
    """Go through the order; what fails ends it there, but for what a wave has begun with."""
    left = [row.host for row in run.upgrade.order]
    if not left:
        await on(StageName.UPGRADE_ADDONS, CLUSTER)  # a killed run may have come no further than the hosts
        return
    if run.upgrade.backup and not await back_up(run):
        return
    if not all(await all_of(StageName.UPGRADE_FETCH, left)):
        return
    for host in control_planes_in_order(run):
        if stop_at_window(run) or await on(StageName.UPGRADE_CONTROL_PLANE, host) is None:
            return
    if await on(StageName.UPGRADE_ADDONS, CLUSTER) is None:
        return
    for module in ADD_ONS:
        if await on(name_of(module), CLUSTER) is None:
            return
    await go_through_workers(run)


async def back_up(run: Run) -> bool:
    """Take a verified backup on the control plane's host, where none of the last hour is there."""
    host, run.backup.hours = run.control.name, BACKUP_HOURS
    possible = await on(StageName.BACKUP_POSSIBLE, host)
    taken = await on(StageName.TAKE_BACKUP, host, await on(StageName.BACKUP_FILES, host, possible))
    if taken is not None and run.cluster.backup.keep_local:
        return await on(StageName.KEEP_BACKUP, host, taken) is not None
    return taken is not None


async def go_through_workers(run: Run) -> None:
    """Upgrade one worker alone, watch it, then wave after wave, as far as the failure budget goes."""
    settings, failed = run.cluster.upgrade, 0
    waves = waves_in_order(run)
    for number, wave in enumerate(waves):
        if stop_at_window(run) or (number and settings.approve and not await approved(run, number, wave)):
            return
        ended = await all_of(StageName.UPGRADE_WORKER, wave)
        failed += ended.count(False)
        if number + 1 == len(waves):
            return
        if failed and (not number or failed > settings.failures):
            fix = "Mend what is named, then run again: it goes on there."
            stop(run, "a worker failed" if failed == 1 else f"{failed} workers failed", "SHW-797", fix)
            return
        if not number and run.mode != "plan" and (why := await watch_workers(run, wave)):
            stop(run, why, "SHW-797", "See what became of it, then run again: no other worker was touched.")
            return


async def approved(run: Run, number: int, wave: Sequence[str]) -> bool:
    """Ask a person before a wave; a plan asks nobody."""
    if run.mode == "plan":
        return True
    lines = [
        f"- **{row.host}** has v{row.have}: {row.pods} pods leave; {', '.join(row.jobs) or 'no GPU job'}"
        for row in run.upgrade.order
        if row.host in wave
    ]
    text = "\n".join((f"# Upgrade of {run.cluster.name}: wave {number}", "", *lines))
    if await ask_wave(run, text):
        return True
    stop(run, f"wave {number} was not approved", "SHW-799", "Run again, and approve it then.")
    return False


def stop_at_window(run: Run) -> bool:
    """Begin no further host where the maintenance window is closed; a plan says so, and goes on."""
    why = closed_until(run)
    if not why or run.mode == "plan":
        return False
    stop(run, why, "SHW-798", "Run again then, or by a schedule: what is done stays, and the rest follows.")
    return True


def stop(run: Run, why: str, code: str, fix: str) -> None:
    """Keep why the run went no further."""
    error = ShipwayError(f"no further host was begun: {why}", step="the order of the upgrade", code=code, fix=fix)
    run.upgrade.stopped = report_redacted(error)


def end(run: Run) -> State[Report]:
    """Return the flow run's final state: completed where all is of the version (or planned), else failed."""
    report = run.report
    if not isinstance(report, UpgradeReport):
        raise TypeError("the run left no report")
    version, changed = run.cluster.kubernetes.version, report.counted["changed"]
    said = f"{len(report.order)} of {len(report.hosts)} hosts were to come to v{version}; {changed} steps changed"
    why = f"{causes(report.errors)}; " if report.errors else ""
    return final_state(report, f"{report.outcome}: {why}{said}")
