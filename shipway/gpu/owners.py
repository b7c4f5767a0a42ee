"""Who else offers a cluster's GPUs: an operator of the vendor's with a device plugin of its own, which is left alone.

Two plugins on one node each offer all of its GPUs. So where an operator has one, or is about to have one, Shipway makes
none; counts, health and the proof work on what the other offers.
"""

from __future__ import annotations

from shipway.gpu.chosen import VENDOR
from shipway.gpu.vendor import Vendor
from shipway.kube.client import Kube
from shipway.kube.errors import KindMissing


async def find_owner(on: Kube, vendor: Vendor = VENDOR) -> str:
    """Return which operator offers the GPUs, and by what; "" where none does. Raises the errors of the API."""
    operator = vendor.operator
    if operator is None:
        return ""
    sets = await on.list_("apps/v1", "DaemonSet", labels=operator.plugin)
    others = [f"{one['metadata']['namespace']}/{one['metadata']['name']}" for one in sets]
    if others:
        return f"the {operator.name}'s DaemonSet {others[0]}"
    try:
        policies = await on.list_(operator.api_version, operator.kind)
    except KindMissing:
        return ""
    told = [one for one in policies if ((one.get("spec") or {}).get(operator.part) or {}).get("enabled") is not False]
    return f"the {operator.name}'s {operator.kind} {told[0]['metadata']['name']}" if told else ""
