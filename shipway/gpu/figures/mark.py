"""Which GPUs of a node had bad figures when they were last measured: an annotation of the node."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from shipway.gpu.figures.judge import Row
from shipway.kube.client import Kube
from shipway.kube.nodes import nodes_by_name

BAD = "shipway.dev/gpu-figures-bad"


def read_bad(node: Mapping[str, Any]) -> dict[str, str]:
    """Return by UUID what was bad; nothing of a node that has no such annotation, or one that cannot be read."""
    try:
        data = json.loads((node["metadata"].get("annotations") or {})[BAD])
        return {str(uuid): str(why) for uuid, why in data.items()}
    except (KeyError, ValueError, AttributeError, RecursionError):
        return {}


def find_bad(rows: Sequence[Row]) -> dict[str, str]:
    """Return by UUID what is bad of these GPUs themselves: what a container or a host holds back is not theirs."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.uuid and row.word == "bad" and row.figure != "pod against host":
            found.setdefault(row.uuid, []).append(row.said)
    return {uuid: "; ".join(said) for uuid, said in found.items()}


async def keep_bad(on: Kube, measured: Mapping[str, Sequence[Row]]) -> None:
    """Write on each node that was measured which of its GPUs had bad figures; raises the errors of the API."""
    on.forget()
    nodes = await nodes_by_name(on)
    for name, rows in measured.items():
        bad = find_bad(rows)
        if name in nodes and bad != read_bad(nodes[name]):
            note = json.dumps(bad) if bad else None
            await on.patch("v1", "Node", name, {"metadata": {"annotations": {BAD: note}}})
