"""Closes a GPU host to pods that ask for no GPU: the last step of the order in shipway.steps.gpu.device_list."""

from __future__ import annotations

from shipway.cluster.model import Cluster
from shipway.gpu.chosen import VENDOR
from shipway.gpu.nvidia.answers import NVIDIA, VARIABLE
from shipway.host.session import Host
from shipway.step import Check
from shipway.steps.gpu.device_list import ask_safely, needs_variable
from shipway.steps.gpu.toolkit import Hold, ToolkitAccepts
from tasks.context import Run


def steps(cluster: Cluster, why_not: Hold | None) -> list[Check[Host]]:
    """Return the step of a GPU host; `why_not` tells of a host why the variable must be accepted for now.

    None where Shipway builds for another vendor's GPUs: there is no such variable then.
    """
    if VENDOR is not NVIDIA:
        return []
    if cluster.gpu.isolation == "off":
        return [ToolkitAccepts(VARIABLE, accepts=True, name="containers may ask for GPUs by a variable")]
    name = "no container sees a GPU that it was not given"
    return [ToolkitAccepts(VARIABLE, accepts=False, name=name, why_not=why_not)]


def holding(run: Run) -> Hold:
    """Return what tells of a host of the run why the variable must be accepted for now."""

    async def why_not(host: str) -> str:
        async def ask() -> str:
            return await needs_variable(await run.kube(), host)

        return await ask_safely(ask)

    return why_not
