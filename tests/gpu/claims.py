"""Objects of claims as the API has them: what the scheduler allocated, and what a driver offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.retire.objects import Object, meta, pod

DRIVER = "gpu.nvidia.com"


def claim(
    name: str, *devices: str, driver: str = DRIVER, pool: str = "te2", namespace: str = "default", **result: Any
) -> Object:
    """Return a claim that has these devices allocated; one without any waits for them."""
    results = [{"request": "gpu", "driver": driver, "pool": pool, "device": one, **result} for one in devices]
    status = {"allocation": {"devices": {"results": results}}} if devices else {}
    return {"kind": "ResourceClaim", "metadata": meta(name, namespace), "status": status}


def claiming(name: str, on: str, of: str, *, template: bool = False, **more: Any) -> Object:
    """Return a pod that has a claim, by its name or by one that was made for it from a template."""
    asked = {"name": "gpu", **({"resourceClaimTemplateName": "one"} if template else {"resourceClaimName": of})}
    made = pod(name, on, resourceClaims=[asked], **more)
    if template:
        made["status"]["resourceClaimStatuses"] = [{"name": "gpu", "resourceClaimName": of}]
    return made


def served(name: str, on: str, of: str, resource: str, where: str = "containers", **more: Any) -> Object:
    """Return a pod that asks for a resource, which the scheduler serves by a claim of its own making (since 1.36)."""
    made = pod(name, on, **more)
    container = {"name": "c", "resources": {"limits": {resource: "1"}}}
    made["spec"][where] = [container]
    mappings = [{"containerName": "c", "resourceName": resource, "requestName": "container-0-request-0"}]
    made["status"]["extendedResourceClaimStatus"] = {"resourceClaimName": of, "requestMappings": mappings}
    return made


def slice_of(
    node: str, devices: Sequence[Object], *, driver: str = DRIVER, generation: int = 1, slices: int = 1, name: str = ""
) -> Object:
    """Return what a driver offers on a node, one of so many slices of its pool."""
    pool = {"name": node, "generation": generation, "resourceSliceCount": slices}
    spec = {"driver": driver, "nodeName": node, "pool": pool, "devices": list(devices)}
    return {"kind": "ResourceSlice", "metadata": meta(name or f"{node}-{generation}"), "spec": spec}


def device(name: str, uuid: str = "", kind: str = "gpu", **more: Any) -> Object:
    """Return a device of a slice."""
    return {"name": name, "attributes": {"type": {"string": kind}, "uuid": {"string": uuid or f"GPU-{name}"}}, **more}
