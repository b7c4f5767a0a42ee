"""Stage 3, GPU hosts (S4): NVIDIA's container toolkit, and its runtime in containerd."""

from __future__ import annotations

from shipway.cluster.model import Cluster
from shipway.cluster.parts import HostSpec
from shipway.edits.files import FileIs
from shipway.gpu.chosen import VENDOR
from shipway.gpu.nvidia import MOUNTS, NVIDIA
from shipway.host.session import Host
from shipway.os.family import Family
from shipway.step import Check, Step
from shipway.steps.gpu.cdi import CdiServed
from shipway.steps.gpu.mig import GpusDivided
from shipway.steps.gpu.toolkit import ToolkitAccepts
from shipway.steps.runtime.containerd import ContainerdConfigured, CriAnswers
from shipway.steps.runtime.memlock import DROP_IN, TEXT, MemoryLockUnlimited
from shipway.steps.runtime.toolkit_owner import OneToolkit, UnlessOperators
from tasks.stages.container_runtime import images, load_step, wanted_config

TAKES_MOUNTS = "NVIDIA's toolkit accepts the device list as mounts"


def steps(cluster: Cluster, host: HostSpec, family: Family) -> list[Check[Host]]:
    """Return the steps of a GPU host, in order; none where Shipway builds for another vendor's GPUs."""
    if VENDOR is not NVIDIA:
        return []
    divided = cluster.gpu.classes.get(cluster.gpu_class_of(host))
    packages = dict.fromkeys(NVIDIA.toolkit_packages, cluster.gpu.toolkit)
    may_remove = cluster.system.may_remove
    default = cluster.gpu.mode == "default_runtime"
    fact = "nvidia is containerd's default runtime" if default else "containerd has the nvidia runtime"
    toolkit: list[Step[Host]] = [
        family.repository("nvidia", cluster),
        family.installed("NVIDIA's container toolkit is installed", packages, may_remove),
        family.in_version(
            f"NVIDIA's container toolkit is {cluster.gpu.toolkit or 'of any version'}", packages, may_remove
        ),
        family.held(NVIDIA.toolkit_packages),
        ToolkitAccepts(MOUNTS, accepts=True, name=TAKES_MOUNTS),
    ]
    return [
        OneToolkit(),
        *map(UnlessOperators, toolkit),
        ContainerdConfigured(wanted_config(cluster, NVIDIA.runtime), images(cluster), name=fact),
        FileIs("containerd's unit sets no limit to locked memory", DROP_IN, TEXT),
        load_step(cluster),
        MemoryLockUnlimited(),
        CriAnswers(),
        *([CdiServed(mode=cluster.gpu.mode)] if cluster.gpu.mode in ("cdi", "dra") else []),
        *([GpusDivided(divided.mig)] if divided and divided.mig else []),
    ]
