"""The GPU verification subflow: nodes Ready, cards allocatable, and every card held and used at once."""

from __future__ import annotations

from uuid import UUID

from prefect import State, flow
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from tasks.context import CLUSTER, current
from tasks.run_stage import on


@flow(name="verify-gpus", flow_run_name="verify the GPUs of {cluster}", persist_result=False)
async def verify_gpus(cluster: str) -> State[None]:  # noqa: ARG001 - it names the run
    """Wait for what can be waited for, then prove; a node or card that stays away is named, the others are proven."""
    run = current()
    run.flow_runs.append(UUID(flow_run.id))
    ready = await on("nodes_ready", CLUSTER)
    offered = await on("cards_allocatable", CLUSTER)
    proven = await on("gpu_proof", CLUSTER)
    if ready and offered and proven:
        return Completed(message=run.proof_said)
    return Failed(message=run.proof_said)
