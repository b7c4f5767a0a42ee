"""Once a host has another address: every other host calls it by that, and workers ask the API by it."""

from __future__ import annotations

from shipway.converge import converge
from shipway.os.families import recognise
from shipway.step import Impact, StepResult
from tasks.context import Run
from tasks.stages import prepare_system
from tasks.waiting import hear_results


async def learn_address(run: Run, stage: str, host: str) -> list[StepResult]:
    """Let a host know the others by their addresses; nothing that runs there is disturbed."""
    session = run.session(host)
    session.forget()
    family = run.seen.families[host] = await recognise(session)
    way = prepare_system.way_to_api(run.cluster, run.cluster.host(host), family)
    return await converge(way, session, min(run.allow, Impact.START), hear_results(run, stage, host))
