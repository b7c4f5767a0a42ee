"""How many GPUs nodes offer and pods hold, by what Kubernetes says of the vendor's resources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from shipway.foreign.numbers import whole
from shipway.gpu.chosen import VENDOR
from shipway.gpu.claims import resources_by_claim
from shipway.gpu.offers import see_offers
from shipway.gpu.sharing import Sharing
from shipway.gpu.vendor import Vendor
from shipway.kube.client import Kube
from shipway.kube.nodes import few
from shipway.step import Drift


def count_gpus(node: Mapping[str, Any], part: str = "allocatable", *, vendor: Vendor = VENDOR) -> int:
    """Return how many GPUs a node offers (`allocatable`) or has (`capacity`)."""
    amount = ((node.get("status") or {}).get(part) or {}).get(vendor.resource, 0)
    return whole(str(amount)) or 0


def count_asked_gpus(pod: Mapping[str, Any], resource: str = "", *, vendor: Vendor = VENDOR) -> int:
    """Return how many GPUs, shares or parts of them a pod holds of a device plugin's, unless it has ended.

    What a container that starts before the others asked for is the pod's until it ends, as the kubelet has it: it is
    handed on to those after it, but for one that goes on running beside them.
    """
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    spec, by_claim = pod.get("spec") or {}, resources_by_claim(pod)

    def count(container: Mapping[str, Any]) -> int:
        resources = container.get("resources") or {}
        asked = resources.get("limits") or resources.get("requests") or {}
        mine = [name for name in asked if (name == resource if resource else vendor.offers(str(name)))]
        return sum(whole(str(asked[name])) or 0 for name in mine if name not in by_claim)

    most, beside = 0, 0
    for container in spec.get("initContainers") or ():
        most = max(most, beside + count(container))
        beside += count(container) if container.get("restartPolicy") == "Always" else 0
    return max(most, beside + sum(map(count, spec.get("containers") or ())))


async def find_lacking(
    on: Kube,
    expected: Mapping[str, int],
    declared: Mapping[str, Sharing] | None = None,
    parts: Mapping[str, int] | None = None,
    *,
    vendor: Vendor = VENDOR,
) -> dict[str, str]:
    """Return by node what it offers of what its GPUs should be, each by how it shares them; none that offers all.

    One that shares them otherwise than `declared` lacks what it is to offer. `parts` is how many parts
    of GPUs drivers list. Raises the errors of the API.
    """
    offers = await see_offers(on, expected, parts=parts, vendor=vendor)
    listed = parts or {}
    wanted = {
        name: offers[name].wanted(count, listed.get(name) or None, vendor=vendor) for name, count in expected.items()
    }
    otherwise = {name: offer.differs((declared or {}).get(name)) for name, offer in sorted(offers.items())}
    return {name: f"{name}: {why}" for name, why in otherwise.items() if why} | {
        name: f"{name} has {offer.places} of {wanted[name]}{f' ({offer.way})' if offer.way != 'exclusive' else ''}"
        for name, offer in sorted(offers.items())
        if offer.places != wanted[name] and not otherwise[name]
    }


@dataclass(frozen=True)
class GpusAllocatable:
    """Every node offers as many GPUs as it should, by what its kubelet says, not by the plugin's pod being up.

    Where the plugin shares them, as many places as that makes of them.
    """

    traps: ClassVar[tuple[int, ...]] = (23, 30)
    expected: Mapping[str, int] = field(hash=False)
    name: str = "every expected GPU is allocatable"
    vendor: Vendor = VENDOR
    declared: Mapping[str, Sharing] = field(default_factory=dict, hash=False)
    parts: Mapping[str, int] = field(default_factory=dict, hash=False)  # of GPUs, as the driver of each host lists them

    async def check(self, on: Kube) -> Drift | None:
        """Compare allocatable GPUs with the expected number, node by node."""
        wrong = await find_lacking(on, self.expected, self.declared, self.parts, vendor=self.vendor)
        if not wrong:
            return None
        offers = await see_offers(on, self.expected, parts=self.parts, vendor=self.vendor)
        have = sum(offer.places for offer in offers.values())
        total = sum(self.expected.values())
        return Drift(f"{have} of {total} GPUs; {few(list(wrong.values()))}", f"{total} GPUs ({self.vendor.resource})")
