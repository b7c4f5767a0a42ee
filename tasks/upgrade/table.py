"""The stages of an upgrade."""

from __future__ import annotations

from shipway.stage import StageName
from shipway.steps.upgrade.control_plane import SECONDS as SETTLE_SECONDS
from shipway.steps.upgrade.fetched import PULL_SECONDS
from tasks.stage import Stage, always
from tasks.upgrade import work as upgrades
from tasks.upgrade.look import look_at_possible, look_at_versions
from tasks.waves.seconds import wave_seconds

STAGES = (
    Stage(StageName.UPGRADE_LOOK, look_at_versions, always(SETTLE_SECONDS + 240.0), terse=True),
    Stage(StageName.UPGRADE_POSSIBLE, look_at_possible, always(300.0), terse=True),
    Stage(StageName.UPGRADE_HELD, upgrades.hold, always(300.0), terse=True),
    Stage(StageName.UPGRADE_FETCH, upgrades.fetch, always(2.0 * PULL_SECONDS + 1800)),
    Stage(StageName.UPGRADE_CONTROL_PLANE, upgrades.upgrade_control_plane, wave_seconds),
    Stage(StageName.UPGRADE_KUBELET, upgrades.upgrade_kubelet, wave_seconds),
    Stage(StageName.UPGRADE_ADDONS, upgrades.upgrade_addons, always(SETTLE_SECONDS + 600.0)),
    Stage(StageName.UPGRADE_WORKER, upgrades.upgrade_worker, wave_seconds),
)
