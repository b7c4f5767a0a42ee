"""What goes through a cluster in waves: looks at all hosts, a backup, one worker alone, then waves within a budget."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from prefect import State

from flows.approval import ask_wave
from flows.running import final_state
from shipway.errors import ErrorReport, Refused, ShipwayError
from shipway.stage import StageName
from tasks.context import Run
from tasks.locking import lease
from tasks.ownership import disagreement, keep
from tasks.report import Report
from tasks.run_stage import on
from tasks.stage_result import CLUSTER, causes, fail_by, report_redacted
from tasks.waves.hosts import is_control
from tasks.waves.order import count_alone
from tasks.waves.report import WaveReport
from tasks.waves.soak import watch_workers
from tasks.waves.turn import closed_until, end_waves

AT_ONCE = 50  # looks and fetches, as a drift pass
BACKUP_HOURS = 1  # one that is younger is as good as a new one: a run that goes on takes no second


async def go_in_waves(run: Run, go: Callable[[Run], Awaitable[None]]) -> None:
    """Let `go` do its work where nothing forbids it, and take the test pods' namespace away, however it ends."""
    try:
        if await may_go(run):
            await go(run)
    finally:
        await end_waves(run)


async def all_of(stage: StageName, hosts: Sequence[str], *after: State[object] | None) -> list[bool]:
    """Run a stage on hosts at once, not on too many; return by host whether what comes after may build on it."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(host: str) -> bool:
        async with gate:
            return await on(stage, host, *after) is not None

    return await asyncio.gather(*(one(host) for host in hosts))


async def may_change(
    run: Run,
    look: StageName,
    possible: StageName,
    contradicted: Callable[[Run], Awaitable[list[ErrorReport]]],
) -> bool:
    """Look at every host and the cluster, so that all refusals are named before anything is changed; take the lock.

    Any host that does not answer forbids it; `contradicted` says where the hosts contradict the file.
    """
    looks = await all_of(look, [host.name for host in run.hosts])
    if keep(run, await contradicted(run)):
        return False
    if await on(possible, CLUSTER) is None or not all(looks):
        return False
    if (kept_out := await lease(run)) is not None:
        run.results.append(fail_by(kept_out, run.control.name, possible))
        return False
    run.admitted |= {host.name for host in run.hosts}
    return True


async def may_go(run: Run) -> bool:
    """Look at all hosts and the cluster, and take its lock; say whether nothing forbids the run.

    A worker that does not answer is left out and named; whatever else is wrong with a host forbids it.
    """
    names = [host.name for host in run.hosts]
    looked = dict(zip(names, await all_of(run.waves.look, names), strict=True))
    if keep(run, await disagreement(run)):
        return False
    away = {name for name, stands in looked.items() if not stands and name not in run.seen.surveys}
    leave_out(run, {name for name in away if not is_control(run, name)})
    if any(is_control(run, name) for name in away):
        return False
    possible = await on(run.waves.possible, CLUSTER)
    refused = [name for name, stands in looked.items() if not stands and name not in run.waves.skipped]
    if possible is None or refused:
        return False
    if (kept_out := await lease(run)) is not None:
        if isinstance(kept_out, Refused):
            raise kept_out
        run.results.append(fail_by(kept_out, run.control.name, run.waves.possible))
        return False
    return True


def leave_out(run: Run, away: set[str]) -> None:
    """Leave workers out that do not answer: what their looks said goes into the reason, and is no error of the run."""
    said = {result.host: result.said for result in run.results if result.host in away}
    run.waves.skipped |= {name: f"it was not reached ({said.get(name, 'no answer')})" for name in away}
    run.results = [result for result in run.results if result.host not in away]


async def back_up(run: Run) -> bool:
    """Take a verified backup on the control plane's host, where none of the last hour is there."""
    host, run.backup.hours = run.control.name, BACKUP_HOURS
    possible = await on(StageName.BACKUP_POSSIBLE, host)
    taken = await on(StageName.TAKE_BACKUP, host, await on(StageName.BACKUP_FILES, host, possible))
    if taken is not None and run.cluster.backup.copied:
        return await on(StageName.KEEP_BACKUP, host, taken) is not None
    return taken is not None


async def go_through_workers(run: Run, waves: Sequence[Sequence[str]]) -> None:
    """Let one worker of each kind have its turn alone, watch it, then wave after wave, as far as the budget goes."""
    settings, failed = run.cluster.upgrade, 0
    alone = count_alone(waves, run.waves.kinds)
    for number, wave in enumerate(waves):
        if stop_at_window(run) or (number and settings.approve and not await approved(run, number, wave)):
            return
        ended = await all_of(run.waves.worker, wave)
        failed += ended.count(False)
        if number + 1 == len(waves):
            return
        if failed and (number < alone or failed > settings.failures):
            fix = "Mend what is named, then run again: it goes on there."
            stop(run, "a worker failed" if failed == 1 else f"{failed} workers failed", "SHW-797", fix)
            return
        if number < alone and run.mode != "plan" and (why := await watch_workers(run, wave)):
            stop(run, why, "SHW-797", "See what became of it, then run again: no other worker was touched.")
            return


async def approved(run: Run, number: int, wave: Sequence[str]) -> bool:
    """Ask a person before a wave; a plan asks nobody."""
    if run.mode == "plan":
        return True
    lines = [
        f"- **{row.host}** {run.waves.said(row)}: {row.pods} pods leave; {', '.join(row.jobs) or 'no GPU job'}"
        for row in run.waves.order
        if row.host in wave
    ]
    text = "\n".join((f"# {run.waves.verb.capitalize()} of {run.cluster.name}: wave {number}", "", *lines))
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
    error = ShipwayError(
        f"no further host was begun: {why}", step=f"the order of the {run.waves.verb}", code=code, fix=fix
    )
    run.waves.stopped = report_redacted(error)


def end(run: Run, told: Callable[[Run, WaveReport], str]) -> State[Report]:
    """Return the flow run's final state: completed where all is as wanted (or planned), else failed.

    `told` says in its message what the report counts.
    """
    report = run.report
    if not isinstance(report, WaveReport):
        raise TypeError("the run left no report")
    why = f"{causes(report.errors)}; " if report.errors else ""
    return final_state(report, f"{report.outcome}: {why}{told(run, report)}")
