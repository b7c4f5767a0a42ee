"""The GPU verification subflow: nodes Ready, cards allocatable, and every card held and used at once."""

from __future__ import annotations

import contextlib
from uuid import UUID

import httpx
from prefect import State, flow
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from tasks.context import CLUSTER, Run, current
from tasks.prefect_quirks import wait_for_server
from tasks.run_stage import on

PROOF = "gpu_proof"


@flow(name="verify-gpus", flow_run_name="verify the GPUs of {cluster}", persist_result=False)
async def verify_gpus(cluster: str) -> State[None]:  # noqa: ARG001 - it names the run
    """Prove the GPUs of the current run as a flow run of its own."""
    run = current()
    run.flow_runs.append(UUID(flow_run.id))
    if await _prove():
        return Completed(message=run.proof_said)
    return Failed(message=run.proof_said)


async def verify(run: Run) -> None:
    """Prove the GPUs as a subflow; where Prefect's server stays away, in the run itself.

    The server records what is done, it does not decide whether it is done.
    """
    if await wait_for_server():
        with contextlib.suppress(httpx.HTTPError):
            await verify_gpus(run.cluster.name, return_state=True)
    if not any(result.stage == PROOF for result in run.results):
        await _prove()


async def _prove() -> bool:
    """Wait for what can be waited for, then prove; a node or GPU that stays away is named, the others are proven."""
    ended = [await on(stage, CLUSTER) for stage in ("nodes_ready", "cards_allocatable", PROOF)]
    return all(ended)
