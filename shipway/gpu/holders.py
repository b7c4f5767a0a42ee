"""Which pods hold GPUs of a node, and whose they are up to the top: what a drain would break off."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from shipway.gpu.chosen import VENDOR
from shipway.gpu.claims import Claims, resources_by_claim, see_claims
from shipway.gpu.pods import NAMESPACE
from shipway.gpu.vendor import Vendor
from shipway.kube.client import Kube
from shipway.kube.owners import walk_up


def asked_devices(pod: Mapping[str, Any], claims: Claims, *, vendor: Vendor = VENDOR) -> list[str]:
    """Return what a pod that has not ended holds of the vendor's: GPUs with their number, a part of one, claimed ones.

    A claim that is not among the `claims` is taken for one of GPUs.
    """
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return []
    spec, domain, by_claim = pod.get("spec") or {}, vendor.resource.partition("/")[0], resources_by_claim(pod)
    found = [
        f"{name}: {amount}"
        for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))
        for name, amount in ((container.get("resources") or {}).get("limits") or {}).items()
        if str(name).startswith(f"{domain}/") and str(amount) != "0" and name not in by_claim
    ]
    claimed = claims.of(pod).items()
    return found + [
        f"claim {name}: {', '.join(one.rpartition('/')[2] for one in devices)}" for name, devices in claimed
    ]


async def gpu_holders(kube: Kube, node: str, *, besides: Collection[str] = (), vendor: Vendor = VENDOR) -> list[str]:
    """Return each pod on a node that holds GPUs, with what it holds and its owners.

    Those of the proof are left out, and `besides` (namespace/name).
    """
    found, pods = [], await kube.list_("v1", "Pod", fields=f"spec.nodeName={node}")
    claims = await see_claims(kube, pods, vendor=vendor)
    for pod in pods:
        meta = pod["metadata"]
        name = f"{meta.get('namespace')}/{meta['name']}"
        if meta.get("namespace") == NAMESPACE or name in besides:
            continue
        if held := asked_devices(pod, claims, vendor=vendor):
            owners = [f"{one['kind']} {one['metadata']['name']}" for one in await walk_up(kube, pod)]
            of = f", of {', of '.join(owners)}" if owners else ", of nobody: nothing would start it again"
            found.append(f"{name} ({', '.join(held)}{of})")
    return sorted(found)
