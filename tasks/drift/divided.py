"""The turn of a drained host whose GPUs are divided anew: no device plugin is there meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shipway.errors import Blocked
from shipway.gpu.classes import label_of
from shipway.kube.client import Kube
from shipway.steps.gpu.classes import NodeClass
from tasks.context import Run
from tasks.stages import nvidia_runtime


@asynccontextmanager
async def without_plugin(run: Run, kube: Kube, host: str) -> AsyncIterator[None]:
    """Keep the plugin off a host's node where its GPUs are to be divided anew; nothing is done on any other.

    The node comes back in the class that is declared, once its GPUs are divided as that has it: no pod gets one as
    it is not any more. Where pods hold some of its GPUs they are not divided, and the finding says so.
    """
    spec = run.cluster.host(host)
    wanted = {step.id for step in nvidia_runtime.divided_as(run.cluster.gpu_sharing_of(spec))}
    dividing = [one for one in run.drift.findings.get(host, ()) if one.id in wanted]
    if not dividing:
        yield
        return
    node = NodeClass(host, label_of(run.cluster, host))
    try:
        earlier = await node.leave(kube)
    except Blocked as error:
        run.drift.withheld |= {one.key: error.message for one in dividing}
        yield
        return
    try:
        yield
    finally:
        await node.come_back(kube, earlier, as_declared=not nvidia_runtime.undivided(run, spec))
