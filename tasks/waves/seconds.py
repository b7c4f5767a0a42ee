"""How long a host of a wave may take."""

from __future__ import annotations

from shipway.cluster.model import Cluster
from shipway.steps.upgrade.control_plane import SECONDS as SETTLE_SECONDS
from tasks.waves.turn import DRAIN_SECONDS


def wave_seconds(cluster: Cluster) -> float:
    """Return the seconds for its GPU jobs, its drain, kubeadm, packages, and its proof."""
    jobs = cluster.upgrade.wait_minutes * 60.0 if cluster.upgrade.gpu_jobs != "evict" else 0.0
    return jobs + DRAIN_SECONDS + SETTLE_SECONDS + 2.0 * cluster.gpu.verify_seconds + 3600.0
