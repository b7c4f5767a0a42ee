"""Which hosts run GPU workloads: nothing that could disturb those is changed unasked."""

from __future__ import annotations

from shipway.errors import ShipwayError
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
