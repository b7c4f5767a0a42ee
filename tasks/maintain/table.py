"""The stages of maintenance."""

from __future__ import annotations

from shipway.cluster.model import Cluster
from shipway.stage import StageName
from tasks.maintain import work as maintains
from tasks.maintain.look import SETTLE_SECONDS, look_at_possible, look_at_system
from tasks.stage import Stage, always
from tasks.waves.seconds import wave_seconds


def _maintain_seconds(cluster: Cluster) -> float:
    """Return how long a host may take: as for an upgrade, and its restart."""
    return wave_seconds(cluster) + cluster.maintain.reboot_minutes * 60.0


STAGES = (
    Stage(StageName.MAINTAIN_LOOK, look_at_system, always(SETTLE_SECONDS + 240.0), terse=True),
    Stage(StageName.MAINTAIN_POSSIBLE, look_at_possible, always(300.0), terse=True),
    Stage(StageName.MAINTAIN_FETCH, maintains.fetch, always(3600.0)),
    Stage(StageName.MAINTAIN_CONTROL_PLANE, maintains.maintain_control_plane, _maintain_seconds),
    Stage(StageName.MAINTAIN_WORKER, maintains.maintain_worker, _maintain_seconds),
)
