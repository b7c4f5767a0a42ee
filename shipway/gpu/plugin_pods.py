"""The pods of a vendor's device plugin and what they have logged: asked for in one way by all who read them.

Reads of the same words within a look are one exchange (shipway.kube.reads): whoever lists other pods, or asks for
another number of lines, would cost one more for each node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shipway.gpu.chosen import VENDOR
from shipway.gpu.vendor import Vendor
from shipway.kube.client import Kube, Object


async def plugin_pods(on: Kube, *, vendor: Vendor = VENDOR) -> list[Object]:
    """Return all pods of the device plugin, of whatever class of GPUs. Raises the errors of the API."""
    found: list[Object] = await on.list_("v1", "Pod", vendor.plugin.namespace, labels=vendor.plugin.selector)
    return found


def node_of_pod(pod: Object) -> str:
    """Return the node that a pod is on; "" where it is on none yet."""
    return str((pod.get("spec") or {}).get("nodeName") or "")


async def plugin_logs(on: Kube, pods: Sequence[Object], *, vendor: Vendor = VENDOR) -> list[str]:
    """Return what each of these pods has logged, all asked for at once. Raises the errors of the API."""
    return await asyncio.gather(*(plugin_log(on, pod, vendor=vendor) for pod in pods))


async def plugin_log(on: Kube, pod: Object, *, vendor: Vendor = VENDOR) -> str:
    """Return what a pod of the plugin has logged. Raises the errors of the API."""
    return await on.logs(vendor.plugin.namespace, pod["metadata"]["name"])
