"""Stage 6, workers (S9): the host joins the cluster and its kubelet runs."""

from __future__ import annotations

from shipway.cluster import Cluster
from shipway.cluster_parts import HostSpec
from shipway.host import Host
from shipway.step import Check
from shipway.steps.join import NoBootstrapCredentials, NodeJoined
from shipway.steps.resolver import ResolverReal
from shipway.steps.services import ServiceRuns


def steps(cluster: Cluster, host: HostSpec, control: Host) -> list[Check[Host]]:
    """Give the steps of a worker, in order; `control` is the session of the control plane's host."""
    return [
        NodeJoined(cluster, host, control),
        ServiceRuns("kubelet"),
        NoBootstrapCredentials(),
        ResolverReal(),
    ]
