"""The check that the vendor's device plugin sees GPUs, and what it can never get over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from shipway.errors import PostconditionFailed, ShipwayError
from shipway.gpu.chosen import VENDOR
from shipway.gpu.owners import find_owner
from shipway.gpu.plugin_pods import node_of_pod, plugin_logs, plugin_pods
from shipway.gpu.vendor import Vendor
from shipway.known_failures.entry import Known
from shipway.kube.client import Kube, Object
from shipway.kube.pod_states import find_known, find_start, find_trouble
from shipway.redact import keep_ends
from shipway.step import Drift
from shipway.steps.kubernetes.nodes import SHOWN_WHY, WorkloadRuns, find_waiting


@dataclass(frozen=True)
class PluginRunning:
    """The plugin's pods run, and none says that it sees no GPU: a Running pod alone proves nothing."""

    traps: ClassVar[tuple[int, ...]] = (23, 30)
    mode: str
    name: str = "the device plugin runs and sees GPUs on every node that it is for"
    vendor: Vendor = VENDOR
    sets: tuple[str, ...] = ()

    async def check(self, on: Kube) -> Drift | None:
        """Ask the DaemonSets, then the log of each pod that runs under the vendor's runtime."""
        plugin = self.vendor.plugin
        if await find_owner(on, self.vendor):
            return None  # whose it is keeps it; the GPUs that it offers are counted
        sets = self.sets or (plugin.daemon_set,)
        found = [await WorkloadRuns("DaemonSet", name, plugin.namespace).check(on) for name in sets]
        drift = next((one for one in found if one), None)
        if drift is not None or self.mode == "default_runtime":
            return drift  # in default-runtime mode it also runs on nodes without GPUs, where it rightly sees none
        pods = await plugin_pods(on, vendor=self.vendor)
        logs = await plugin_logs(on, pods, vendor=self.vendor)
        blind = [pod["spec"]["nodeName"] for pod, log in zip(pods, logs, strict=True) if plugin.is_blind(log)]
        return Drift(f"it sees no GPU on {', '.join(sorted(blind))}", "GPUs seen") if blind else None


async def start_anew(on: Kube) -> list[str]:
    """Delete the plugin's pods that wait after a known failure; return their names.

    The kubelet starts such a container again after up to five minutes (its back-off). Until then the pod tells what was
    wrong, not what is: on a host whose driver was mended meanwhile a new pod starts at once. None of these runs.
    Raises the errors of the API.
    """
    broken = [pod["metadata"]["name"] for pod, _, _ in await _find_broken(on)]
    for name in broken:
        await on.delete("v1", "Pod", name, VENDOR.plugin.namespace)
    return broken


async def renew_older(on: Kube, node: str, since: int) -> list[str]:
    """Delete the plugin's pods of a node that started before `since` (seconds since 1970); return their names.

    For a host without GPU pods whose kubelet has just been upgraded: `systemctl daemon-reload` takes the GPUs from
    containers that run, and a plugin that has lost them does not register with the new kubelet. Raises the errors of
    the API.
    """
    pods = await plugin_pods(on)
    limit = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    here = [pod for pod in pods if node_of_pod(pod) == node]
    older = [pod["metadata"]["name"] for pod in here if "" < find_start(pod) < limit]
    for name in older:
        await on.delete("v1", "Pod", name, VENDOR.plugin.namespace)
    return older


async def find_hopeless(on: Kube) -> dict[str, ShipwayError]:
    """Return by node why the plugin's pod can never run there, as the catalogue knows it; empty where none is known.

    Raises the errors of the API.
    """
    found: dict[str, ShipwayError] = {}
    for pod, known, trouble in await _find_broken(on):
        node = pod["spec"]["nodeName"]
        why = f"{known.cause} ({pod['metadata']['name']}: {keep_ends(trouble, SHOWN_WHY)})"
        found[node] = PostconditionFailed(why, host=node, code=known.code, fix=known.fix)
    return found


async def _find_broken(on: Kube) -> list[tuple[Object, Known, str]]:
    """Return the plugin's pods on a node that are not ready for a reason that the catalogue knows, with both."""
    return [
        (pod, known, find_trouble(pod, said))
        for pod, said in await find_waiting(on, VENDOR.plugin.namespace, VENDOR.plugin.selector)
        if pod["spec"].get("nodeName") and (known := find_known(pod, said))
    ]
