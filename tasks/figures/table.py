"""The stages of a verification with figures."""

from __future__ import annotations

from shipway.stage import StageName
from tasks.figures import across
from tasks.figures.work import SECONDS, measure
from tasks.stage import Stage, always

STAGES = (
    Stage(StageName.GPU_FIGURES, measure, always(SECONDS), 0),
    Stage(StageName.GPU_ACROSS, across.measure_across, always(across.SECONDS), 0),
)
