"""Which GPUs of a node were proven since its device plugin's container started: an annotation of the node.

NVIDIA's plugin never calls a sick GPU healthy again, and one that is started anew calls every GPU healthy without a
look (k8s-device-plugin#111, #189, #234). So what a proof saw holds for the container that ran then, and as long as that
has called no further GPU unhealthy.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shipway.gpu.chosen import VENDOR
from shipway.gpu.plugin_pods import node_of_pod, plugin_logs, plugin_pods
from shipway.gpu.vendor import Vendor
from shipway.kube.client import Kube, Object
from shipway.kube.nodes import nodes_by_name

PROVEN = "shipway.dev/gpus-proven"


@dataclass(frozen=True, slots=True)
class Mark:
    """What a proof of a node's GPUs holds for: the plugin's container, and the last word of it on a sick GPU."""

    container: str
    sick: str = ""

    def holds(self, since: Mark) -> bool:
        """Say whether what was proven at this mark still holds at a later one; what a log has lost is nothing new."""
        return self.container == since.container and since.sick in ("", self.sick)


@dataclass(frozen=True, slots=True)
class Record:
    """The GPUs of a node that were proven at a mark, and when the last of them was."""

    mark: Mark
    devices: frozenset[str]
    at: str = ""


async def see_marks(on: Kube, nodes: Sequence[str], *, vendor: Vendor = VENDOR) -> dict[str, Mark]:
    """Return the mark of each of these nodes whose plugin runs. Raises the errors of the API."""
    running = {
        node_of_pod(pod): (pod, container)
        for pod in await plugin_pods(on, vendor=vendor)
        if (container := _container(pod)) and not pod["metadata"].get("deletionTimestamp")
    }
    there, word = [name for name in nodes if name in running], vendor.plugin.sick
    logs = await plugin_logs(on, [running[name][0] for name in there], vendor=vendor)
    return {
        name: Mark(running[name][1], _last(log, word) if word else "") for name, log in zip(there, logs, strict=True)
    }


def _container(pod: Object) -> str:
    """Return the container of a plugin's pod that runs; "" where none does."""
    entries = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((str(one.get("containerID", "")) for one in entries if (one.get("state") or {}).get("running")), "")


def _last(log: str, word: str) -> str:
    return next((line.strip() for line in reversed(log.splitlines()) if word in line), "")


def read_record(node: Mapping[str, Any]) -> Record | None:
    """Return what a node's annotation tells; None where it has none, or one that cannot be read."""
    try:
        data = json.loads((node["metadata"].get("annotations") or {})[PROVEN])
        mark = Mark(str(data["container"]), str(data["sick"]))
        return Record(mark, frozenset(map(str, data["devices"])), str(data["at"]))
    except (KeyError, ValueError, TypeError, RecursionError):
        return None


async def keep_proven(on: Kube, before: Mapping[str, Mark], seen: Mapping[str, Sequence[str]], *, passed: bool) -> None:
    """Write on each node which of its GPUs a proof has `seen` well, beside those of an earlier one that still holds.

    `before` are the marks from before the proof: what changed meanwhile is proven by nobody. A proof that did not pass
    leaves nothing of an earlier one. Raises the errors of the API.
    """
    on.forget()
    nodes, after = await asyncio.gather(nodes_by_name(on), see_marks(on, list(before)))
    for name, mark in before.items():
        if name not in nodes or not mark.holds(after.get(name, Mark(""))):
            continue
        record = read_record(nodes[name])
        earlier = record.devices if passed and record and record.mark.holds(mark) else frozenset[str]()
        devices = sorted(earlier | set(seen.get(name, ())))
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = json.dumps({"container": mark.container, "sick": mark.sick, "devices": devices, "at": at})
        await on.patch("v1", "Node", name, {"metadata": {"annotations": {PROVEN: text}}})
