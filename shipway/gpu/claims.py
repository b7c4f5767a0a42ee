"""What claims hold of a vendor's GPUs, and which GPUs its driver of claims offers (DRA), whoever has installed that.

Since Kubernetes 1.34 the API serves it as resource.k8s.io/v1, before that as betas where somebody switched them on. A
claim has devices once the scheduler has allocated them, and a pod that is bound to a node has claims that are.
"""

from __future__ import annotations

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
    return {name: claim for name, claim in asked.items() if claim}


async def see_claims(on: Kube, pods: Iterable[Mapping[str, Any]], *, vendor: Vendor = VENDOR) -> Claims:
    """Return what the claims of a cluster hold; nothing is asked where none of the pods has one. Raises its errors."""
    if vendor.claims is None or not any(_claims_of(pod) for pod in pods):
        return Claims()
    driver = vendor.claims.driver
    return Claims(
        {
            (claim["metadata"].get("namespace", ""), claim["metadata"]["name"]): tuple(
                f"{one.get('pool')}/{one.get('device')}" for one in _allocated(claim) if one.get("driver") == driver
            )
            for claim in await _list(on, "ResourceClaim", *VERSIONS)
        }
    )


def _allocated(claim: Object) -> list[dict[str, Any]]:
    """Return the devices that a claim has to itself; who looks at one as an administrator takes it from nobody."""
    allocation = (claim.get("status") or {}).get("allocation") or {}
    results = (allocation.get("devices") or {}).get("results") or ()
    return [one for one in results if not one.get("adminAccess")]


async def _list(on: Kube, kind: str, *versions: str, fields: str = "") -> list[Object]:
    """Return all objects of a kind, in the first of the versions that the API serves; none where it serves none."""
    for version in versions:
        try:
            return await on.list_(version, kind, fields=fields)
        except KindMissing:
            continue
    return []


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

    Of a pool only its newest generation counts, as the scheduler has it.
    """
    whole = vendor.claims.whole if vendor.claims else ""
    slices = [one["spec"] for one in await list_slices(on, vendor=vendor)]
    newest: dict[str, int] = {}
    for one in slices:
        pool = one["pool"]
        newest[pool["name"]] = max(newest.get(pool["name"], 0), int(pool.get("generation") or 0))
    found: dict[str, dict[str, Device]] = {}
    for one in slices:
        pool = one["pool"]
        if not (node := one.get("nodeName")) or int(pool.get("generation") or 0) < newest[pool["name"]]:
            continue
        for device in one.get("devices") or ():
            if _text(device, "type") == whole:
                kept = [taint["key"] for taint in device.get("taints") or () if taint.get("effect") in KEEPING]
                seen = Device(str(device["name"]), _text(device, "uuid"), ", ".join(kept))
                found.setdefault(str(node), {})[f"{pool['name']}/{device['name']}"] = seen
    return found


def _text(device: Mapping[str, Any], attribute: str) -> str:
    return str(((device.get("attributes") or {}).get(attribute) or {}).get("string", ""))
