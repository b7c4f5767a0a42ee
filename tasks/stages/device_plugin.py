"""The device plugin (S8): the RuntimeClass its pods need, and NVIDIA's plugin on every node with GPUs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import ClassVar

from shipway.cluster.model import Cluster
from shipway.errors import ShipwayError
from shipway.kube.client import Kube, Object
from shipway.kube.manifests import render
from shipway.step import Check, Impact
from shipway.steps.gpu.device_list import BY_MOUNTS, PluginPresent, Unready, plugin_makes_mounts
from shipway.steps.gpu.plugin import GPU_LABEL, RUNTIME_CLASS
from shipway.steps.gpu.toolkit import MOUNTS, toolkit_accepts
from shipway.steps.kubernetes.objects import ObjectsPresent
from tasks.context import Run
from tasks.stages.nvidia_runtime import TAKES_MOUNTS

TOOLKITS_SECONDS = 600.0  # that a host which has joined is given to come to its toolkit, before the plugin changes


def needs_selector(cluster: Cluster) -> bool:
    """Say whether the plugin must stay off nodes without GPUs.

    In RuntimeClass mode its pod cannot start where the handler is missing; since 0.18 NVIDIA's manifest lets it fail
    on a node without GPUs (k8s-device-plugin CHANGELOG, v0.18.0). Otherwise it runs everywhere, as there.
    """
    major, minor, _ = (int(part) for part in cluster.device_plugin.version.split("."))
    return cluster.gpu.mode == "runtime_class" or (major, minor) >= (0, 18)


def daemon_set(cluster: Cluster) -> list[Object]:
    """Return the plugin's DaemonSet."""
    return render(
        "device-plugin/daemonset.yaml",
        image=f"{cluster.device_plugin.image}:v{cluster.device_plugin.version}",
        runtime_class=RUNTIME_CLASS if cluster.gpu.mode == "runtime_class" else None,
        strategy=BY_MOUNTS,
        node_selector={GPU_LABEL: "true"} if needs_selector(cluster) else None,
    )


def steps(cluster: Cluster, unready: Unready | None = None) -> list[Check[Kube]]:
    """Return the steps, in order; none where every host declares that it has no GPU.

    `unready` tells why the toolkits of some nodes do not accept the device list as mounts. The nodes' label is set as
    each one joins (tasks.gates.node_steps).
    """
    if all(host.gpus == 0 for host in cluster.hosts):
        return []
    runtime_class: list[Check[Kube]] = []
    if cluster.gpu.mode == "runtime_class":
        name = "RuntimeClass nvidia leads to containerd's handler nvidia"
        runtime_class = [RuntimeClassIs(name, render("runtime-class/nvidia.yaml"), Impact.FILES)]
    name = f"the NVIDIA device plugin {cluster.device_plugin.version} is declared for every node with cards"
    return [*runtime_class, PluginPresent(name, daemon_set(cluster), unready=unready)]


class RuntimeClassIs(ObjectsPresent):
    """The RuntimeClass that the plugin's and the workloads' pods name, without which the plugin sees no GPU."""

    traps: ClassVar[tuple[int, ...]] = (23, 27)


def toolkits(run: Run) -> Unready:
    """Return what tells of nodes why the toolkits of their hosts do not all accept mounts; "" where they do.

    A host of which a step of this run has seen it is not asked again.
    """

    async def unready(names: Sequence[str]) -> str:
        foreign = sorted(set(names) - {host.name for host in run.cluster.hosts})
        if foreign:
            return f"{', '.join(foreign)}: no host of the cluster file, so nobody can look at the toolkit there"
        if run.allow is Impact.NOTHING:
            done = set[str]()
        else:
            rows = [(result.host, row) for result in run.results for row in result.rows]
            done = {host for host, row in rows if row.step == TAKES_MOUNTS and row.outcome in ("ok", "changed")}
        asked = sorted(set(names) - done)
        said = await asyncio.gather(*(_unready(run, name) for name in asked))
        return "; ".join(why for why in said if why)

    return unready


async def _unready(run: Run, name: str) -> str:
    try:
        if await toolkit_accepts(run.session(name), MOUNTS):
            return ""
    except ShipwayError as error:
        return f"{name}: it cannot be told how its toolkit takes the device list ({error.message})"
    return f"{name}: its toolkit does not accept the device list as mounts yet"


async def wait_for_toolkits(run: Run) -> None:
    """Let the GPU hosts that have joined come to their toolkit first, where the plugin is to change its way.

    A host that has not joined needs no wait: it joins after its toolkit is done.
    """
    joined = [name for name, survey in run.surveys.items() if survey.joined and run.cards(run.cluster.host(name))]
    if run.allow is Impact.NOTHING or not joined or await plugin_makes_mounts(await run.kube()):
        return
    ends = time.monotonic() + TOOLKITS_SECONDS
    while time.monotonic() < ends:
        over = {r.host for r in run.results if r.stage == "nvidia_runtime" or not r.stands}
        if over.issuperset(joined):
            return
        await asyncio.sleep(1.0)
