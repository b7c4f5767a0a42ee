"""The stages of a backup: what must be so, the script and timer on the host, the backup itself, and a copy of it."""

from __future__ import annotations

from pathlib import Path

from shipway.backup.kept import LocalFolder
from shipway.backup.script import script_of
from shipway.backup.state import BackupsThere
from shipway.backup.store import Store
from shipway.converge import converge
from shipway.host.session import Host
from shipway.step import Check, Impact, StepResult
from shipway.steps.backup.kept import AgeThere, KeptLocally, NotTooMany
from shipway.steps.backup.on_host import TimerGone, schedule, script_file
from shipway.steps.backup.possible import EtcdIsKubeadms, NoOtherBackup, RoomForBackup, ToolsCanBeHad
from shipway.steps.backup.stored import KeptInStore, NotTooManyStored, StoreReady
from shipway.steps.backup.taken import OPERATION, TAKE_SECONDS, BackupTaken
from tasks.context import Run
from tasks.waiting import hear_results
from tasks.workloads import permit_undisturbed


async def _bring(run: Run, stage: str, host: str, steps: list[Check[Host]]) -> list[StepResult]:
    session = run.session(host)
    session.forget()
    return await converge(
        steps, session, run.allowed(host), hear_results(run, stage, host), permit_undisturbed(run, host)
    )


async def backup_possible(run: Run, stage: str, host: str) -> list[StepResult]:
    """Look at what a backup needs, all at once; one of a killed run that is still at work is waited for first."""
    if run.allow is not Impact.NOTHING:
        await run.session(host).settled(OPERATION, seconds=TAKE_SECONDS)
    script = script_of(run.cluster)
    checks: list[Check[Host]] = [EtcdIsKubeadms(script), ToolsCanBeHad(script), RoomForBackup(script)]
    checks.append(NoOtherBackup(script))
    declared = run.cluster.backup
    if (declared.keep_local or declared.s3) and declared.encrypt_to:
        checks.append(AgeThere())
    if declared.s3:
        checks.append(StoreReady(Store(declared.s3, run.cluster.name)))
    return await _bring(run, stage, host, checks)


async def backup_files(run: Run, stage: str, host: str) -> list[StepResult]:
    """Put the script on the host, and bring its timer to what is declared."""
    return await _bring(run, stage, host, schedule(run.cluster) or [script_file(run.cluster), TimerGone()])


async def take_backup(run: Run, stage: str, host: str) -> list[StepResult]:
    """Take a backup and verify it; a second attempt of this run takes what the first one took."""
    session, script = run.session(host), script_of(run.cluster)
    if run.backup.known is None:
        session.forget()
        run.backup.known = frozenset(one.name for one in (await session.read(BackupsThere(script))).backups)
    results = await _bring(run, stage, host, [BackupTaken(script, run.backup.known, run.backup.hours)])
    run.backup.newest = (await session.read(BackupsThere(script))).newest
    return results


async def keep_backup(run: Run, stage: str, host: str) -> list[StepResult]:
    """Keep the newest backup on this machine and in the object store, as declared, and no more of them than that."""
    declared, script = run.cluster.backup, script_of(run.cluster)
    steps: list[Check[Host]] = []
    if declared.keep_local:
        folder = LocalFolder(Path(declared.keep_local), run.cluster.name)
        steps.append(KeptLocally(script, folder, recipients=declared.encrypt_to))
        steps.append(NotTooMany(folder, declared.keep, declared.keep_days))
    if declared.s3:
        store = Store(declared.s3, run.cluster.name)
        steps.append(KeptInStore(script, store, recipients=declared.encrypt_to))
        steps.append(NotTooManyStored(store, declared.keep, declared.keep_days))
    return await _bring(run, stage, host, steps)
