"""What a stage lost is waited for before it is tried again: a host or an API that restarts outlasts the retries."""

from __future__ import annotations

from shipway.converge import On
from shipway.errors import ShipwayError
from shipway.step import Check
from shipway.steps.system.base import AnswersAgain
from tasks.context import Run
from tasks.gates import ApiAnswers
from tasks.stage_result import CLUSTER
from tasks.waiting import wait_for

HOST_SECONDS = 90.0  # a virtual machine restarts within a minute; who is away for longer is named, and the run ends
API_SECONDS = 120.0  # the kubelet starts a static pod again after 10, 20, 40 ... seconds


async def wait_for_lost(run: Run, stage: str, lost: frozenset[str]) -> None:
    """Wait for the hosts and the API that a stage lost, where they had answered in this run; in vain only once."""
    for host in sorted(lost & set(run.seen.surveys) - run.gone):
        await _back(run, stage, AnswersAgain(), run.session(host), HOST_SECONDS)
    answered = any(done.stage == "control_plane_ready" and done.stands for done in run.results)
    if answered and CLUSTER in lost - run.gone:
        try:
            kube = await run.kube()
        except ShipwayError:
            return  # connected once, it is kept: so this run never was
        await _back(run, stage, ApiAnswers(), kube, API_SECONDS)


async def _back(run: Run, stage: str, check: Check[On], on: On, seconds: float) -> None:
    """Wait; who stays away is not waited for again."""
    again = await wait_for(run, stage, check, on, seconds=seconds)
    if again.outcome != "ok":
        run.gone.add(on.name)
