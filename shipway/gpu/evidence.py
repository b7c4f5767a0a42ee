"""Evidence for the GPU proof: what the nodes offer, who holds GPUs, what pods and plugin say; how the counts agree."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from shipway.cluster.model import Cluster
from shipway.errors import ShipwayError
from shipway.gpu.chosen import VENDOR
from shipway.gpu.claims import see_claims
from shipway.gpu.classes import daemon_sets, declared_sharing
from shipway.gpu.counts import count_asked_gpus
from shipway.gpu.health.quarantine import TAINT, tell_kept
from shipway.gpu.offers import Offer, see_offers
from shipway.gpu.owners import find_owner
from shipway.gpu.pods import NAMESPACE, describe_pod
from shipway.gpu.seen import Evidence, HostGpuFacts, NodeSeen, PodSeen
from shipway.gpu.sharing import Sharing
from shipway.gpu.vendor import Vendor
from shipway.kube.client import Kube, Object
from shipway.kube.errors import KindMissing
from shipway.kube.nodes import TOLD, nodes_by_name
from shipway.kube.status import why_not_ready

T = TypeVar("T")


async def see_nodes(
    kube: Kube,
    expected: Mapping[str, int],
    hosts: Mapping[str, HostGpuFacts],
    plugins: Mapping[str, PodSeen] | None = None,
    *,
    declared: Mapping[str, Sharing] | None = None,
    vendor: Vendor = VENDOR,
) -> tuple[NodeSeen, ...]:
    """Return every node that should have GPUs, as Kubernetes and SSH show it, with its plugin's pod (`plugins`).

    `declared` is by node how its GPUs are to be shared; of others nothing is declared.
    """
    nodes = await nodes_by_name(kube)
    parts = {name: facts.parts or 0 for name, facts in hosts.items()}
    offers = await see_offers(kube, expected, thorough=True, parts=parts, vendor=vendor)
    return tuple(
        replace(
            _see(name, count, nodes.get(name), offers[name], vendor),
            host=hosts.get(name, HostGpuFacts()),
            plugin=(plugins or {}).get(name),
            declared=(declared or {}).get(name),
        )
        for name, count in sorted(expected.items())
    )


def _see(name: str, count: int, node: Object | None, offer: Offer, vendor: Vendor) -> NodeSeen:
    labels = (node or {"metadata": {}})["metadata"].get("labels") or {}
    return NodeSeen(
        name=name,
        expected=count,
        allocatable=offer.places,
        capacity=sum(offer.capacity.values()),
        why_not_ready=why_not_ready(node),
        barred=find_barrier(node or {}, vendor),
        labelled=labels.get(vendor.label) == "true",
        offer=offer,
        kept=tell_kept(node) if node else "",
    )


def find_barrier(node: Object, vendor: Vendor = VENDOR) -> str:
    """Return what keeps the test's pods off a node: it is cordoned, or a taint that they do not tolerate.

    What its readiness or its cordon tells is not told again by the taint that goes with it; that of a node short of
    disk, memory or PIDs counts.
    """
    spec = node.get("spec") or {}
    taints = [taint for taint in spec.get("taints") or () if taint.get("effect") in ("NoSchedule", "NoExecute")]
    foreign = [taint["key"] for taint in taints if taint["key"] not in (vendor.resource, TAINT, *TOLD)]
    if spec.get("unschedulable"):
        return "it is cordoned"
    return f"taint {', '.join(foreign)}" if foreign else ""


async def count_taken(
    kube: Kube, expected: Mapping[str, int], *, node: str = "", resource: str = "", vendor: Vendor = VENDOR
) -> dict[str, int]:
    """Return by node how many GPUs, shares or parts of them pods hold that are not the proof's.

    Of one `node`, or of one `resource`, alone where it is named.
    """
    pods = await kube.list_("v1", "Pod", fields=f"spec.nodeName={node}" if node else "")
    claims = await see_claims(kube, pods, vendor=vendor)
    taken: dict[str, int] = {}
    claimed: dict[str, set[str]] = {}  # pods that share a claim hold its devices once
    for pod in pods:
        place = (pod.get("spec") or {}).get("nodeName", "")
        if place in expected and pod["metadata"].get("namespace") != NAMESPACE:
            taken[place] = taken.get(place, 0) + count_asked_gpus(pod, resource, vendor=vendor)
            if vendor.claims and resource in ("", vendor.claims.driver):
                claimed.setdefault(place, set()).update(*claims.of(pod).values())
    return {place: count + len(claimed.get(place, ())) for place, count in taken.items()}


def mismatches(nodes: Sequence[NodeSeen], vendor: Vendor = VENDOR) -> list[str]:
    """Return where the expected number disagrees with PCI, with the driver or with what is allocatable."""
    faults: list[str] = []
    for node in nodes:
        counts = {"PCI": node.host.pci, vendor.program: node.host.driver}
        wrong = [f"{what} {count}" for what, count in counts.items() if count is not None and count != node.expected]
        wrong += [f"allocatable {node.allocatable}"] if node.allocatable != node.wanted else []
        if otherwise := node.offer.differs(node.declared):
            faults.append(f"{node.name}: {otherwise}")
        places = f" ({node.wanted} places by {node.offer.way})" if node.offer.way != "exclusive" else ""
        if wrong:
            faults.append(f"{node.name}: expected {node.expected} GPUs{places}, but {', '.join(wrong)}")
    return faults


async def collect(
    kube: Kube,
    cluster: Cluster,
    expected: Mapping[str, int],
    hosts: Mapping[str, HostGpuFacts],
    refusal: str,
    *,
    held: Collection[str] = (),
    vendor: Vendor = VENDOR,
) -> tuple[Evidence, list[str]]:
    """Return all that can be seen now, and what could not be asked, with the reason.

    Of the nodes that are `held` nothing is declared of how they share their GPUs.
    """
    missing: list[str] = []
    plugin = vendor.plugin
    plugin_pods, pods, handler, declared, owner = await asyncio.gather(
        _or(_pods(kube, plugin.namespace, plugin.selector), [], "the plugin's pods", missing),
        _or(_pods(kube, NAMESPACE, ""), [], "the test's pods", missing),
        _or(_handler(kube, vendor), None, "the RuntimeClass", missing),
        _or(
            kube.get("apps/v1", "DaemonSet", daemon_sets(cluster, vendor=vendor)[0], plugin.namespace),
            {},
            "the plugin's DaemonSet",
            missing,
        ),
        _or(find_owner(kube, vendor), "", "who else offers the GPUs", missing),
    )
    plugins = {pod.node: pod for pod in plugin_pods}
    seen = see_nodes(kube, expected, hosts, plugins, declared=declared_sharing(cluster, held), vendor=vendor)
    nodes = await _or(seen, (), "the nodes", missing)
    return Evidence(
        cluster.gpu.mode, nodes, tuple(pods), handler, declared is not None or bool(owner), refusal
    ), missing


async def _or(asked: Awaitable[T], otherwise: T, what: str, missing: list[str]) -> T:
    """Return the answer, or `otherwise` where the API does not give it: evidence must not hide the first error."""
    try:
        return await asked
    except ShipwayError as error:
        missing.append(f"{what}: {error.message}")
        return otherwise


async def _pods(kube: Kube, namespace: str, labels: str) -> list[PodSeen]:
    """Return all pods of a namespace with their events and logs."""
    pods = await kube.list_("v1", "Pod", namespace, labels=labels)
    names = [pod["metadata"]["name"] for pod in pods]
    events = await asyncio.gather(*(kube.events_of(pod) for pod in pods))
    lost: list[str] = []
    logs = await asyncio.gather(*(_or(kube.logs(namespace, name), "", "log", lost) for name in names))
    return [describe_pod(pod, said, log) for pod, said, log in zip(pods, events, logs, strict=True)]


async def _handler(kube: Kube, vendor: Vendor) -> str | None:
    """Return the handler of the vendor's RuntimeClass; None where there is none, or none is needed."""
    if vendor.runtime is None:
        return None
    try:
        found = await kube.get("node.k8s.io/v1", "RuntimeClass", vendor.runtime.handler)
    except KindMissing:
        return None
    return str(found["handler"]) if found else None
