"""Solver warnings: past the end of life, outside the tested range, old, or open wider than it need be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from shipway.cluster.model import Cluster
from shipway.rules.compatibility import (
    CALICO_OLDEST_MAINTAINED,
    CALICO_TESTED,
    CONTAINERD_1_DEPRECATED,
    CONTAINERD_END,
    CONTAINERD_FOR,
    DASHBOARD_ARCHIVED,
    KUBERNETES_END,
    LAST_PATCH,
    MAX_PODS,
    PLUGIN_SOUND,
    TOOLKIT_SOUND,
    minor_of,
    needs_cgroup_v2,
    triple,
)
from shipway.rules.versions import dotted

SOON_DAYS = 60


def kubernetes(cluster: Cluster, today: date) -> Iterator[str]:
    """End of life, passed or near, and the last patch where there are no more."""
    minor, version = cluster.kubernetes.minor, cluster.kubernetes.version
    end = KUBERNETES_END.get(minor)
    if end and end <= today:
        yield f"kubernetes.version {version}: {dotted(minor)} reached its end of life on {end}; no more fixes"
    elif end and (end - today).days <= SOON_DAYS:
        yield f"kubernetes.version {version}: {dotted(minor)} reaches its end of life on {end}"
    last = LAST_PATCH.get(minor)
    if last is not None and triple(version)[2] < last:
        yield f"kubernetes.version {version} is not the last patch of its minor, {dotted(minor)}.{last}"


def runtime(cluster: Cluster, today: date) -> Iterator[str]:
    """End of life, recommended patch for this Kubernetes, and 1.x on a Kubernetes that deprecates it."""
    version = cluster.runtime.version
    if version is None:
        yield "runtime.version is not pinned: the repository's newest containerd is installed, whatever it is that day"
        return
    minor, wanted = minor_of(version), cluster.kubernetes.minor
    end = CONTAINERD_END.get(minor)
    if end and end <= today:
        yield f"runtime.version {version}: containerd {dotted(minor)} reached its end of life on {end}"
    lowest = CONTAINERD_FOR.get(wanted, {}).get(minor)
    if lowest is not None and version.count(".") > 1 and triple(version)[2] < lowest:
        yield f"runtime.version {version}: Kubernetes {dotted(wanted)} wants {dotted(minor)}.{lowest} or later"
    if minor < (2, 0) and wanted >= CONTAINERD_1_DEPRECATED:
        yield f"runtime.version {version}: Kubernetes {dotted(wanted)} deprecates containerd 1.x; plan for 2.x"


def calico(cluster: Cluster, today: date) -> Iterator[str]:  # noqa: ARG001 - every warner is asked the same way
    """The lines that Calico's own project maintains, and the range of Kubernetes minors it tests a release on."""
    version = cluster.network.version
    if cluster.network.provider != "calico" or version is None:
        return
    if minor_of(version) < CALICO_OLDEST_MAINTAINED:
        line, oldest = dotted(minor_of(version)), dotted(CALICO_OLDEST_MAINTAINED)
        yield f"network.version {version}: Calico {line} is past its end; {oldest} and later are maintained"
    tested = CALICO_TESTED.get(minor_of(version))
    if tested is None:
        yield f"network.version {version}: it is not known here which Kubernetes this Calico is tested on"
    elif not tested[0] <= cluster.kubernetes.minor <= tested[1]:
        span = f"{dotted(tested[0])} to {dotted(tested[1])}"
        minor = dotted(cluster.kubernetes.minor)
        yield f"network.version {version}: this Calico is tested on Kubernetes {span}, not {minor}"


def gpu_parts(cluster: Cluster, today: date) -> Iterator[str]:  # noqa: ARG001
    """Toolkit and plugin older than the releases that repaired what is known to break."""
    toolkit, plugin = cluster.gpu.toolkit, cluster.device_plugin.version
    if toolkit is None:
        yield "gpu.toolkit is not pinned: the repository's newest is installed"
    elif triple(toolkit) < TOOLKIT_SOUND:
        yield f"gpu.toolkit {toolkit} is old; {dotted(TOOLKIT_SOUND)} and later are maintained"
    if triple(plugin) < PLUGIN_SOUND:
        yield f"device_plugin.version {plugin} is old; take {dotted(PLUGIN_SOUND)} or later"


def default_runtime(cluster: Cluster, today: date) -> Iterator[str]:  # noqa: ARG001
    """An image that asks for all devices gets them (device plugin README), unless the variable is ignored."""
    if cluster.gpu.isolation == "off" and any(host.gpus != 0 for host in cluster.hosts):
        yield "gpu.isolation off: a pod that asks for no GPU sees all of its host where its image says so"


def pod_addresses(cluster: Cluster, today: date) -> Iterator[str]:  # noqa: ARG001
    """A kubelet takes up to maxPods pods; Calico deals from the whole network, others from the node's part of it."""
    pods = cluster.kubernetes.kubelet.get("maxPods", MAX_PODS)
    if not isinstance(pods, int):
        return
    network, mask, count = cluster.kubernetes.pod_network, cluster.kubernetes.node_mask, len(cluster.hosts)
    usable = 2 ** (32 - mask) - 2
    if cluster.network.provider != "calico" and usable < pods:
        yield f"kubernetes.node_mask {mask} gives a node {usable} pod addresses, its kubelet takes up to {pods} pods"
    elif network.num_addresses < count * pods:
        size = network.num_addresses
        yield f"kubernetes.pod_network {network} has {size} addresses for {count} hosts of up to {pods} pods"


def cgroup(cluster: Cluster, today: date) -> Iterator[str]:  # noqa: ARG001
    """allow_cgroup_v1 is a way out for hosts that cannot be changed yet; before 1.35 it does nothing."""
    minor = cluster.kubernetes.minor
    if cluster.kubernetes.allow_cgroup_v1 and needs_cgroup_v2(minor):
        yield f"kubernetes.allow_cgroup_v1: Kubernetes {dotted(minor)} gave cgroup v1 up; move the hosts to v2"
    elif cluster.kubernetes.allow_cgroup_v1:
        yield f"kubernetes.allow_cgroup_v1 has no effect on Kubernetes {dotted(minor)}, which takes cgroup v1 as it is"


def dashboard(cluster: Cluster, today: date) -> Iterator[str]:
    """Archived upstream; with cluster-admin on a port of every node it is the cluster's front door."""
    if not cluster.dashboard.enabled:
        return
    if today >= DASHBOARD_ARCHIVED:
        yield f"dashboard: archived upstream on {DASHBOARD_ARCHIVED}, no more fixes; Headlamp is the advice"
    if cluster.dashboard.role == "cluster-admin":
        port = cluster.dashboard.node_port
        yield f"dashboard.role cluster-admin: who holds its token rules the cluster from port {port} of any node"


def gpus(cluster: Cluster, today: date) -> Iterator[str]:  # noqa: ARG001
    """The GPU proof asks for at least one GPU: a test of none would prove nothing."""
    if all(host.gpus == 0 for host in cluster.hosts):
        yield "hosts: every one is declared with gpus: 0, so no GPU can be proven"


def keys(cluster: Cluster, today: date) -> Iterator[str]:  # noqa: ARG001
    """A key without a fingerprint is trusted as it comes."""
    for title, repository in cluster.sources.apt.items():
        if repository.key.fingerprint is None:
            yield f"sources.apt.{title}.key has no fingerprint: whatever key is served will be trusted"
