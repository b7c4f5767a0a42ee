"""The gates between stages, checks that nothing can apply, and the steps that each node takes once it has joined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from shipway.cluster.model import Cluster
from shipway.cluster.parts import HostSpec
from shipway.errors import ApiRefused, ApiUnavailable
from shipway.gpu.chosen import VENDOR
from shipway.gpu.classes import daemon_sets, declared_sharing, label_of
from shipway.gpu.counts import GpusAllocatable
from shipway.kube.client import Kube
from shipway.kube.nodes import few
from shipway.kubeadm.config import cri_socket
from shipway.redact import tail
from shipway.step import Check, Drift
from shipway.steps.authority.front_proxy import find_lost
from shipway.steps.gpu.classes import NodeClass, PluginsConfigured
from shipway.steps.gpu.labels import GpuLabels
from shipway.steps.gpu.plugin import PluginRunning
from shipway.steps.kubernetes.cri_socket import LAST_ANNOTATED, SocketRemembered
from shipway.steps.kubernetes.nodes import NodeLabels, NodesReady, NodeUntainted, WorkloadRuns
from shipway.steps.kubernetes.serving_requests import ServingRequestsApproved, inventories, is_declared

__all__ = [
    "ApiAnswers",
    "EtcdHealthy",
    "GpusAllocatable",
    "NodesReady",
    "PluginRunning",
    "PluginsConfigured",
    "WorkloadRuns",
    "cluster_gates",
    "node_steps",
]

OK = 200


@dataclass(frozen=True)
class ApiAnswers:
    """The API server says of itself that it is ready; an answer that it is not names the parts that fail."""

    traps: ClassVar[tuple[int, ...]] = (34,)
    name: str = "the Kubernetes API answers and is ready"

    async def check(self, on: Kube) -> Drift | None:
        """Ask /readyz; raises ApiUnavailable where nothing answers."""
        failing = await _failing(on)
        return Drift(f"not ready: {', '.join(failing)}", "ready") if failing else None


@dataclass(frozen=True)
class EtcdHealthy:
    """The API server reaches its etcd."""

    name: str = "etcd is healthy"

    async def check(self, on: Kube) -> Drift | None:
        """Ask /readyz for the parts that are about etcd."""
        failing = [part for part in await _failing(on) if part.startswith("etcd")]
        return Drift(f"failing: {', '.join(failing)}", "healthy") if failing else None


@dataclass(frozen=True)
class AggregatedApisAvailable:
    """The API server reaches the servers of the APIs that it only passes on, by its front-proxy certificate.

    Where one is lost, namespaces that are deleted stay Terminating (kubeadm#581).
    """

    name: str = "aggregated APIs are available"

    async def check(self, on: Kube) -> Drift | None:
        """Ask for the condition of each that has a Service behind it."""
        lost = await find_lost(on)
        return Drift(f"not available: {few(lost)}", "available") if lost else None


async def _failing(on: Kube) -> list[str]:
    """Return the names of the parts that /readyz marks with [-]; empty when all are well."""
    code, text = await on.raw("/readyz?verbose")
    parts = [line[3:].split(" ")[0] for line in text.splitlines() if line.startswith("[-]")]
    if code == OK or parts:
        return parts
    error = ApiUnavailable if code >= 500 else ApiRefused  # noqa: PLR2004 - the class of the server's own faults
    raise error(f"/readyz answered {code}: {tail(text, 3)}")


def node_steps(
    cluster: Cluster, host: HostSpec, gpus: int | None = None, report: str = "", undivided: str = ""
) -> list[Check[Kube]]:
    """Return what a node takes once it is registered: labels, pods on the control plane where wanted, its socket.

    `gpus` is the number PCI shows; without it a host that does not declare `gpus: 0` is taken for one with GPUs.
    `report` is what its driver tells of them; where it tells nothing, the labels about it stay as they are.
    `undivided` says why they are not divided as their class has it, "" where they are.
    """
    declared = host.gpus if gpus is None else gpus
    labels = {**host.labels, **({VENDOR.label: "true"} if declared else {})}
    steps: list[Check[Kube]] = []
    if declared and VENDOR.plugin.classes:  # before the label by which a plugin of whole GPUs comes
        steps.append(NodeClass(host.name, label_of(cluster, host.name), unready=undivided))
    steps += [NodeLabels(host.name, labels)] if labels else []
    if report or not declared:
        told = report if declared else None
        steps.append(GpuLabels(host.name, told, cluster.gpu.classes, tuple(host.labels)))
    if host in cluster.control_planes and cluster.schedules_on_control_plane:
        steps.append(NodeUntainted(host.name))
    if cluster.kubernetes.minor <= LAST_ANNOTATED:
        steps.append(SocketRemembered(host.name, cri_socket(cluster.kubernetes.minor)))
    if is_declared(cluster):
        steps.append(ServingRequestsApproved({host.name: inventories(cluster)[host.name]}))
    return steps


def cluster_gates(cluster: Cluster, expected: Mapping[str, int]) -> list[Check[Kube]]:
    """Return what must hold before GPUs are proven: nodes Ready, the plugin up, every GPU allocatable.

    `expected` gives the GPUs of every node that is to be part of the cluster; 0 for one without.
    """
    gates: list[Check[Kube]] = [NodesReady(tuple(expected))]
    if any(expected.values()):
        gates += [
            PluginRunning(cluster.gpu.mode, sets=tuple(daemon_sets(cluster))),
            PluginsConfigured(cluster.gpu_classes),
            GpusAllocatable({n: count for n, count in expected.items() if count}, declared=declared_sharing(cluster)),
        ]
    return gates
