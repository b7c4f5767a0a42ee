"""The stages of a drift pass."""

from __future__ import annotations

from shipway.stage import StageName
from shipway.steps.gpu.sound import MEASURE_SECONDS
from tasks.drift.look import look_at_cluster, look_at_host
from tasks.drift.repair import (
    DRAIN_SECONDS,
    READY_SECONDS,
    RELEASE_SECONDS,
    repair_cluster,
    repair_drained,
    repair_host,
)
from tasks.stage import Stage, always

STAGES = (
    Stage(StageName.LOOK, look_at_host, always(240.0), terse=True),
    Stage(StageName.LOOK_AT_CLUSTER, look_at_cluster, always(300.0), terse=True),
    Stage(StageName.REPAIR, repair_host, always(3600.0), 0, terse=True),
    Stage(StageName.REPAIR_DRAINED, repair_drained, always(DRAIN_SECONDS + READY_SECONDS + 3600), 0, terse=True),
    # The proofs of GPUs, of a plugin that was started anew or a node that is opened again, are its last part.
    Stage(
        StageName.REPAIR_CLUSTER,
        repair_cluster,
        lambda cluster: 1800.0 + RELEASE_SECONDS + MEASURE_SECONDS + 7.0 * cluster.gpu.verify_seconds,
        0,
        terse=True,
    ),
)
