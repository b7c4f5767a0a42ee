"""Who else offers a cluster's GPUs: an operator of the vendor's, or a driver of claims, which is left alone.

Two that offer the GPUs of one node each offer all of them. So where somebody else's does, or is about to, Shipway makes
none; counts, health and the proof work on what the other offers.
"""

from __future__ import annotations

from shipway.gpu.chosen import VENDOR
from shipway.gpu.vendor import Vendor
from shipway.kube.client import Kube, Object
from shipway.kube.errors import KindMissing

CLAIM_DRIVER = "a driver of claims"  # how one of somebody else's is told of


async def find_owner(on: Kube, vendor: Vendor = VENDOR) -> str:
    """Return who else offers the GPUs, and by what; "" where nobody does. Raises the errors of the API."""
    operator = vendor.operator
    if operator is None:
        return ""
    key, _, value = operator.plugin.partition("=")
    sets = await on.list_("apps/v1", "DaemonSet")
    others = [_title(one) for one in sets if (one["metadata"].get("labels") or {}).get(key) == value]
    if others:
        return f"the {operator.name}'s DaemonSet {others[0]}"
    if drivers := [_title(one) for one in sets if _lets_claim(one, vendor)]:
        return f"{CLAIM_DRIVER}, DaemonSet {drivers[0]}"
    try:
        policies = await on.list_(operator.api_version, operator.kind)
    except KindMissing:
        return ""
    told = [one for one in policies if ((one.get("spec") or {}).get(operator.part) or {}).get("enabled") is not False]
    return f"the {operator.name}'s {operator.kind} {told[0]['metadata']['name']}" if told else ""


def _title(one: Object) -> str:
    return f"{one['metadata']['namespace']}/{one['metadata']['name']}"


def _lets_claim(one: Object, vendor: Vendor) -> bool:
    """Say whether a DaemonSet of somebody else's is the driver by which pods claim GPUs."""
    if vendor.claims is None or _title(one) == f"{vendor.plugin.namespace}/{vendor.claims.daemon_set}":
        return False
    containers = one["spec"]["template"]["spec"].get("containers") or ()
    return any(
        vendor.claims.program in word for c in containers for word in (*c.get("command", ()), *c.get("args", ()))
    )
