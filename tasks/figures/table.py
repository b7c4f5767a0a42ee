"""The stage of a verification with figures."""

from __future__ import annotations

from shipway.stage import StageName
from tasks.figures.work import SECONDS, measure
from tasks.stage import Stage, always

STAGES = (Stage(StageName.GPU_FIGURES, measure, always(SECONDS), 0),)
