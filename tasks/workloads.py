"""What keeps a run from changing a cluster freely: running GPU workloads, and another run on the same cluster."""

from __future__ import annotations

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

    A plan needs none, and where there is no cluster yet, or its API does not answer, there is nobody to ask.
    """
    if run.allow is Impact.NOTHING or not any(survey.joined for survey in run.surveys.values()):
        return None
    try:
        await run.until_end.enter_async_context(held(await run.kube(), holder(f"{run.mode} of {run.cluster.name}")))
    except Refused as refused:
        return refused
    except ShipwayError as error:
        run.view.said(run.control.name, "preflight", f"the cluster's lease is not taken: {error.message}")
    return None
