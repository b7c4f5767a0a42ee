"""IMEX where hosts run it: which of them share a fabric is known by asking all, and each gets the same list."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shipway.cluster.model import node_ip
from shipway.cluster.parts import HostSpec
from shipway.converge import Permit, converge
from shipway.errors import ShipwayError
from shipway.gpu.driver.imex import Fellow
from shipway.host.session import Host
from shipway.step import Check, Impact, StepResult
from shipway.steps.gpu.driver.imex import ImexReady, read_fellow
from tasks.context import Run
from tasks.stages import gpu_driver
from tasks.waiting import hear_results, wait_for
from tasks.workloads import permit_undisturbed

READY_SECONDS = 120.0  # it waits for no other node unless an earlier one of its own ended badly (its config.cfg)


async def _fellow(run: Run, spec: HostSpec) -> Fellow | None:
    """Return what a host tells of its fabric, or that it does not answer."""
    try:
        return await read_fellow(run.session(spec.name), spec.name, node_ip(spec))
    except ShipwayError as error:
        return Fellow(spec.name, node_ip(spec), None, error.message)


def steps(run: Run, host: str) -> list[Check[Host]]:
    """Return the steps of a host that runs IMEX; none where the file leaves it to pods."""

    async def fellows() -> Sequence[Fellow]:
        found = await asyncio.gather(*(_fellow(run, one) for one in run.cluster.hosts if one.gpus != 0))
        return [one for one in found if one]

    return gpu_driver.imex(run.cluster, run.cluster.host(host), fellows)


async def bring_imex(run: Run, stage: str, host: str, allow: Impact, permit: Permit) -> list[StepResult]:
    """Have a host run IMEX, and wait until it is ready."""
    wanted, session = steps(run, host), run.session(host)
    ready = [one for one in wanted if isinstance(one, ImexReady)]
    rest = wanted if allow is Impact.NOTHING else [one for one in wanted if one not in ready]
    results = await converge(rest, session, allow, hear_results(run, stage, host), permit)
    if rest is wanted or any(one.outcome not in ("ok", "changed") for one in results):
        return results
    return [*results, *[await wait_for(run, stage, one, session, seconds=READY_SECONDS) for one in ready]]


async def bring_undisturbed(run: Run, stage: str, host: str) -> list[StepResult]:
    """Have a host of a bootstrap run IMEX, where nothing on it is disturbed by that."""
    run.session(host).forget()
    return await bring_imex(run, stage, host, run.allowed(host), permit_undisturbed(run, host))
