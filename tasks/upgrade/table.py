"""The stages of an upgrade."""

from __future__ import annotations

from shipway.cluster.model import Cluster
from shipway.stage import StageName
from shipway.steps.upgrade.control_plane import SECONDS as SETTLE_SECONDS
from shipway.steps.upgrade.fetched import PULL_SECONDS
from tasks.stage import Stage, always
from tasks.upgrade import work as upgrades
from tasks.upgrade.look import look_at_possible, look_at_versions
from tasks.waves.seconds import wave_seconds


def _addon_seconds(cluster: Cluster) -> float:
    """Return how long kubeadm's own add-ons may take, and the pod that asks for DNS after them."""
    return SETTLE_SECONDS + 600.0 + 2.0 * cluster.gpu.verify_seconds


STAGES = (
    Stage(StageName.UPGRADE_LOOK, look_at_versions, always(SETTLE_SECONDS + 240.0), terse=True),
    Stage(StageName.UPGRADE_POSSIBLE, look_at_possible, always(300.0), terse=True),
    Stage(StageName.UPGRADE_HELD, upgrades.hold, always(300.0), terse=True),
    Stage(StageName.UPGRADE_FETCH, upgrades.fetch, always(2.0 * PULL_SECONDS + 1800)),
    Stage(StageName.UPGRADE_CONTROL_PLANE, upgrades.upgrade_control_plane, wave_seconds),
    Stage(StageName.UPGRADE_KUBELET, upgrades.upgrade_kubelet, wave_seconds),
    Stage(StageName.UPGRADE_ADDONS, upgrades.upgrade_addons, _addon_seconds),
    Stage(StageName.UPGRADE_WORKER, upgrades.upgrade_worker, wave_seconds),
)
