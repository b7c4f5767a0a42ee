"""Stage 0, every host at once: look before anything is changed, and report faults as "message -> [hosts]"."""

from __future__ import annotations

from shipway.cluster import Cluster, node_ip
from shipway.cluster_parts import HostSpec
from shipway.host import Host
from shipway.machines import compared
from shipway.step import Check
from shipway.steps.cards import CardsHealthy, FabricReady
from shipway.steps.preflight import (
    AddressOnHost,
    CgroupFits,
    PortsFree,
    SizeEnough,
    SourcesReachable,
    SystemSupported,
)

__all__ = ["checks", "compared", "source_urls"]

WORKER_PORTS = (10250,)


def source_urls(cluster: Cluster) -> tuple[str, ...]:
    """Give what hosts fetch from: apt repositories, keys by URL, registry mirrors."""
    repositories = [*cluster.sources.apt.values(), *([cluster.sources.base_apt] if cluster.sources.base_apt else [])]
    keys = [repository.key.url for repository in repositories if repository.key.url]
    mirrors = [str(url) for url in cluster.sources.registry_mirrors.values()]
    return (*(str(repository.uri) for repository in repositories), *keys, *mirrors)


def checks(cluster: Cluster, host: HostSpec) -> list[Check[Host]]:
    """Give the checks of a host; together they cost one round trip."""
    control = "control_plane" in host.roles
    kubernetes = cluster.kubernetes
    ports = (*cluster.system.ports, kubernetes.api_port) if control else WORKER_PORTS
    return [
        SystemSupported(),
        SizeEnough(control),
        CgroupFits(kubernetes.minor, kubernetes.allow_cgroup_v1),
        PortsFree(ports),
        AddressOnHost(node_ip(host)),
        SourcesReachable(source_urls(cluster)),
        CardsHealthy(None if host.gpus == "auto" else host.gpus),
        FabricReady(),
    ]
