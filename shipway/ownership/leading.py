"""Which control plane leads a run, and the endpoint that a running cluster has: read from the hosts, not from the file.

No control plane is special: the first of the file initialises a cluster that there is not yet, and that is all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from shipway.cluster.hosts import HostSpec, node_ip
from shipway.cluster.model import Cluster
from shipway.ownership.evidence import Evidence, address_of


def choose_lead(cluster: Cluster, seen: Mapping[str, Evidence], ready: Collection[str] = ()) -> HostSpec:
    """Return the control plane that a run asks: a whole one, best of those whose API is ready, in the file's order.

    Where none is whole it is one on which an init of ours broke off, then one that shows a control plane at all; of
    hosts that show none it is the first of the file. `ready` are the names of those whose API server says so.
    """
    planes = cluster.control_planes
    known = {host.name: seen[host.name] for host in planes if host.name in seen}
    whole = [host for host in planes if host.name in known and known[host.name].whole]
    choices = (
        [host for host in whole if host.name in ready],
        whole,
        [host for host in planes if host.name in known and known[host.name].unfinished],
        [host for host in planes if host.name in known and _runs(known[host.name])],
        planes,
    )
    return next(some[0] for some in choices if some)


def _runs(one: Evidence) -> bool:
    return one.standing == "control plane" and not one.joining


def as_running(cluster: Cluster, server: str) -> Cluster:
    """Return the cluster with the endpoint of its running self, where the file leaves that open and it is an address.

    So it is with a cluster that was made with the address of its control plane: that stands in every certificate and
    kubeconfig, and is never renamed unasked. `server` is the URL in a control plane's admin.conf.
    """
    running = address_of(server)
    if running not in _addresses(cluster) or cluster.names_endpoint:
        return cluster
    return cluster.model_copy(update={"kubernetes": cluster.kubernetes.model_copy(update={"api_endpoint": running})})


def endpoints_of(cluster: Cluster) -> frozenset[str]:
    """Return what kubeconfigs of this cluster's hosts may name: the endpoint, or a control plane's own address.

    A kubelet of a control plane asks its own API server from Kubernetes 1.33 on (ControlPlaneKubeletLocalMode).
    """
    return frozenset({cluster.endpoint.lower(), *(_addresses(cluster) if cluster.api_name else ())})


def _addresses(cluster: Cluster) -> list[str]:
    return [f"{node_ip(host)}:{cluster.kubernetes.api_port}" for host in cluster.control_planes]
