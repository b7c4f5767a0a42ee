"""The device plugin (S8): the RuntimeClass its pods need, and the vendor's plugin on every node with GPUs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import ClassVar

from shipway.cluster.model import Cluster
from shipway.cluster.parts import CLAIMED, HostSpec
from shipway.errors import ShipwayError
from shipway.gpu.chosen import VENDOR
from shipway.gpu.classes import claim_objects, class_objects, label_of, off_classes
from shipway.gpu.vendor import Vendor
from shipway.host.session import Host
from shipway.kube.client import Kube, Object
from shipway.kube.manifests import render
from shipway.kube.nodes import nodes_by_name
from shipway.os.family import Family
from shipway.stage import StageName
from shipway.step import Check, Impact
from shipway.steps.gpu.cdi import CdiServed
from shipway.steps.gpu.claims import ClaimsPresent, PluginLeaves, PluginRetired
from shipway.steps.gpu.class_plugin import ClassPresent
from shipway.steps.gpu.classes import ClassesGone, NodeClass, class_of
from shipway.steps.gpu.device_list import PluginPresent, Unready
from shipway.steps.gpu.toolkit import ToolkitAccepts
from shipway.steps.kubernetes.objects import ObjectsPresent
from shipway.steps.runtime.containerd import ContainerdConfigured, ContainerdLoaded
from shipway.steps.runtime.toolkit_owner import UnlessOperators
from tasks.context import Run
from tasks.stages import nvidia_runtime

HOSTS_SECONDS = 600.0  # that hosts which have joined are given for their own stage, before the plugin changes


def needs_selector(cluster: Cluster, vendor: Vendor = VENDOR) -> bool:
    """Say whether the plugin must stay off nodes without GPUs.

    Its pod cannot start where the handler of the RuntimeClass that it names is missing, and from some version on it
    fails on a node without GPUs, as one that hands them out by CDI always does. Otherwise it runs everywhere, as its
    vendor has it.
    """
    major, minor, _ = (int(part) for part in cluster.device_plugin.version.split("."))
    fails = vendor.plugin.needs_gpus is not None and (major, minor) >= vendor.plugin.needs_gpus
    return fails or cluster.gpu.mode == "cdi" or vendor.runtime_class(cluster.gpu.mode) is not None


def daemon_set(cluster: Cluster, vendor: Vendor = VENDOR) -> list[Object]:
    """Return the plugin's DaemonSet for the nodes that are of no class of GPUs."""
    (made,) = _daemon_set(cluster, vendor)
    return [off_classes(made) if vendor.plugin.classes else made]


def _daemon_set(cluster: Cluster, vendor: Vendor) -> list[Object]:
    image = f"{cluster.device_plugin.image}:v{cluster.device_plugin.version}"
    selector = {vendor.label: "true"} if needs_selector(cluster, vendor) else None
    if cluster.gpu.mode == "cdi":
        return render(vendor.plugin.cdi, image=image, node_selector=selector)
    handler = vendor.runtime_class(cluster.gpu.mode)
    return render(
        vendor.plugin.manifest, image=image, runtime_class=handler, node_selector=selector, **vendor.plugin.values
    )


def runtime_class(cluster: Cluster, vendor: Vendor = VENDOR) -> list[Check[Kube]]:
    """Return the step about the RuntimeClass that pods with GPUs, or MPS's daemon, name; none where they name none."""
    mps = cluster.gpu.mode == "cdi" and any(one.sharing == "mps" for one in cluster.gpu_classes.values())
    if vendor.runtime is None or not (mps or vendor.runtime_class(cluster.gpu.mode)):
        return []
    handler = vendor.runtime.handler
    name = f"RuntimeClass {handler} leads to containerd's handler {handler}"
    return [RuntimeClassIs(name, render(vendor.runtime.manifest), Impact.FILES)]


def steps(cluster: Cluster, unready: Unready | None = None) -> list[Check[Kube]]:
    """Return the steps, in order; none where every host declares that it has no GPU.

    `unready` tells why the hosts of some nodes are not yet as the plugin needs them. The nodes' label is set as
    each one joins (tasks.gates.node_steps).
    """
    if all(host.gpus == 0 for host in cluster.hosts):
        return []
    if cluster.gpu.mode == "dra":
        return _claimed(cluster, unready)
    name = f"the {VENDOR.name} device plugin {cluster.device_plugin.version} is declared for every node with GPUs"
    base = PluginPresent(name, daemon_set(cluster), unready=unready)
    return [*runtime_class(cluster), base, *class_steps(cluster, unready)]


def _claimed(cluster: Cluster, unready: Unready | None) -> list[Check[Kube]]:
    """Return the steps where pods claim GPUs: the driver of claims is there before the device plugin goes."""
    name = f"the {VENDOR.name} driver of claims {cluster.dra_driver.version} is declared for every node with GPUs"
    driver = ClaimsPresent(name, claim_objects(cluster), unready=unready)
    return [PluginLeaves(), driver, *leftovers(cluster)]


