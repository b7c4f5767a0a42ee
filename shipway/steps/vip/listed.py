"""What is asked of a control plane, and done there, where clients outside have an address."""

from __future__ import annotations

from shipway.cluster.hosts import HostSpec
from shipway.cluster.model import Cluster
from shipway.host.session import Host
from shipway.os.family import Family
from shipway.step import Check
from shipway.steps.system.own_service import OwnGone
from shipway.steps.vip import keepalived, kube_vip
from shipway.steps.vip.held import VipFree, VipOneWay
from shipway.steps.vip.network import VipInNetwork


def may_hold(cluster: Cluster, host: HostSpec, peers: tuple[Host, ...]) -> list[Check[Host]]:
    """Return what is asked of a control plane before anything is done there; nothing where there is no such address."""
    return [VipOneWay(cluster, peers), VipInNetwork(cluster, host), VipFree(cluster, peers)] if cluster.api_vip else []


def steps(cluster: Cluster, host: HostSpec, family: Family, peers: tuple[Host, ...]) -> list[Check[Host]]:
    """Return the steps of a control plane; where there is no such address nothing of it is left.

    `peers` are the sessions of the others.
    """
    if not cluster.api_vip:
        return [OwnGone(keepalived.OWN), kube_vip.KubeVipGone()]
    if cluster.kube_vip_image:
        return kube_vip.steps(cluster, host)
    return keepalived.steps(cluster, host, family, peers)
