"""Stage 3, GPU hosts (S4): NVIDIA's container toolkit, and its runtime in containerd."""

from __future__ import annotations

from shipway.cluster.model import Cluster
from shipway.cluster.parts import HostSpec
from shipway.host.session import Host
from shipway.os.family import Family
from shipway.step import Check
from shipway.steps.gpu.toolkit import MOUNTS, ToolkitAccepts
from shipway.steps.runtime.containerd import ContainerdConfigured, CriAnswers
from tasks.stages.container_runtime import images, loaded, wanted

TAKES_MOUNTS = "NVIDIA's toolkit accepts the device list as mounts"
# One release, four packages: NVIDIA's installation guide pins all of them to the same version.
TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)


def steps(cluster: Cluster, host: HostSpec, family: Family) -> list[Check[Host]]:  # noqa: ARG001 - the same for every GPU host
    """Return the steps of a GPU host, in order."""
    packages = dict.fromkeys(TOOLKIT, cluster.gpu.toolkit)
    may_remove = cluster.system.may_remove
    default = cluster.gpu.mode == "default_runtime"
    fact = "nvidia is containerd's default runtime" if default else "containerd has the nvidia runtime"
    return [
        family.repository("nvidia", cluster),
        family.installed("NVIDIA's container toolkit is installed", packages, may_remove),
        family.in_version(
            f"NVIDIA's container toolkit is {cluster.gpu.toolkit or 'of any version'}", packages, may_remove
        ),
        family.held(TOOLKIT),
        ToolkitAccepts(MOUNTS, accepts=True, name=TAKES_MOUNTS),
        ContainerdConfigured(wanted(cluster, nvidia=True), images(cluster), name=fact),
        loaded(cluster),
        CriAnswers(),
    ]
