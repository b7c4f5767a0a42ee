"""The stages of a replacement that neither a removal nor a bootstrap has."""

from __future__ import annotations

from shipway.stage import StageName
from tasks.replace.allowed import may_replace
from tasks.replace.work import learn_address
from tasks.stage import Stage, always

STAGES = (
    Stage(StageName.MAY_REPLACE, may_replace, always(180.0), 0),
    Stage(StageName.LEARN_ADDRESS, learn_address, always(300.0)),
)
