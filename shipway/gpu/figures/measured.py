"""When each GPU of a node last did well while all of them were measured at work: an annotation of the node."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from shipway.gpu.figures.judge import Row
from shipway.gpu.figures.mark import keep_bad
from shipway.gpu.figures.model import UNITS, Heard
from shipway.kube.client import Kube
from shipway.kube.nodes import nodes_by_name

MEASURED = "shipway.dev/gpus-measured"
LOAD = ("checksum", *UNITS)  # figures of a GPU that worked: its bits are right, or a rate is what it should be


def read_measured(node: Mapping[str, Any]) -> dict[str, float]:
    """Return by UUID when the load began, in seconds since 1970 by the host's clock; nothing of an odd annotation."""
    try:
        data = json.loads((node["metadata"].get("annotations") or {})[MEASURED])
        return {str(uuid): float(at) for uuid, at in data.items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def find_measured(heard: Sequence[Heard], rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return by node when the load began on each GPU that did well in a pod: one figure of its work good, and none bad.

    Where what its GPUs did together is bad, none of a node did well. Of a node that was not measured (its GPUs
    are busy, its pod did not run) nothing is said.
    """
    bad = {(row.host, row.uuid) for row in rows if row.word == "bad"}
    good = {row.uuid for row in rows if row.word == "good" and row.figure in LOAD}
    return {
        one.host: {
            gpu.uuid: gpu.began
            for gpu in one.gpus
            if gpu.began is not None and gpu.uuid in good and not {(one.host, gpu.uuid), (one.host, "")} & bad
        }
        for one in heard
        if one.where == "pod" and (one.gpus or not all(silent.missing for silent in one.silent))
    }


async def keep_measured(on: Kube, measured: Mapping[str, Mapping[str, float]]) -> None:
    """Write on each node when its GPUs did well, in place of what stood there; raises the errors of the API."""
    on.forget()
    nodes = await nodes_by_name(on)
    for name, found in measured.items():
        if name in nodes and found != read_measured(nodes[name]):
            note = json.dumps(found) if found else None
            await on.patch("v1", "Node", name, {"metadata": {"annotations": {MEASURED: note}}})


async def keep_verdicts(on: Kube, heard: Sequence[Heard], rows: Sequence[Row]) -> None:
    """Write on each node that was measured in a pod which of its GPUs had bad figures, and when which did well.

    Raises the errors of the API.
    """
    measured = [one.host for one in heard if one.where == "pod"]
    await keep_bad(on, {host: [row for row in rows if row.host == host] for host in measured})
    await keep_measured(on, find_measured(heard, rows))
