"""The stages of a backup and of a restore."""

from __future__ import annotations

from shipway.stage import StageName
from shipway.steps.backup.brought import VERIFY_SECONDS
from shipway.steps.backup.restored import RESTORE_SECONDS
from shipway.steps.backup.several import STOP_SECONDS
from shipway.steps.backup.taken import TAKE_SECONDS
from shipway.steps.upgrade.fetched import PULL_SECONDS
from tasks.backup import restores, watchers
from tasks.backup import work as backups
from tasks.stage import Stage, always

STAGES = (
    Stage(StageName.BACKUP_POSSIBLE, backups.backup_possible, always(TAKE_SECONDS + 120.0)),
    Stage(StageName.BACKUP_FILES, backups.backup_files, always(300.0)),
    Stage(StageName.TAKE_BACKUP, backups.take_backup, always(2.0 * TAKE_SECONDS)),
    Stage(StageName.KEEP_BACKUP, backups.keep_backup, always(7200.0)),
    # Of an object store the whole backup is fetched first.
    Stage(StageName.RESTORE_POSSIBLE, restores.restore_possible, always(RESTORE_SECONDS + 3600.0)),
    Stage(StageName.RESTORE_LOSES, restores.restore_loses, always(900.0), 0),
    Stage(StageName.RESTORE_BRING, restores.restore_bring, always(7200.0 + VERIFY_SECONDS + PULL_SECONDS)),
    Stage(StageName.RESTORE_STOP, restores.restore_stop, always(2.0 * STOP_SECONDS)),
    Stage(StageName.RESTORE_UNDO, restores.restore_undo, always(2.0 * STOP_SECONDS)),
    Stage(StageName.RESTORE_ASIDE, restores.restore_aside, always(2.0 * RESTORE_SECONDS)),
    Stage(StageName.FORGET_NODES, restores.forget_nodes, always(300.0)),
    Stage(StageName.RESTORE_BACKUP, restores.restore_backup, always(2.0 * RESTORE_SECONDS)),
    Stage(StageName.RESTART_KUBELET, restores.restart_kubelet, always(300.0)),
    Stage(StageName.START_WATCHERS, watchers.start_watchers, always(watchers.READY_SECONDS + 300)),
)
