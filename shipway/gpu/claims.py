"""What claims hold of a vendor's GPUs, and which GPUs its driver of claims offers (DRA), whoever has installed that.

Since Kubernetes 1.34 the API serves it as resource.k8s.io/v1, before that as betas where somebody switched them on. A
claim has devices once the scheduler has allocated them, and a pod that is bound to a node has claims that are.

A pod can hold GPUs by a claim that it does not name: where a DeviceClass serves a resource (`extendedResourceName`,
with NVIDIA's chart that of its plugin, or `deviceclass.resource.kubernetes.io/` and its name), the scheduler makes the
claim, and writes in the pod's status which resources it serves (on since 1.36).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shipway.gpu.chosen import VENDOR
from shipway.gpu.vendor import Vendor
from shipway.kube.client import Kube, Object
from shipway.kube.errors import KindMissing

GROUP = "resource.k8s.io"
VERSIONS = (f"{GROUP}/v1", f"{GROUP}/v1beta2", f"{GROUP}/v1beta1")
KEEPING = ("NoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True)
class Claims:
    """The vendor's devices by claim (namespace, name), as `pool/device`; one that is not here is not known."""

    devices: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)

    def of(self, pod: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
        """Return the devices that a pod holds, by the name that it has for the claim; none of one that has ended.

        A claim of other devices is left out; one that is not known counts as one device, which has its name.
        """
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return {}
        space = str((pod.get("metadata") or {}).get("namespace", ""))
        found = {
            name: self.devices.get((space, claim), (f"{space}/{claim} (not found)",))
            for name, claim in _claims_of(pod).items()
        }
        return {name: some for name, some in found.items() if some}


def _claims_of(pod: Mapping[str, Any]) -> dict[str, str]:
    """Return the claims of a pod by the names that it has for them; one that is not made yet holds nothing."""
    made = {
        str(one.get("name")): str(one.get("resourceClaimName") or "")
        for one in (pod.get("status") or {}).get("resourceClaimStatuses") or ()
    }
    asked = {
        str(one.get("name")): str(one.get("resourceClaimName") or made.get(str(one.get("name"))) or "")
        for one in (pod.get("spec") or {}).get("resourceClaims") or ()
    }
    served = (pod.get("status") or {}).get("extendedResourceClaimStatus") or {}
    by_claim = {", ".join(sorted(resources_by_claim(pod))): str(served.get("resourceClaimName") or "")}
    return {name: claim for name, claim in (*asked.items(), *by_claim.items()) if claim}


def resources_by_claim(pod: Mapping[str, Any]) -> set[str]:
    """Return the resources of a pod that a claim serves, and no device plugin."""
    served = (pod.get("status") or {}).get("extendedResourceClaimStatus") or {}
    return {str(one.get("resourceName")) for one in served.get("requestMappings") or ()}


async def see_claims(on: Kube, pods: Iterable[Mapping[str, Any]], *, vendor: Vendor = VENDOR) -> Claims:
    """Return what the claims of a cluster hold; nothing is asked where none of the pods has one. Raises its errors.

    The list may be from before a pod was bound, as it is shared within a look: a claim of a bound pod that it does not
    have, or has as not allocated, is read anew.
    """
    held = [
        ((str(pod["metadata"].get("namespace", "")), claim), bool((pod.get("spec") or {}).get("nodeName")))
        for pod in pods
        for claim in _claims_of(pod).values()
    ]
    if vendor.claims is None or not held:
        return Claims()
    driver, listed = vendor.claims.driver, await _list(on, "ResourceClaim", *VERSIONS)
    seen = {(claim["metadata"].get("namespace", ""), claim["metadata"]["name"]): claim for claim in listed}
    bound = dict.fromkeys(key for key, is_bound in held if is_bound)
    late = [key for key in bound if not _is_allocated(seen.get(key))]
    anew = await asyncio.gather(*(_get(on, *key) for key in late))
    seen |= {key: claim for key, claim in zip(late, anew, strict=True) if claim}
    return Claims(
        {
            key: tuple(
                f"{one.get('pool')}/{one.get('device')}" for one in _allocated(claim) if one.get("driver") == driver
            )
            for key, claim in seen.items()
        }
    )


async def allocated_on(on: Kube, node: str, *, vendor: Vendor = VENDOR) -> list[str]:
    """Return the claims (namespace/name) that have devices of a node's driver: no pod with one ends without it.

    An administrator's are among them, and those whose pod is not bound yet: the scheduler allocates a claim before.
    NVIDIA's driver names its pool as the node. Raises the errors of the API.
    """
    driver = vendor.claims.driver if vendor.claims else ""
    return sorted(
        f"{claim['metadata'].get('namespace')}/{claim['metadata']['name']}"
        for claim in await _list(on, "ResourceClaim", *VERSIONS)
        if any((one.get("driver"), one.get("pool")) == (driver, node) for one in _results(claim))
    )


def _is_allocated(claim: Object | None) -> bool:
    return bool(((claim or {}).get("status") or {}).get("allocation"))


def _allocated(claim: Object) -> list[dict[str, Any]]:
    """Return the devices that a claim has to itself; who looks at one as an administrator takes it from nobody."""
    return [one for one in _results(claim) if not one.get("adminAccess")]


def _results(claim: Object) -> list[dict[str, Any]]:
    allocation = (claim.get("status") or {}).get("allocation") or {}
    return list((allocation.get("devices") or {}).get("results") or ())


async def _list(on: Kube, kind: str, *versions: str, fields: str = "") -> list[Object]:
    """Return all objects of a kind, in the first of the versions that the API serves; none where it serves none."""
    for version in versions:
        try:
            return await on.list_(version, kind, fields=fields)
        except KindMissing:
            continue
    return []


async def _get(on: Kube, namespace: str, name: str) -> Object | None:
    """Return a claim as it is now, in the first of the versions that the API serves; None where there is none."""
    for version in VERSIONS:
        try:
            return await on.get(version, "ResourceClaim", name, namespace, fresh=True)
        except KindMissing:
            continue
    return None


@dataclass(frozen=True, slots=True)
class Device:
    """A whole GPU that the driver of claims offers: its name in its pool, its identity, what keeps it from pods."""

    name: str
    uuid: str = ""
    kept: str = ""


async def list_slices(on: Kube, *, vendor: Vendor = VENDOR) -> list[Object]:
    """Return what the driver of claims offers, as the API has it since 1.34. Raises its errors."""
    if vendor.claims is None:
        return []
    return await _list(on, "ResourceSlice", VERSIONS[0], fields=f"spec.driver={vendor.claims.driver}")


async def see_devices(on: Kube, *, vendor: Vendor = VENDOR) -> dict[str, dict[str, Device]]:
    """Return by node the GPUs that the driver of claims offers there, by `pool/device`. Raises the API's errors.

    Of a pool only its newest generation counts, once all slices of that are there, as the scheduler has it.
    """
    whole = vendor.claims.whole if vendor.claims else ""
    slices = [one["spec"] for one in await list_slices(on, vendor=vendor)]
    newest: dict[str, int] = {}
    for one in slices:
        pool = one["pool"]
        newest[pool["name"]] = max(newest.get(pool["name"], 0), int(pool.get("generation") or 0))
    current = [one for one in slices if int(one["pool"].get("generation") or 0) == newest[one["pool"]["name"]]]
    there = Counter(one["pool"]["name"] for one in current)
    found: dict[str, dict[str, Device]] = {}
    for one in current:
        pool = one["pool"]
        if not (node := one.get("nodeName")) or there[pool["name"]] != pool.get("resourceSliceCount"):
            continue
        for device in one.get("devices") or ():
            if _text(device, "type") == whole:
                kept = [taint["key"] for taint in device.get("taints") or () if taint.get("effect") in KEEPING]
                seen = Device(str(device["name"]), _text(device, "uuid"), ", ".join(kept))
                found.setdefault(str(node), {})[f"{pool['name']}/{device['name']}"] = seen
    return found


def _text(device: Mapping[str, Any], attribute: str) -> str:
    return str(((device.get("attributes") or {}).get(attribute) or {}).get("string", ""))
