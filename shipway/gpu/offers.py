"""What each node offers of its GPUs: of which resource how much, and how many pods share a device (one interface)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shipway.cluster.parts import CLAIMED
from shipway.errors import ShipwayError
from shipway.foreign.numbers import whole
from shipway.gpu.chosen import VENDOR
from shipway.gpu.claims import Device, see_devices
from shipway.gpu.plugin_pods import node_of_pod, plugin_log, plugin_pods
from shipway.gpu.sharing import CLASS_LABEL, Sharing, Way
from shipway.gpu.vendor import Vendor
from shipway.kube.client import Kube, Object
from shipway.kube.nodes import nodes_by_name


@dataclass(frozen=True, slots=True)
class Offer:
    """What a node offers: `amounts` are allocatable by resource, `capacity` what it has; `replicas` pods share one."""

    way: Way = "exclusive"
    replicas: int = 1
    amounts: Mapping[str, int] = field(default_factory=dict)
    capacity: Mapping[str, int] = field(default_factory=dict)

    @property
    def places(self) -> int:
        """How many pods that ask for one of it can run at once."""
        return sum(self.amounts.values())

    @property
    def gpus(self) -> int:
        """How many devices that makes: GPUs, with MIG their parts."""
        return self.places // self.replicas

    def wanted(self, gpus: int, parts: int | None = None, *, vendor: Vendor = VENDOR) -> int:
        """Return how many places so many GPUs should be; `parts` is how many the driver lists, None: not known.

        Parts whose number nobody knows are as many as the node says that it has.
        """
        if self.way != "MIG":
            return gpus * self.replicas
        has = self.live
        if parts is None:
            return sum(has.values())
        beside = has.get(vendor.resource, 0) if len(has) > 1 else 0  # GPUs that are not divided
        return parts * self.replicas + beside

    @property
    def live(self) -> Mapping[str, int]:
        """What the node has of the resources that it offers some of; of all, where it offers nothing.

        What a plugin of another class had offered stays in the capacity for five minutes (the kubelet's
        endpointStopGracePeriod), and none of it is offered.
        """
        return _live(self.amounts, self.capacity)

    def differs(self, declared: Sharing | None) -> str:
        """Return how its GPUs are shared where that is not as declared; "" where it is, or nothing is declared."""
        same = declared is None or (self.way, self.replicas) == (declared.way, declared.replicas)
        if same or declared is None or not any(self.capacity.values()):
            return ""  # a node without a plugin shares nothing yet
        return f"its GPUs are shared by {_spell(self)}, and not by {_spell(declared)} as declared"

    def asks(self, gpus: int, *, vendor: Vendor = VENDOR) -> dict[str, int]:
        """Return how many pods ask for which resource where all of it is used at once."""
        if self.way == "MIG":
            return {name: self.amounts.get(name, 0) for name in self.live}
        # What a plugin of another class had offered stays in the capacity for minutes.
        offered = [name for name, amount in self.amounts.items() if amount]
        names = offered or [name for name, amount in self.capacity.items() if amount or vendor.is_claimed(name)]
        return {(names or [vendor.resource])[0]: gpus * self.replicas}

    def tell(self, node: str, gpus: int) -> str:
        """Return how its GPUs are shared, for the report; "" where each goes to one pod alone."""
        if self.way == "exclusive":
            return ""
        each = f", {self.replicas} pods on each" if self.replicas > 1 else ""
        kept = " (their shares of memory are not judged)" if self.way == "MPS" else ""
        return f"{node}: its {gpus} GPUs are offered as {self.places} places by {self.way}{each}{kept}"


def _live(amounts: Mapping[str, int], capacity: Mapping[str, int]) -> Mapping[str, int]:
    return {name: amount for name, amount in capacity.items() if amounts.get(name)} or capacity


def _spell(shared: Offer | Sharing) -> str:
    return f"{shared.way} with {shared.replicas} pods on each" if shared.replicas > 1 else shared.way


def amounts_of(
    node: Mapping[str, Any], part: str = "allocatable", names: tuple[str, ...] = (), *, vendor: Vendor = VENDOR
) -> dict[str, int]:
    """Return how much of each of the vendor's resources a node offers (`allocatable`) or has (`capacity`)."""
    listed = (node.get("status") or {}).get(part) or {}
    mine = [name for name in listed if vendor.offers(str(name)) or name in names]
    return {str(name): whole(str(listed[name])) or 0 for name in mine}


def count_offered(node: Mapping[str, Any], *, vendor: Vendor = VENDOR) -> int:
    """Return how many pods with a GPU, or a share or part of one, a node offers place for."""
    return sum(amounts_of(node, vendor=vendor).values())


