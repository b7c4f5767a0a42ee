"""Stage 6, workers (S9): the host joins the cluster and its kubelet runs."""

from __future__ import annotations

from shipway.cluster.model import Cluster
from shipway.cluster.parts import HostSpec
from shipway.host.session import Host
from shipway.os.family import Family
from shipway.step import Check
from shipway.steps.endpoint.old_way import ProxyGone
from shipway.steps.kubernetes.join.worker import NoBootstrapCredentials, NodeJoined
from shipway.steps.kubernetes.kube_proxy_hosts import KubeProxyKnowsApi
from shipway.steps.kubernetes.resolver import ResolverReal
from shipway.steps.system.api_proxy import OWN
from shipway.steps.system.own_service import OwnGone
from shipway.steps.system.services import ServiceRuns


def steps(cluster: Cluster, host: HostSpec, family: Family, control: Host) -> list[Check[Host]]:
    """Return the steps of a worker, in order; `control` is the session of the control plane's host."""
    return [
        NodeJoined(cluster, host, family, control),
        ServiceRuns("kubelet"),
        *([KubeProxyKnowsApi(cluster.api_name)] if cluster.api_name else []),
        *([OwnGone(OWN)] if cluster.api_name and not cluster.proxies_api else []),
        *([ProxyGone(port=cluster.kubernetes.api_port)] if cluster.balancer else []),
        NoBootstrapCredentials(),
        ResolverReal(),
    ]
