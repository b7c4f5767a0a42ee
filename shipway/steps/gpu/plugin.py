"""What is known of NVIDIA's device plugin: its names, what its log says, and the check that it sees GPUs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from shipway.errors import PostconditionFailed, ShipwayError
from shipway.kube.client import Kube
from shipway.kube.pod_states import find_known, find_trouble
from shipway.step import Drift
from shipway.steps.kubernetes.nodes import SHOWN_WHY, WorkloadRuns, is_ending, pod_ready

PLUGIN = "nvidia-device-plugin-daemonset"
NAMESPACE = "kube-system"
SELECTOR = "name=nvidia-device-plugin-ds"
RUNTIME_CLASS = "nvidia"
# NVIDIA's own name for it (GPU feature discovery sets the same), so that other software finds the nodes too.
GPU_LABEL = "nvidia.com/gpu.present"
REGISTERED = "Registered device plugin"
# What the plugin's log says when it sees no GPU, though its pod stays Running (k8s-device-plugin#1552, #1220).
NO_CARDS = (
    "No devices found. Waiting indefinitely",
    "Incompatible strategy detected",
    "Incompatible platform detected",
)


@dataclass(frozen=True)
class PluginRunning:
    """The plugin's pods run, and none says that it sees no GPU: a Running pod alone proves nothing."""

    traps: ClassVar[tuple[int, ...]] = (23, 30)
    mode: str
    name: str = "the device plugin runs and sees cards on every node that it is for"

    async def check(self, on: Kube) -> Drift | None:
        """Ask the DaemonSet, then the log of each pod that runs under the nvidia runtime."""
        drift = await WorkloadRuns("DaemonSet", PLUGIN, NAMESPACE).check(on)
        if drift is not None or self.mode != "runtime_class":
            return drift  # in default-runtime mode it also runs on nodes without GPUs, where it rightly sees none
        pods = await on.list_("v1", "Pod", NAMESPACE, labels=SELECTOR)
        logs = await asyncio.gather(*(on.logs(NAMESPACE, pod["metadata"]["name"]) for pod in pods))
        blind = [pod["spec"]["nodeName"] for pod, log in zip(pods, logs, strict=True) if sees_none(log)]
        return Drift(f"it sees no card on {', '.join(sorted(blind))}", "cards seen") if blind else None


async def find_hopeless(on: Kube) -> dict[str, ShipwayError]:
    """Return by node why the plugin's pod can never run there, as the catalogue knows it; empty where none is known.

    Raises the errors of the API.
    """
    there = await on.list_("v1", "Pod", NAMESPACE, labels=SELECTOR)
    pods = [pod for pod in there if not pod_ready(pod) and not is_ending(pod)]
    events = await asyncio.gather(*(on.events_of(pod) for pod in pods))
    found: dict[str, ShipwayError] = {}
    for pod, said in zip(pods, events, strict=True):
        node = (pod.get("spec") or {}).get("nodeName", "")
        if node and (known := find_known(pod, said)):
            why = f"{known.cause} ({pod['metadata']['name']}: {find_trouble(pod, said)[:SHOWN_WHY]})"
            found[node] = PostconditionFailed(why, host=node, code=known.code, fix=known.fix)
    return found


def sees_none(log: str) -> bool:
    """Say whether the newest thing a plugin's log tells about GPUs is that it sees none."""
    return max(log.rfind(text) for text in NO_CARDS) > log.rfind(REGISTERED)
