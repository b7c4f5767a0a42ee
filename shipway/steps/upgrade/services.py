"""Pods with GPUs that serve, and never end: such a one is moved while another replica answers, and has where to go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
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


async def why_not_moved(on: Kube, pod: Object, *, vendor: Vendor = VENDOR) -> str:
    """Return why a replica is not moved off its node now; "" where it may be. Raises the API's errors.

    Another replica must be Ready on another node, and a node that takes pods must have as many free GPUs of the same
    product (by the label of the vendor's feature discovery, where nodes have it), offered in the way the pod asks.
    """
    node, keeper = pod["spec"]["nodeName"], controller_of(pod)
    claimed = sum(len(devices) for devices in (await see_claims(on, [pod], vendor=vendor)).of(pod).values())
    asked = claimed or count_asked_gpus(pod, vendor=vendor)
    offered = await see_devices(on, vendor=vendor) if claimed else {}
    pods, nodes = await asyncio.gather(on.list_("v1", "Pod", pod["metadata"]["namespace"]), nodes_by_name(on))
    others = [one for one in pods if controller_of(one).get("uid", "") == keeper.get("uid") and _answers(one)]
    if not any(one["spec"].get("nodeName") != node for one in others):
        return "no other replica is Ready on another node"
    if not asked:
        return "whether another node has such a part of a GPU free is not known"
    product = _product(nodes.get(node, {}), vendor)
    able = {
        name: claimed_offer(offered.get(name, {}), vendor=vendor).places if claimed else count_gpus(one, vendor=vendor)
        for name, one in nodes.items()
        if name != node
        and not why_not_ready(one)
        and not find_barrier(one, vendor)
        and _product(one, vendor) == product
    }
    taken = await count_taken(on, able, vendor=vendor)
    if any(count - taken.get(name, 0) >= asked for name, count in able.items()):
        return ""
    return f"no other node has {asked} free GPUs{f' ({product})' if product else ''}"


def _answers(pod: Mapping[str, Any]) -> bool:
    return is_true(pod, "Ready") and not pod["metadata"].get("deletionTimestamp")


def _product(node: Mapping[str, Any], vendor: Vendor) -> str:
    return str(((node.get("metadata") or {}).get("labels") or {}).get(vendor.product_label, ""))
