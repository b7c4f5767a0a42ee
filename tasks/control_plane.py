"""Stage 5, the control plane's host (S6): initialised once, and its user has the kubeconfig."""

from __future__ import annotations

from shipway.cluster import Cluster
from shipway.cluster_parts import HostSpec
from shipway.host import Host
from shipway.step import Check
from shipway.steps.init import ControlPlaneInitialised
from shipway.steps.resolver import ResolverReal
from shipway.steps.services import ServiceRuns
from shipway.steps.user_kubeconfig import UserHasKubeconfig


def steps(cluster: Cluster, host: HostSpec, *, reset: bool = False) -> list[Check[Host]]:
    """Give the steps of the host, in order; `reset` is the typed consent to lose etcd data of something unknown."""
    return [
        ControlPlaneInitialised(cluster, host, reset),
        ServiceRuns("kubelet"),
        ResolverReal(),
        UserHasKubeconfig(cluster.target(host).user),
    ]
