"""The GPU verification subflow: nodes Ready, GPUs allocatable, and every GPU held and used at once."""

from __future__ import annotations

import asyncio
import contextlib
from uuid import UUID

import httpx
from prefect import State, flow
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from shipway.stage import StageName
from tasks.context import Run, current
from tasks.prefect_quirks import take_signals_back, wait_for_server
from tasks.run_stage import on
from tasks.stage_result import CLUSTER

PROOF = StageName.GPU_PROOF


@flow(name="verify-gpus", flow_run_name="verify the GPUs of {cluster}", persist_result=False)
async def verify_gpus(cluster: str, close: bool = False) -> State[None]:  # noqa: ARG001, FBT001, FBT002 - a flow's form
    """Prove the GPUs of the current run as a flow run of its own; with `close` hosts are isolated before that."""
    take_signals_back()
    run = current()
    run.flow_runs.append(UUID(flow_run.id))
    if await _prove(run, close=close):
        return Completed(message=run.proof_said)
    return Failed(message=run.proof_said)


async def verify(run: Run, *, close: bool = False) -> None:
    """Prove the GPUs as a subflow; where Prefect's server stays away, in the run itself.

    With `close` GPU hosts are isolated (gpu.isolation) as soon as the device plugin is as declared, before the proof.

    The server records what is done, it does not decide whether it is done.
    """
    if await wait_for_server():
        with contextlib.suppress(httpx.HTTPError):
            await verify_gpus(run.cluster.name, close, return_state=True)
    if not any(result.stage == PROOF for result in run.results):
        await _prove(run, close=close)


async def _prove(run: Run, *, close: bool) -> bool:
    """Wait for what can be waited for, then prove; a node or GPU that stays away is named, the others are proven."""
    ended = [await on(stage, CLUSTER) for stage in (StageName.NODES_READY, StageName.GPUS_ALLOCATABLE)]
    if close:
        hosts = [host.name for host in run.hosts if host.name in run.ready and run.gpus_of(host)]
        await asyncio.gather(*(on(StageName.GPU_ISOLATION, name) for name in hosts))
    return all([*ended, await on(PROOF, CLUSTER)])
