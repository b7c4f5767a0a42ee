"""Solver rules about how GPUs are shared: what no device plugin does, and what would give somebody a share unasked."""

from __future__ import annotations

from collections.abc import Iterator

from shipway.cluster.faults import Fault
from shipway.cluster.model import Cluster
from shipway.cluster.parts import CLAIMED, EXCLUSIVE, GpuClass
from shipway.rules.compatibility import triple

FEWEST = 2  # the plugin takes no less (k8s-device-plugin, api/config/v1/replicas.go)
MOST_BY_MPS = 48  # clients of one GPU (cmd/mps-control-daemon/mps/device.go)
MPS_PLUGIN = (0, 15)  # its first with MPS (CHANGELOG)
SHARED = ("time-slicing", "mps")
MODE = ("gpu", "mode")
CHANGING = "changing"  # what a node's label says while its class is changed
RESERVED = (EXCLUSIVE, CHANGING, CLAIMED)


def classes(cluster: Cluster) -> Iterator[Fault]:
    """Replicas are of what is shared, MIG is not shared again, and a class has a name that is not taken."""
    for name, one in cluster.gpu.classes.items():
        at = ("gpu", "classes", name)
        if name in RESERVED:
            yield Fault(at, f"the name {name} is taken: give the class another")
        yield from (Fault((*at, *place), text) for place, text in _of_class(cluster, one))


def claimed(cluster: Cluster) -> Iterator[Fault]:
    """GPUs that pods claim are whole ones: how they are shared is a matter of the device plugin, which is not there."""
    if cluster.gpu.mode != "dra":
        return
    why = "gpu.mode dra gives whole GPUs: leave it out, or take gpu.mode: cdi"
    if cluster.gpu.classes:
        yield Fault(("gpu", "classes"), f"is for the device plugin; {why}", (MODE,))
    if cluster.gpu.sharing != EXCLUSIVE:
        yield Fault(("gpu", "sharing"), f"is for the device plugin; {why}", (MODE,))
    for index, host in enumerate(cluster.hosts):
        if host.gpu_class not in (None, EXCLUSIVE):
            yield Fault(("hosts", index, "gpu_class"), f"is for the device plugin; {why}", (MODE,))


def _of_class(cluster: Cluster, one: GpuClass) -> Iterator[tuple[tuple[str, ...], str]]:
    replicas = ("replicas",)
    if one.sharing in SHARED and one.replicas is None:
        yield replicas, f"is missing: {one.sharing} needs how many pods share a GPU, {FEWEST} or more"
    elif one.sharing in SHARED and (one.replicas or 0) < FEWEST:
        yield replicas, f"{one.replicas} shares nothing: take {FEWEST} or more, or sharing: exclusive"
    elif one.sharing == "mps" and (one.replicas or 0) > MOST_BY_MPS:
        yield replicas, f"{one.replicas} is more than the {MOST_BY_MPS} pods that MPS lets onto a GPU"
    elif one.sharing not in SHARED and one.replicas is not None:
        yield replicas, f"belongs to time-slicing and mps; a class that is {one.sharing} has none"
    if one.mig is not None and not one.sharing.startswith("mig-"):
        why = "MPS does not run on a divided GPU" if one.sharing == "mps" else f"{one.sharing} divides no GPU"
        yield ("mig",), f"goes with mig-single and mig-mixed alone: {why}"
    if one.sharing.startswith("mig-") and cluster.gpu.mode != "cdi":
        text = "needs gpu.mode: cdi, for the plugin reaches the parts of a GPU only where it is privileged"
        yield ("sharing",), f"{one.sharing} {text} (toolkit#1740)"
    if one.sharing == "mps" and triple(cluster.device_plugin.version)[:2] < MPS_PLUGIN:
        yield ("sharing",), f"mps is in the device plugin from 0.15 on, not in {cluster.device_plugin.version}"


def hosts(cluster: Cluster) -> Iterator[Fault]:
    """A class is one that there is, on a host that has GPUs, and no share is offered by the name of a whole GPU."""
    known = {EXCLUSIVE, *cluster.gpu.classes}
    listed = ", ".join(sorted(known))
    if cluster.gpu.sharing not in known:
        yield Fault(("gpu", "sharing"), f"{cluster.gpu.sharing} is no class of gpu.classes ({listed})")
    for index, host in enumerate(cluster.hosts):
        if host.gpu_class is None:
            continue
        if host.gpu_class not in known:
            yield Fault(("hosts", index, "gpu_class"), f"{host.gpu_class} is no class of gpu.classes ({listed})")
        elif host.gpus == 0:
            yield Fault(("hosts", index, "gpu_class"), f"{host.name} declares gpus: 0, so nothing of it is shared")
    whole = [host.name for host in cluster.hosts if host.gpus != 0 and _is_whole(cluster, cluster.gpu_class_of(host))]
    for name, one in cluster.gpu_classes.items():
        if one.sharing in SHARED and not one.rename and whole:
            text = (
                f"offers shares by the name of whole GPUs, which {whole[0]} has: a pod gets the one or the other. Leave"
            )
            yield Fault(("gpu", "classes", name, "rename"), f"{text} it out, or share every host's GPUs")


def _is_whole(cluster: Cluster, name: str) -> bool:
    """Say whether a class offers whole GPUs by their own name."""
    one = cluster.gpu.classes.get(name)
    return name == EXCLUSIVE or (one is not None and one.sharing == "exclusive")