def read_offer(node: Mapping[str, Any], gpus: int, log: str = "", parts: int = 0, *, vendor: Vendor = VENDOR) -> Offer:
    """Return what a node with so many GPUs offers, by its status, its labels and its plugin's `log`.

    `parts` is how many the driver lists: one on each GPU, or a plugin that has not seen them, shows in no count.
    """
    labels = (node.get("metadata") or {}).get("labels") or {}
    told: Sharing = vendor.plugin.sharing(labels, log)
    has, amounts = (amounts_of(node, part, told.names, vendor=vendor) for part in ("capacity", "allocatable"))
    live = _live(amounts, has)
    named = any(vendor.is_part(name) for name, amount in live.items() if amount)
    divided = named or (told.parts and (parts > 0 or sum(live.values()) > gpus * told.replicas))
    way: Way = "MIG" if divided else told.way
    return Offer(way, told.replicas, amounts, has)


def claimed_offer(devices: Mapping[str, Device], *, vendor: Vendor = VENDOR) -> Offer:
    """Return what a node offers whose GPUs are claimed: whole ones, but for those that a taint keeps from pods."""
    name = vendor.claims.driver if vendor.claims else ""
    return Offer(amounts={name: sum(not one.kept for one in devices.values())}, capacity={name: len(devices)})


def _is_claimed(node: Mapping[str, Any]) -> bool:
    labels = (node.get("metadata") or {}).get("labels") or {}
    return bool(labels.get(CLASS_LABEL) == CLAIMED)


async def see_claimed(
    kube: Kube, nodes: Mapping[str, Mapping[str, Any]], *, vendor: Vendor = VENDOR
) -> dict[str, dict[str, Device]]:
    """Return by node the GPUs that can be claimed, of those nodes that offer none as a resource. Raises API errors.

    A node whose GPUs are claimed goes on telling for seconds what its plugin offered: its slices count, once there.
    """
    if vendor.claims is None:
        return {}
    none = {name for name, node in nodes.items() if node and not any(amounts_of(node, vendor=vendor).values())}
    labelled = {name for name, node in nodes.items() if _is_claimed(node)}
    seen = await see_devices(kube, vendor=vendor) if none or labelled else {}
    return {name: seen.get(name, {}) for name in none | labelled if name in seen or name in none & labelled}


async def count_places(kube: Kube, *, vendor: Vendor = VENDOR) -> dict[str, int]:
    """Return by node for how many pods with a GPU, or a share or part of one, it has place. Raises the API's errors."""
    nodes = await nodes_by_name(kube)
    mine = {name: one for name, one in nodes.items() if vendor.label in (one["metadata"].get("labels") or {})}
    claimed = await see_claimed(kube, mine, vendor=vendor)
    return {
        name: claimed_offer(claimed[name], vendor=vendor).places
        if name in claimed
        else count_offered(node, vendor=vendor)
        for name, node in nodes.items()
    }


async def see_offers(
    kube: Kube,
    expected: Mapping[str, int],
    *,
    thorough: bool = False,
    parts: Mapping[str, int] | None = None,
    vendor: Vendor = VENDOR,
) -> dict[str, Offer]:
    """Return what the nodes with the `expected` GPUs offer. Raises the errors of the API.

    The plugin's log is asked for where a node offers something else than its GPUs as they are, or where it must be
    known for sure (`thorough`); one that cannot be had tells nothing. GPUs that are claimed tell it in slices. `parts`
    is by node how many parts of GPUs its driver lists, where it was asked.
    """
    parts = parts or {}
    nodes = await nodes_by_name(kube)
    seen = {name: nodes.get(name, {}) for name in expected}
    claimed = await see_claimed(kube, seen, vendor=vendor)
    odd = [
        name
        for name, node in seen.items()
        if name not in claimed
        and (has := amounts_of(node, "capacity", vendor=vendor))
        and (
            thorough
            or parts.get(name)
            or {one: amount for one, amount in has.items() if amount} != {vendor.resource: expected[name]}
        )
    ]
    logs = await _read_logs(kube, odd, vendor) if odd else {}
    return {
        name: claimed_offer(claimed[name], vendor=vendor)
        if name in claimed
        else read_offer(node, expected[name], logs.get(name, ""), parts.get(name, 0), vendor=vendor)
        for name, node in seen.items()
    }


async def _read_logs(kube: Kube, names: list[str], vendor: Vendor) -> dict[str, str]:
    """Return by node what its plugin's pod has logged."""
    logs = dict[str, str]()

    async def read(pod: Object) -> None:
        with contextlib.suppress(ShipwayError):
            logs[node_of_pod(pod)] = await plugin_log(kube, pod, vendor=vendor)

    with contextlib.suppress(ShipwayError):
        pods = await plugin_pods(kube, vendor=vendor)
        await asyncio.gather(*(read(pod) for pod in pods if node_of_pod(pod) in names))
    return logs
