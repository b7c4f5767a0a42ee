"""Stage 0, every host at once: look before anything is changed, and report faults as "message -> [hosts]"."""

from __future__ import annotations

from shipway.cluster.model import Cluster, node_ip
from shipway.cluster.parts import HostSpec
from shipway.host.session import Host
from shipway.kube.manifests import ForeignManifest, foreign
from shipway.os.family import Family
from shipway.rules.compatibility import calico_manifests
from shipway.step import Check
from shipway.steps.gpu.cdi import CdiPossible
from shipway.steps.gpu.driver.refusals import OnlyWhere
from shipway.steps.gpu.healthy import FabricReady, GpusHealthy
from shipway.steps.gpu.mig import MigPossible
from shipway.steps.kubernetes.skew import VersionKept
from shipway.steps.system.api_proxy import ProxyPortFree
from shipway.steps.system.origins import origins
from shipway.steps.system.preflight import (
    AddressOnHost,
    CgroupFits,
    PortsFree,
    SizeEnough,
    SystemSupported,
)
from shipway.steps.system.sources import ManifestsFetched, SourcesReachable
from shipway.survey.machines import compare
from tasks.stages import gpu_driver

__all__ = ["checks", "compare", "manifests"]

WORKER_PORTS = (10250,)


def manifests(cluster: Cluster) -> list[ForeignManifest]:
    """Return the manifests that a cluster is built from, and that others wrote."""
    network, dashboard = cluster.network, cluster.dashboard
    names = list(calico_manifests(network.version)) if network.provider == "calico" and network.version else []
    return [foreign(cluster, name) for name in (*names, *(["dashboard"] if dashboard.enabled else []))]


def _of_gpus(cluster: Cluster, host: HostSpec, family: Family) -> list[Check[Host]]:
    """Return what is asked of GPUs: that they answer, or, where their driver is to come, what would forbid that."""
    declared = None if host.gpus == "auto" else host.gpus
    shared = cluster.gpu_sharing_of(host)
    mig: list[Check[Host]] = [MigPossible()] if shared and shared.sharing.startswith("mig-") and host.gpus != 0 else []
    by_cdi = cluster.gpu.mode in ("cdi", "dra") and host.gpus != 0
    cdi: list[Check[Host]] = [CdiPossible(mode=cluster.gpu.mode)] if by_cdi else []
    if not gpu_driver.is_declared(cluster, host):
        return [GpusHealthy(declared), FabricReady(), *mig, *cdi]
    asked = [OnlyWhere(joined=False, of=one) for one in gpu_driver.checks(cluster, host, family)]
    there: list[Check[Host]] = [FabricReady(), *mig]
    later = [OnlyWhere(joined=True, of=one) for one in there]
    return [GpusHealthy(declared, comes=True), *later, *asked, *cdi]


def checks(cluster: Cluster, host: HostSpec, family: Family) -> list[Check[Host]]:
    """Return the checks of a host; together they cost one round trip."""
    control = "control_plane" in host.roles
    kubernetes = cluster.kubernetes
    ports = (*cluster.system.ports, kubernetes.api_port) if control else WORKER_PORTS
    return [
        SystemSupported(),
        SizeEnough(control),
        CgroupFits(kubernetes.minor, kubernetes.allow_cgroup_v1),
        PortsFree(ports),
        *([ProxyPortFree(kubernetes.api_port)] if cluster.proxies_api and not control else []),
        *([VersionKept(kubernetes.version, kubernetes.api_port)] if control else []),
        AddressOnHost(node_ip(host)),
        SourcesReachable(origins(cluster, host, family), family, password=bool(cluster.proxy.credentials)),
        *_of_gpus(cluster, host, family),
        *([ManifestsFetched(manifests(cluster))] if control else []),
    ]
