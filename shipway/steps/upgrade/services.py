"""Pods with GPUs that serve, and never end: such a one is moved while another replica answers, and has where to go."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shipway.gpu.chosen import VENDOR
from shipway.gpu.claims import see_claims, see_devices
from shipway.gpu.counts import count_asked_gpus, count_gpus
from shipway.gpu.evidence import count_taken, find_barrier
from shipway.gpu.offers import claimed_offer
from shipway.gpu.vendor import Vendor
from shipway.kube.client import Kube, Object
from shipway.kube.nodes import nodes_by_name
from shipway.kube.owners import controller_of
from shipway.kube.status import is_true, why_not_ready


async def why_not_moved(
    on: Kube, pods: Sequence[Object], *, whole: Collection[str] = (), vendor: Vendor = VENDOR
) -> list[str]:
    """Return for each of a node's replicas why it is not moved now; "" where it may be. Raises the API's errors.

    Another replica must be Ready on another node that takes pods, or on one of the `whole`: closed, and nothing is
    moved off it meanwhile. A node that takes pods must have as many free GPUs of the same product (by the label of the
    vendor's feature discovery, where nodes have it), offered in the way the pod asks. All that may be moved go at once,
    so a free GPU is counted for one of them alone.
    """
    everything, nodes = await asyncio.gather(on.list_("v1", "Pod"), nodes_by_name(on))
    free = _Free(on, nodes, vendor, {})
    await free.reserve(one for one in everything if _to_be_bound(one))
    said: dict[int, str] = {}
    sizes = [await free.size(one) for one in pods]
    for at in sorted(range(len(pods)), key=lambda at: -sizes[at][0]):  # what asks for many finds its place first
        one, (asked, claimed) = pods[at], sizes[at]
        if not any(_is_other(one, other) and _stays(other, nodes, whole) for other in everything):
            said[at] = "no other replica is Ready on another node"
        elif not asked:
            said[at] = "whether another node has such a part of a GPU free is not known"
        else:
            product = _product(nodes.get(one["spec"]["nodeName"], {}), vendor)
            found = await free.take(asked, product, claimed=claimed, besides=one["spec"]["nodeName"])
            said[at] = "" if found else f"no other node has {asked} free GPUs{f' ({product})' if product else ''}"
    return [said[at] for at in range(len(pods))]


@dataclass
class _Free:
    """The free GPUs of nodes that take pods; `reserved` are those that somebody is about to have."""

    on: Kube
    nodes: Mapping[str, Object]
    vendor: Vendor
    reserved: dict[str, int]

    async def size(self, pod: Object) -> tuple[int, bool]:
        """Return how many GPUs a pod asks for, and whether it claims them."""
        claims = (await see_claims(self.on, [pod], vendor=self.vendor)).of(pod)
        claimed = sum(len(devices) for devices in claims.values())
        return claimed or count_asked_gpus(pod, vendor=self.vendor), bool(claimed)

    async def reserve(self, pods: Iterable[Object]) -> None:
        """Keep places for pods that the scheduler is about to give to a node."""
        for pod in pods:
            asked, claimed = await self.size(pod)
            if asked:
                await self.take(asked, None, claimed=claimed)

    async def take(self, asked: int, product: str | None, *, claimed: bool, besides: str = "") -> bool:
        """Reserve so many GPUs of one node, of the product where one is said, and say whether there are so many.

        The node that has the fewest left over is taken: so it fits where the scheduler can make it fit.
        """
        offered = await see_devices(self.on, vendor=self.vendor) if claimed else {}
        able = {
            name: claimed_offer(offered.get(name, {}), vendor=self.vendor).places
            if claimed
            else count_gpus(one, vendor=self.vendor)
            for name, one in self.nodes.items()
            if name != besides
            and not why_not_ready(one)
            and not find_barrier(one, self.vendor)
            and product in (None, _product(one, self.vendor))
        }
        taken = await count_taken(self.on, able, vendor=self.vendor)
        left = {name: count - taken.get(name, 0) - self.reserved.get(name, 0) for name, count in able.items()}
        fits = [name for name, count in left.items() if count >= asked]
        if fits:
            chosen = min(fits, key=lambda name: left[name])
            self.reserved[chosen] = self.reserved.get(chosen, 0) + asked
        return bool(fits)


def _is_other(pod: Object, other: Object) -> bool:
    """Say whether `other` is a replica of the same service on another node, and answers."""
    same = controller_of(other).get("uid", "") == controller_of(pod).get("uid", "")
    apart = other["spec"].get("nodeName") != pod["spec"]["nodeName"]
    return same and apart and other["metadata"]["namespace"] == pod["metadata"]["namespace"] and _answers(other)


def _stays(pod: Object, nodes: Mapping[str, Object], whole: Collection[str]) -> bool:
    """Say whether nothing is about to take a pod off its node: a closed one is being emptied, but for the `whole`."""
    name = pod["spec"].get("nodeName", "")
    return name in whole or not ((nodes.get(name) or {}).get("spec") or {}).get("unschedulable")


def _to_be_bound(pod: Mapping[str, Any]) -> bool:
    """Say whether the scheduler has still to look at a pod: one that it found no place for takes none now."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    judged = any(one.get("type") == "PodScheduled" for one in status.get("conditions") or ())
    waits = not spec.get("nodeName") and not spec.get("schedulingGates") and not judged
    return waits and status.get("phase") in (None, "Pending")


def _answers(pod: Mapping[str, Any]) -> bool:
    return is_true(pod, "Ready") and not is_ending(pod)


def is_ending(pod: Mapping[str, Any]) -> bool:
    """Say whether a pod was told to end."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def _product(node: Mapping[str, Any], vendor: Vendor) -> str:
    return str(((node.get("metadata") or {}).get("labels") or {}).get(vendor.product_label, ""))
