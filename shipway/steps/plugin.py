"""What is known of NVIDIA's device plugin: its names, what its log says, and the check that it sees cards."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from shipway.kube import Kube
from shipway.step import Drift
from shipway.steps.nodes import WorkloadRuns

PLUGIN = "nvidia-device-plugin-daemonset"
NAMESPACE = "kube-system"
SELECTOR = "name=nvidia-device-plugin-ds"
RUNTIME_CLASS = "nvidia"
# NVIDIA's own name for it (GPU feature discovery sets the same), so that other software finds the nodes too.
GPU_LABEL = "nvidia.com/gpu.present"
REGISTERED = "Registered device plugin"
# What the plugin's log says when it sees no card, though its pod stays Running (k8s-device-plugin#1552, #1220).
NO_CARDS = (
    "No devices found. Waiting indefinitely",
    "Incompatible strategy detected",
    "Incompatible platform detected",
)


@dataclass(frozen=True)
class PluginRunning:
    """The plugin's pods run, and none says that it sees no card: a Running pod alone proves nothing."""

    traps: ClassVar[tuple[int, ...]] = (23, 30)
    mode: str
    name: str = "the device plugin runs and sees cards on every node that it is for"

    async def check(self, on: Kube) -> Drift | None:
        """Ask the DaemonSet, then the log of each pod that runs under the nvidia runtime."""
        drift = await WorkloadRuns("DaemonSet", PLUGIN, NAMESPACE).check(on)
        if drift is not None or self.mode != "runtime_class":
            return drift  # in default-runtime mode it also runs on nodes without cards, where it rightly sees none
        pods = await on.list_("v1", "Pod", NAMESPACE, labels=SELECTOR)
        logs = await asyncio.gather(*(on.logs(NAMESPACE, pod["metadata"]["name"]) for pod in pods))
        blind = [pod["spec"]["nodeName"] for pod, log in zip(pods, logs, strict=True) if sees_none(log)]
        return Drift(f"it sees no card on {', '.join(sorted(blind))}", "cards seen") if blind else None


def sees_none(log: str) -> bool:
    """Say whether the newest thing a plugin's log tells about cards is that it sees none."""
    return max(log.rfind(text) for text in NO_CARDS) > log.rfind(REGISTERED)