def class_steps(cluster: Cluster, unready: Unready | None = None, vendor: Vendor = VENDOR) -> list[Check[Kube]]:
    """Return the steps about the plugin of each class of GPUs that a host is of, and of classes that are gone."""
    if vendor.plugin.classes is None:
        return []
    made: list[Check[Kube]] = [
        ClassPresent(
            f"the device plugin of GPU class {name} is declared ({shared.sharing})",
            class_objects(cluster, name, _daemon_set(cluster, vendor)[0], vendor),
            unready=unready,
            gpu_class=name,
        )
        for name, shared in cluster.gpu_classes.items()
    ]
    return [*made, *leftovers(cluster)]


async def classes_left(run: Run) -> list[Check[Kube]]:
    """Return the steps about nodes whose class their own stage could not change: what was to come first comes now."""
    if run.allow is Impact.NOTHING or VENDOR.plugin.classes is None:
        return []
    there = await nodes_by_name(await run.kube())
    mine = [host.name for host in run.hosts if host.name in there and run.gpus_of(host)]
    wanted = {name: label_of(run.cluster, name) for name in mine}
    return [
        NodeClass(name, to, unready=nvidia_runtime.undivided(run, run.cluster.host(name)))
        for name, to in wanted.items()
        if class_of(there[name]) != to
    ]


class RuntimeClassIs(ObjectsPresent):
    """The RuntimeClass that the plugin's and the workloads' pods name, without which the plugin sees no GPU."""

    traps: ClassVar[tuple[int, ...]] = (23, 27)


def leftovers(cluster: Cluster) -> list[Check[Kube]]:
    """Return the steps about what offered GPUs before, and goes once no node needs it."""
    if VENDOR.plugin.classes is None:
        return []
    claimed = cluster.gpu.mode == "dra"
    return [ClassesGone((CLAIMED,) if claimed else tuple(cluster.gpu_classes)), *([PluginRetired()] if claimed else [])]


def list_needed(cluster: Cluster, host: HostSpec, family: Family) -> list[Check[Host]]:
    """Return the steps of a GPU host that the plugin relies on; the default runtime only where it is declared."""
    by_default = cluster.gpu.mode == "default_runtime"
    return [
        step
        for step in nvidia_runtime.steps(cluster, host, family)
        if isinstance(step, CdiServed)
        or (isinstance(step, UnlessOperators) and isinstance(step.step, ToolkitAccepts))
        or (by_default and isinstance(step, ContainerdConfigured | ContainerdLoaded))
    ]


def unready(run: Run) -> Unready:
    """Return what tells of nodes why their hosts are not all as the plugin needs them; "" where they are.

    A host of which the steps of this run have seen it is not asked again.
    """

    async def why(names: Sequence[str]) -> str:
        hosts = {host.name: host for host in run.cluster.hosts}
        foreign = sorted(set(names) - set(hosts))
        if foreign:
            return f"{', '.join(foreign)}: no host of the cluster file, so nobody can look at the toolkit there"
        asked = [hosts[name] for name in sorted(names) if not _is_ready(run, hosts[name])]
        said = await asyncio.gather(*(_why_unready(run, host) for host in asked))
        return "; ".join(why for why in said if why)

    return why


def _is_ready(run: Run, host: HostSpec) -> bool:
    if run.allow is Impact.NOTHING:
        return False  # a plan's steps have seen what is, and the plan tells what will be
    rows = [row for result in run.results if result.host == host.name for row in result.rows]
    done = {row.step for row in rows if row.outcome in ("ok", "changed")}
    return all(step.name in done for step in list_needed(run.cluster, host, run.family(host.name)))


async def _why_unready(run: Run, host: HostSpec) -> str:
    for step in list_needed(run.cluster, host, run.family(host.name)):
        try:
            drift = await step.check(run.session(host.name))
        except ShipwayError as error:
            return f"{host.name}: it cannot be determined whether {step.name} ({error.message})"
        if drift:
            return f"{host.name}: it is not so yet that {step.name} ({drift.have})"
    return ""


async def wait_for_hosts(run: Run) -> None:
    """Let the GPU hosts that have joined come to what the plugin needs of them, where it is to ask more of them.

    A host that has not joined needs no wait: it joins after its own stage is done.
    """
    surveys = run.seen.surveys.items()
    joined = [name for name, seen in surveys if seen.joined and run.gpus_of(run.cluster.host(name))]
    if run.allow is Impact.NOTHING or not joined:
        return
    kube = await run.kube()
    plugins = [step for step in steps(run.cluster) if isinstance(step, PluginPresent)]
    if not any([await plugin.asks_more(kube) for plugin in plugins]):
        return
    ends = time.monotonic() + HOSTS_SECONDS
    while time.monotonic() < ends:
        over = {r.host for r in run.results if r.stage == StageName.NVIDIA_RUNTIME or not r.stands}
        if over.issuperset(joined):
            return
        await asyncio.sleep(1.0)
