"""Stage 2, every host (S3): containerd from its repository, configured, running what its configuration says."""

from __future__ import annotations

from shipway.cluster.model import Cluster
from shipway.cluster.parts import HostSpec
from shipway.edits.containerd import CONFIG, Wanted
from shipway.edits.files import FileAbsent, FileIs
from shipway.facts.commands import Says
from shipway.gpu.vendor import GpuRuntime
from shipway.host.session import Host
from shipway.kubeadm.config import image_repository, sandbox_image
from shipway.os.family import Family
from shipway.site.proxies import DROP_IN, DROP_IN_TEXT, ENVIRONMENT, environment, lasting
from shipway.site.registries import registry_files
from shipway.step import Check
from shipway.steps.runtime.containerd import ContainerdConfigured, ContainerdLoaded, CriAnswers, OneContainerd
from shipway.steps.runtime.pause_image import wanted_images
from shipway.steps.runtime.registry_files import RegistryHosts
from shipway.steps.system.proxies import ContainerdEnvironment
from shipway.steps.system.services import CONTAINERD, ServiceEnabled, ServiceRuns


def registries(cluster: Cluster) -> list[Check[Host]]:
    """Return a step per file about a registry; containerd reads these anew at every pull, so no restart follows."""
    return [
        (RegistryHosts if file.path.endswith("/hosts.toml") else FileIs)(file.fact, file.path, file.text, file.mode)
        for file in registry_files(cluster)
    ]


def proxy(cluster: Cluster) -> list[Check[Host]]:
    """Return the steps that give containerd the declared proxy, or take one away that was declared once.

    systemd tells by NeedDaemonReload that a drop-in came or went, which the next step about the service asks.
    """
    if not cluster.proxy.declared:
        return [
            FileAbsent("containerd has no proxy that was declared once", DROP_IN),
            FileAbsent("no environment with a proxy is left", ENVIRONMENT),
        ]
    return [
        ContainerdEnvironment(environment(cluster), lasting(cluster)),
        FileIs("containerd reads its environment", DROP_IN, DROP_IN_TEXT),
    ]


def load_step(cluster: Cluster) -> ContainerdLoaded:
    """Return the step that restarts containerd after what it reads only when it starts has changed."""
    return ContainerdLoaded(CONTAINERD, (CONFIG, *((DROP_IN, ENVIRONMENT) if cluster.proxy.declared else ())))


def wanted_config(cluster: Cluster, runtime: GpuRuntime | None = None) -> Wanted:
    """Return what containerd's configuration must bring about on a host, with or without the runtime of its GPUs."""
    default = runtime is not None and cluster.gpu.mode == "default_runtime"
    return Wanted(sandbox_image(cluster), runtime, default, cluster.runtime.restrict_oom_score_adj)


def images(cluster: Cluster) -> Says:
    """Return the fact of which images kubeadm on a host needs for this cluster."""
    return wanted_images(cluster.kubernetes.version, image_repository(cluster))


def steps(cluster: Cluster, host: HostSpec, family: Family) -> list[Check[Host]]:  # noqa: ARG001 - the same for every host
    """Return the steps of a host, in order."""
    runtime = cluster.runtime
    packages = {runtime.package: runtime.version, **dict.fromkeys(runtime.extra_packages)}
    may_remove = cluster.system.may_remove
    return [
        family.repository("docker", cluster),
        *proxy(cluster),
        family.installed("containerd is installed", packages, may_remove, restarts=CONTAINERD),
        family.in_version(f"containerd is {runtime.version or 'of any version'}", packages, may_remove),
        family.held((runtime.package,)),
        *registries(cluster),
        OneContainerd(),
        ContainerdConfigured(wanted_config(cluster), images(cluster)),
        ServiceEnabled(CONTAINERD),
        ServiceRuns(CONTAINERD),
        load_step(cluster),
        CriAnswers(),
    ]
