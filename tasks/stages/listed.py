"""The one list of stages that a bootstrap runs and a drift pass looks at, in order; a new stage is named here.

A stage is a module with `steps(cluster, host, family)`, the family being that of the host's system, or, for what is
done on the cluster, `steps(cluster)`.
"""

from __future__ import annotations

from types import ModuleType

from shipway.cluster.model import Cluster
from shipway.stage import StageName
from tasks.stages import (
    addons,
    container_runtime,
    dashboard,
    device_plugin,
    gpu_driver,
    gpu_isolation,
    kubernetes_packages,
    nvidia_runtime,
    pod_network,
    prepare_system,
)

# Each builds on the one before.
PREPARATION: tuple[ModuleType, ...] = (
    *(prepare_system, gpu_driver, container_runtime),
    *(nvidia_runtime, kubernetes_packages),
)
# Whatever follows the pod network runs on it.
ADD_ONS: tuple[ModuleType, ...] = (pod_network, device_plugin, dashboard, addons)


# Of hosts without GPUs none of these is run, and nothing of them is looked at.
GPU_HOSTS: tuple[ModuleType, ...] = (gpu_driver, nvidia_runtime, gpu_isolation)


def name_of(stage: ModuleType) -> StageName:
    """Return the name of a stage, which is that of its module."""
    return StageName(stage.__name__.rpartition(".")[2])


def preparation_of(cluster: Cluster, gpus: int) -> list[StageName]:
    """Return the stages that prepare a host with so many GPUs, in order; a driver's only where one is declared."""
    asked = {gpu_driver: cluster.gpu.driver.source != "none"}
    return [name_of(stage) for stage in PREPARATION if (gpus or stage not in GPU_HOSTS) and asked.get(stage, True)]


def add_ons_of(cluster: Cluster) -> list[StageName]:
    """Return the stages that run on the pod network of a cluster; some only where they are asked for."""
    asked = {dashboard: cluster.dashboard.enabled, addons: bool(cluster.addons)}
    return [name_of(stage) for stage in ADD_ONS[1:] if asked.get(stage, True)]
