"""Stage 0, every host at once: look before anything is changed, and report faults as "message -> [hosts]"."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from statistics import median

from shipway.cluster import Cluster, node_ip
from shipway.cluster_parts import HostSpec
from shipway.errors import ErrorReport, ShipwayError
from shipway.host import Host
from shipway.step import Check
from shipway.steps.preflight import (
    AddressOnHost,
    CardsHealthy,
    CgroupFits,
    PortsFree,
    SizeEnough,
    SourcesReachable,
    SystemSupported,
)
from shipway.survey import Survey, survey

SKEW_SECONDS = 5.0  # more breaks certificates ("not yet valid") and tokens (kubeadm#1988)
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
    ]


async def across(cluster: Cluster, sessions: Mapping[str, Host]) -> tuple[dict[str, Survey], list[ErrorReport]]:
    """Give what each host showed, and the faults that only show when hosts are compared.

    Hosts that cannot be reached are left out: their own preflight says so.
    """
    names = [host.name for host in cluster.hosts if host.name in sessions]
    seen = await asyncio.gather(*(survey(sessions[name]) for name in names), return_exceptions=True)
    surveys: dict[str, Survey] = {}
    for name, result in zip(names, seen, strict=True):
        if isinstance(result, Survey):
            surveys[name] = result
        elif not isinstance(result, ShipwayError):
            raise result
    return surveys, compared(list(surveys.values()))


def compared(surveys: list[Survey]) -> list[ErrorReport]:
    """Give faults between hosts: clones (same machine-id, kubeadm#31) and clocks apart."""
    faults: list[ErrorReport] = []
    by_id: dict[str, list[str]] = defaultdict(list)
    for one in surveys:
        if one.machine_id:
            by_id[one.machine_id].append(one.host)
    fix = "Give each clone its own: `rm /etc/machine-id && systemd-machine-id-setup`, then reboot it."
    for hosts in by_id.values():
        if len(hosts) > 1:
            cause = f"the same machine-id on {', '.join(hosts)}: clones replace each other as nodes"
            faults += [
                ErrorReport(host, "machine-id is unique", "SHW-311", cause, fix, retryable=False) for host in hosts
            ]
    middle = median(one.skew for one in surveys) if surveys else 0.0
    for one in surveys:
        apart = one.skew - middle
        if abs(apart) > SKEW_SECONDS:
            cause = f"its clock is {apart:+.0f} s off the other hosts'"
            step = "the clocks agree"
            repair = f"Let {one.host} take its time from a server (chrony or systemd-timesyncd), then run again."
            faults.append(ErrorReport(one.host, step, "SHW-312", cause, repair, retryable=False))
    return faults
