"""What keeps a run from changing a cluster freely: running GPU workloads, and another run on the same cluster."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from shipway.bare_lock import claim_left, claimed
from shipway.cluster_lease import held, holder
from shipway.errors import Refused, ShipwayError
from shipway.gpu_proof_evidence import taken_by_others
from shipway.step import Impact
from tasks.context import Run


async def find_busy(run: Run) -> None:
    """Keep which hosts may not be disturbed: those whose cards are held by pods that are not our own proof's.

    Costs nothing while the cluster does not exist. Where it does and its API cannot be asked, every worker that has
    joined counts as busy; the control plane's own host does not, or it could never be mended.
    """
    joined = [name for name, survey in run.surveys.items() if survey.joined]
    if not joined or run.allow is Impact.NOTHING:
        return
    try:
        kube = await run.kube()
        held = await taken_by_others(kube, dict.fromkeys(joined, 1))
        run.busy = {name: f"{count} cards held by running pods" for name, count in held.items() if count}
    except ShipwayError as error:
        why = f"the API cannot tell which pods run ({error.message})"
        run.busy = {name: why for name in joined if name != run.control.name}


async def lease(run: Run) -> Refused | None:
    """Hold the cluster's lease until the run ends; give the refusal where another run holds it.

    A plan needs none. Where there is no cluster yet, the host that gets its control plane is claimed instead, and the
    lease is taken as soon as there is one (`new_lease`); where the API does not answer, there is nobody to ask.
    """
    joined = any(survey.joined for survey in run.surveys.values())
    if run.mode == "bootstrap" and run.control.name in run.surveys:
        control = run.session(run.control.name)
        if not joined or await claim_left(control):
            refused = await _held(run, claimed(control, _who(run)))
            if refused is not None:
                return refused
    return await _leased(run) if joined else None


async def new_lease(run: Run) -> None:
    """Hold the lease of a cluster that was only just made; a run that began on bare hosts has none until then.

    Raises Refused SHW-102 where another run, begun on the same bare hosts from another machine, was first.
    """
    if not run.leased and (refused := await _leased(run)) is not None:
        raise refused


async def _leased(run: Run) -> Refused | None:
    """Take the lease, where the run may change anything; give the refusal where another run holds it."""
    if run.allow is Impact.NOTHING:
        return None
    try:
        kube = await run.kube()
    except ShipwayError as error:
        run.view.said(run.control.name, "preflight", f"the cluster's lease is not taken: {error.message}")
        return None
    refused = await _held(run, held(kube, _who(run)))
    run.leased = refused is None
    return refused


async def _held(run: Run, lock: AbstractAsyncContextManager[None]) -> Refused | None:
    """Hold a lock until the run ends; give the refusal. What else keeps from it will also keep from the work itself."""
    try:
        await run.until_end.enter_async_context(lock)
    except Refused as refused:
        return refused
    except ShipwayError as error:
        run.view.said(run.control.name, "preflight", f"the cluster's lock is not taken: {error.message}")
    return None


def _who(run: Run) -> str:
    return holder(f"{run.mode} of {run.cluster.name}")
