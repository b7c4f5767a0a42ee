"""Stage 5, the control plane's host (S6): initialised once, and its user has the kubeconfig."""

from __future__ import annotations

from shipway.cluster.model import Cluster
from shipway.cluster.parts import HostSpec
from shipway.host.session import Host
from shipway.os.family import Family
from shipway.step import Check
from shipway.steps.backup.on_host import schedule
from shipway.steps.endpoint.certificate import certified
from shipway.steps.hardening.listed import files_of
from shipway.steps.kubernetes.init import ControlPlaneInitialised
from shipway.steps.kubernetes.resolver import ResolverReal
from shipway.steps.kubernetes.static_pods import ManifestsBack
from shipway.steps.kubernetes.user_kubeconfig import UserHasKubeconfig
from shipway.steps.system.services import ServiceRuns
from shipway.steps.vip import listed as vip


def steps(
    cluster: Cluster, host: HostSpec, family: Family, *, reset: bool = False, peers: tuple[Host, ...] = ()
) -> list[Check[Host]]:
    """Return the steps of the host, in order; `reset` is the typed consent to lose etcd data of something unknown.

    `peers` are the other control planes: a key of encryption at rest is theirs as well.
    """
    return [
        *vip.may_hold(cluster, host, peers),  # what cannot be is told before there is a cluster
        ManifestsBack(),  # first of all: without one of them the control plane does not run
        *files_of(cluster, peers),  # what the API server reads when it is started for the first time
        ControlPlaneInitialised(cluster, host, family, reset),
        ServiceRuns("kubelet"),
        ResolverReal(),
        UserHasKubeconfig(cluster.target(host).user),
        *certified(cluster),
        *vip.steps(cluster, host, family, peers),
        *schedule(cluster),
    ]
