"""What is asked of a control plane, and done there, where clients outside have an address."""

from __future__ import annotations

from shipway.cluster.hosts import HostSpec
from shipway.cluster.model import Cluster
from shipway.host.session import Host
from shipway.os.family import Family
from shipway.step import Check
from shipway.steps.system.own_service import OwnGone
from shipway.steps.vip import keepalived
from shipway.steps.vip.held import VipFree
from shipway.steps.vip.network import VipInNetwork


def may_hold(cluster: Cluster, host: HostSpec, peers: tuple[Host, ...]) -> list[Check[Host]]:
    """Return what is asked of a control plane before anything is done there; nothing where there is no such address."""
    return [VipFree(cluster, peers), VipInNetwork(cluster, host)] if cluster.api_vip else []


def steps(cluster: Cluster, host: HostSpec, family: Family, peers: tuple[Host, ...]) -> list[Check[Host]]:
    """Return the steps of a control plane; where there is no such address nothing of it is left.

    `peers` are the sessions of the others.
    """
    return keepalived.steps(cluster, host, family, peers) if cluster.api_vip else [OwnGone(keepalived.OWN)]
