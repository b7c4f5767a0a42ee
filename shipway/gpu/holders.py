"""Which pods hold GPUs of a node, and whose they are up to the top: what a drain would break off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shipway.errors import ShipwayError
from shipway.gpu.chosen import VENDOR
from shipway.gpu.pods import NAMESPACE
from shipway.gpu.vendor import Vendor
from shipway.kube.client import Kube, Object

HIGHEST = 5  # owners above each other: a pod of a Job of a JobSet of a queue has three


def asked_devices(pod: Mapping[str, Any], *, vendor: Vendor = VENDOR) -> list[str]:
    """Return what a pod that has not ended holds of the vendor's: GPUs with their number, a part of one, a claim."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return []
    spec, domain = pod.get("spec") or {}, vendor.resource.partition("/")[0]
    found = [
        f"{name}: {amount}"
        for container in spec.get("containers") or ()
        for name, amount in ((container.get("resources") or {}).get("limits") or {}).items()
        if str(name).startswith(f"{domain}/") and str(amount) != "0"
    ]
    return found + [f"claim {claim.get('name')}" for claim in spec.get("resourceClaims") or ()]


async def gpu_holders(kube: Kube, node: str, *, vendor: Vendor = VENDOR) -> list[str]:
    """Return each pod on a node that holds GPUs, but for those of the proof, with what it holds and its owners."""
    found = []
    for pod in await kube.list_("v1", "Pod", fields=f"spec.nodeName={node}"):
        meta = pod["metadata"]
        if meta.get("namespace") != NAMESPACE and (held := asked_devices(pod, vendor=vendor)):
            owners = await owners_of(kube, pod)
            of = f", of {', of '.join(owners)}" if owners else ", of nobody: nothing would start it again"
            found.append(f"{meta.get('namespace')}/{meta['name']} ({', '.join(held)}{of})")
    return sorted(found)


async def owners_of(kube: Kube, obj: Object) -> list[str]:
    """Return the owners of an object up to the top, the nearest first; ends where one cannot be asked for."""
    found: list[str] = []
    namespace = obj["metadata"].get("namespace", "")
    while len(found) < HIGHEST:
        references = obj["metadata"].get("ownerReferences") or ()
        owner = next((one for one in references if one.get("controller")), None)
        if owner is None:
            break
        found.append(f"{owner['kind']} {owner['name']}")
        try:
            above = await kube.get(owner["apiVersion"], owner["kind"], owner["name"], namespace)
        except ShipwayError:
            break
        if above is None:
            break
        obj = above
    return found
