"""How many GPUs nodes offer and pods hold, by what Kubernetes says of the vendor's resource."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from shipway.foreign.numbers import whole
from shipway.gpu.chosen import VENDOR
from shipway.gpu.vendor import Vendor
from shipway.kube.client import Kube
from shipway.kube.nodes import few, nodes_by_name
from shipway.step import Drift


def count_gpus(node: Mapping[str, Any], part: str = "allocatable", *, vendor: Vendor = VENDOR) -> int:
    """Return how many GPUs a node offers (`allocatable`) or has (`capacity`)."""
    amount = ((node.get("status") or {}).get(part) or {}).get(vendor.resource, 0)
    return whole(str(amount)) or 0


def count_asked_gpus(pod: Mapping[str, Any], *, vendor: Vendor = VENDOR) -> int:
    """Return how many GPUs a pod holds: what its containers ask for, unless it has ended."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    total = 0
    for container in (pod.get("spec") or {}).get("containers") or ():
        resources = container.get("resources") or {}
        asked = (resources.get("limits") or resources.get("requests") or {}).get(vendor.resource, 0)
        total += whole(str(asked)) or 0
    return total


@dataclass(frozen=True)
class GpusAllocatable:
    """Every node offers as many GPUs as it should, by what its kubelet says, not by the plugin's pod being up."""

    traps: ClassVar[tuple[int, ...]] = (23, 30)
    expected: Mapping[str, int] = field(hash=False)
    name: str = "every expected GPU is allocatable"
    vendor: Vendor = VENDOR

    async def check(self, on: Kube) -> Drift | None:
        """Compare allocatable GPUs with the expected number, node by node."""
        nodes = await nodes_by_name(on)
        have = {name: count_gpus(nodes[name], vendor=self.vendor) if name in nodes else 0 for name in self.expected}
        wrong = [
            f"{name} has {have[name]} of {count}"
            for name, count in sorted(self.expected.items())
            if have[name] != count
        ]
        if not wrong:
            return None
        total = sum(self.expected.values())
        return Drift(f"{sum(have.values())} of {total} GPUs; {few(wrong)}", f"{total} GPUs ({self.vendor.resource})")
