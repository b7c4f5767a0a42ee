"""Stage 3, GPU hosts (S4): NVIDIA's container toolkit, and its runtime in containerd."""

from __future__ import annotations

from shipway.cluster.model import Cluster
from shipway.cluster.parts import GpuClass, HostSpec
from shipway.edits.files import FileIs
from shipway.gpu.chosen import VENDOR
from shipway.gpu.nvidia.answers import MOUNTS, NVIDIA
from shipway.host.session import Host
from shipway.os.family import Family
from shipway.step import Check, Step
from shipway.steps.gpu.cdi import CdiServed
from shipway.steps.gpu.mig import GpusDivided, GpusWhole
from shipway.steps.gpu.toolkit import ToolkitAccepts
from shipway.steps.runtime.containerd import ContainerdConfigured, CriAnswers
from shipway.steps.runtime.memlock import DROP_IN, TEXT, MemoryLockUnlimited
from shipway.steps.runtime.toolkit_owner import OneToolkit, UnlessOperators
from tasks.context import Run
from tasks.stages.container_runtime import images, load_step, wanted_config

DIVIDES = ("GpusDivided", "GpusWhole")  # the steps that change how GPUs are divided
TAKES_MOUNTS = "NVIDIA's toolkit accepts the device list as mounts"


def steps(cluster: Cluster, host: HostSpec, family: Family) -> list[Check[Host]]:
    """Return the steps of a GPU host, in order; none where Shipway builds for another vendor's GPUs."""
    if VENDOR is not NVIDIA:
        return []
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
        *divided_as(cluster.gpu_sharing_of(host)),
    ]


def divided_as(shared: GpuClass | None) -> list[GpusDivided]:
    """Return the step about GPUs that MIG divides; none of a class that takes them as somebody has divided them."""
    if shared and shared.mig:
        return [GpusDivided(shared.mig)]
    return [] if shared and shared.sharing.startswith("mig-") else [GpusWhole()]


def undivided(run: Run, host: HostSpec) -> str:
    """Return why a host's GPUs are not divided as its class has it, by what this run has seen there; "" where they are.

    Until they are its node keeps its class: a plugin of the new one would offer them as they are not to be.
    """
    steps = {step.id: step.name for step in divided_as(run.cluster.gpu_sharing_of(host))}
    if run.mode == "drift":
        left = [one.id for one in run.drift.findings.get(host.name, ()) if one.action != "repaired"]
    else:
        rows = [row for result in run.results if result.host == host.name for row in result.rows]
        left = [row.id for row in rows if row.outcome not in ("ok", "changed")]
    named = [name for id_, name in steps.items() if id_ in left]
    return f"it is not so yet that {named[0]}" if named else ""
