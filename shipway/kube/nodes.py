"""The nodes of a cluster by name, and many of anything in few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shipway.kube.client import Kube, Object

SHOWN = 6
# The taints that go with a node's Ready condition, and with its cordon.
UNREADY = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
TOLD = (*UNREADY, "node.kubernetes.io/unschedulable")


async def nodes_by_name(on: Kube) -> dict[str, Object]:
    """Return all nodes of the cluster; one request per look, however many checks ask."""
    return {node["metadata"]["name"]: node for node in await on.list_("v1", "Node")}


def taints_of(node: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a node's taints."""
    return list((node.get("spec") or {}).get("taints") or ())


def few(parts: Sequence[str]) -> str:
    """Return the first parts as one text, and how many more there are."""
    more = f"; and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    return "; ".join(parts[:SHOWN]) + more
