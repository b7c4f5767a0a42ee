"""The check that the vendor's device plugin sees GPUs, and what it can never get over."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from shipway.errors import PostconditionFailed, ShipwayError
from shipway.gpu.chosen import VENDOR
from shipway.gpu.vendor import Vendor
from shipway.kube.client import Kube
from shipway.kube.pod_states import find_known, find_trouble
from shipway.step import Drift
from shipway.steps.kubernetes.nodes import SHOWN_WHY, WorkloadRuns, is_ending, pod_ready


@dataclass(frozen=True)
class PluginRunning:
    """The plugin's pods run, and none says that it sees no GPU: a Running pod alone proves nothing."""

    traps: ClassVar[tuple[int, ...]] = (23, 30)
    mode: str
    name: str = "the device plugin runs and sees GPUs on every node that it is for"
    vendor: Vendor = VENDOR

    async def check(self, on: Kube) -> Drift | None:
        """Ask the DaemonSet, then the log of each pod that runs under the vendor's runtime."""
        plugin = self.vendor.plugin
        drift = await WorkloadRuns("DaemonSet", plugin.daemon_set, plugin.namespace).check(on)
        if drift is not None or self.mode != "runtime_class":
            return drift  # in default-runtime mode it also runs on nodes without GPUs, where it rightly sees none
        pods = await on.list_("v1", "Pod", plugin.namespace, labels=plugin.selector)
        logs = await asyncio.gather(*(on.logs(plugin.namespace, pod["metadata"]["name"]) for pod in pods))
        blind = [pod["spec"]["nodeName"] for pod, log in zip(pods, logs, strict=True) if plugin.is_blind(log)]
        return Drift(f"it sees no GPU on {', '.join(sorted(blind))}", "GPUs seen") if blind else None


async def find_hopeless(on: Kube) -> dict[str, ShipwayError]:
    """Return by node why the plugin's pod can never run there, as the catalogue knows it; empty where none is known.

    Raises the errors of the API.
    """
    there = await on.list_("v1", "Pod", VENDOR.plugin.namespace, labels=VENDOR.plugin.selector)
    pods = [pod for pod in there if not pod_ready(pod) and not is_ending(pod)]
    events = await asyncio.gather(*(on.events_of(pod) for pod in pods))
    found: dict[str, ShipwayError] = {}
    for pod, said in zip(pods, events, strict=True):
        node = (pod.get("spec") or {}).get("nodeName", "")
        if node and (known := find_known(pod, said)):
            why = f"{known.cause} ({pod['metadata']['name']}: {find_trouble(pod, said)[:SHOWN_WHY]})"
            found[node] = PostconditionFailed(why, host=node, code=known.code, fix=known.fix)
    return found
