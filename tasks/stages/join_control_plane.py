"""Stage 5 on every further control plane: it joins, and then is as the first one is."""

from __future__ import annotations

from shipway.cluster.model import Cluster
from shipway.cluster.parts import HostSpec
from shipway.host.session import Host
from shipway.os.family import Family
from shipway.step import Check
from shipway.steps.backup.on_host import schedule
from shipway.steps.endpoint.certificate import certified
from shipway.steps.hardening.listed import files_of
from shipway.steps.kubernetes.join.control_plane import ControlPlaneJoined
from shipway.steps.kubernetes.join.worker import NoBootstrapCredentials
from shipway.steps.kubernetes.kube_proxy_hosts import KubeProxyKnowsApi
from shipway.steps.kubernetes.resolver import ResolverReal
from shipway.steps.kubernetes.static_pods import ManifestsBack
from shipway.steps.kubernetes.user_kubeconfig import UserHasKubeconfig
from shipway.steps.system.services import ServiceRuns
from shipway.steps.vip import listed as vip
from tasks.workloads import OWN_NAMESPACES


def steps(
    cluster: Cluster, host: HostSpec, family: Family, lead: Host, peers: tuple[Host, ...] = ()
) -> list[Check[Host]]:
    """Return the steps of a further control plane, in order; `lead` is the session of one that serves already.

    `peers` are the other control planes: a key of encryption at rest is theirs as well, and a member of etcd that one
    of them had goes where its host is bare.
    """
    return [
        *vip.may_hold(cluster, host, peers),
        ManifestsBack(),
        *files_of(cluster, peers),  # what its API server reads when it is started for the first time
        ControlPlaneJoined(cluster, host, family, lead, tuple(sorted({*OWN_NAMESPACES, "kube-system"})), peers),
        ServiceRuns("kubelet"),
        NoBootstrapCredentials(),
        *([KubeProxyKnowsApi(cluster.api_name)] if cluster.api_name else []),
        ResolverReal(),
        UserHasKubeconfig(cluster.target(host).user),
        *certified(cluster),
        *vip.steps(cluster, host, family, peers),
        *schedule(cluster),
    ]
