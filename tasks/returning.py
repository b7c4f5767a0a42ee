"""A host whose connection broke is waited for before its stage is tried again: a restart outlasts the retries."""

from __future__ import annotations

from shipway.errors import ConnectionLost, Unreachable
from shipway.operation import STOPPED
from shipway.steps.system import AnswersAgain
from tasks.context import Run
from tasks.stage_result import StageResult
from tasks.waiting import waited

BROKEN = frozenset({Unreachable.default_code, ConnectionLost.default_code, STOPPED})
RETURN_SECONDS = 90.0  # a virtual machine restarts within a minute; who is away for longer is named, and the run ends


async def returned(run: Run, result: StageResult) -> None:
    """Wait for the hosts that a stage lost, where they had answered in this run; one that stays away only once."""
    lost = {error.host for error in result.errors if error.code in BROKEN} & set(run.surveys)
    for host in sorted(lost - run.gone):
        again = await waited(run, result.stage, AnswersAgain(), run.session(host), seconds=RETURN_SECONDS)
        if again.outcome != "ok":
            run.gone.add(host)
