"""The device plugin (S8): the RuntimeClass its pods need, and NVIDIA's plugin on every node with cards."""

from __future__ import annotations

from typing import ClassVar

from shipway.cluster import Cluster
from shipway.kube import Kube, Object
from shipway.manifests import render
from shipway.step import Check, Impact
from shipway.steps.objects import ObjectsPresent
from shipway.steps.plugin import GPU_LABEL, RUNTIME_CLASS


def needs_selector(cluster: Cluster) -> bool:
    """Say whether the plugin must stay off nodes without cards.

    In RuntimeClass mode its pod cannot start where the handler is missing; since 0.18 NVIDIA's manifest lets it fail
    on a node without cards (k8s-device-plugin CHANGELOG, v0.18.0). Otherwise it runs everywhere, as there.
    """
    major, minor, _ = (int(part) for part in cluster.device_plugin.version.split("."))
    return cluster.gpu.mode == "runtime_class" or (major, minor) >= (0, 18)


def daemon_set(cluster: Cluster) -> list[Object]:
    """Give the plugin's DaemonSet."""
    return render(
        "device-plugin/daemonset.yaml",
        image=f"{cluster.device_plugin.image}:v{cluster.device_plugin.version}",
        runtime_class=RUNTIME_CLASS if cluster.gpu.mode == "runtime_class" else None,
        node_selector={GPU_LABEL: "true"} if needs_selector(cluster) else None,
    )


def steps(cluster: Cluster) -> list[Check[Kube]]:
    """Give the steps, in order; none where every host declares that it has no card.

    The nodes' label is set as each one joins (tasks.gates.node_steps).
    """
    if all(host.gpus == 0 for host in cluster.hosts):
        return []
    runtime_class: list[Check[Kube]] = []
    if cluster.gpu.mode == "runtime_class":
        name = "RuntimeClass nvidia leads to containerd's handler nvidia"
        runtime_class = [RuntimeClassIs(name, render("runtime-class/nvidia.yaml"), Impact.FILES)]
    name = f"the NVIDIA device plugin {cluster.device_plugin.version} is declared for every node with cards"
    return [*runtime_class, PluginPresent(name, daemon_set(cluster))]


class RuntimeClassIs(ObjectsPresent):
    """The RuntimeClass that the plugin's and the workloads' pods name, without which the plugin sees no card."""

    traps: ClassVar[tuple[int, ...]] = (23, 27)


class PluginPresent(ObjectsPresent):
    """The plugin as NVIDIA's static manifest has it, with RuntimeClass and node selector where they are needed."""

    traps: ClassVar[tuple[int, ...]] = (23, 29)
