"""Which GPUs of a node had bad figures when they were last measured: an annotation of the node.

What was bad stays written until that very figure of that GPU was good: one that could not be judged, or was not
measured, takes nothing back (NVIDIA/aicr#1337).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from shipway.foreign.numbers import whole
from shipway.gpu.figures.judge import Row
from shipway.kube.client import Kube
from shipway.kube.nodes import nodes_by_name

BAD = "shipway.dev/gpu-figures-bad"
ANSWER = "answer"
Bad = dict[str, dict[str, str]]  # by UUID, or by who it is where that is not known: what was said of each figure


def read_bad(node: Mapping[str, Any]) -> dict[str, str]:
    """Return what was bad, by UUID, or by who it is where that is not known ("GPU 3", "its GPUs together").

    Nothing of a node that has no such annotation, or one that cannot be read.
    """
    return {key: "; ".join(figures.values()) for key, figures in _read(node).items()}


def _read(node: Mapping[str, Any]) -> Bad:
    """Return what was bad by figure; "" is the figure of what an earlier version wrote, which named none."""
    try:
        data = json.loads((node["metadata"].get("annotations") or {})[BAD])
        said = {str(key): one if isinstance(one, dict) else {"": one} for key, one in data.items()}
        return {key: {str(figure): str(why) for figure, why in one.items()} for key, one in said.items()}
    except (KeyError, ValueError, AttributeError, RecursionError):
        return {}


def find_bad(rows: Sequence[Row]) -> Bad:
    """Return what is bad of these GPUs themselves: what a container or a host holds back is not theirs."""
    found: Bad = {}
    for row in rows:
        if row.word == "bad" and row.figure != "pod against host":
            found.setdefault(row.uuid or row.who, {})[row.figure] = row.said
    return found


def find_left(before: Bad, rows: Sequence[Row], count: int) -> Bad:
    """Return what of an earlier measurement these rows do not take back; `count` is how many GPUs the node has.

    A GPU that is not among as many as there are was taken out.
    """
    measured = {row.uuid for row in rows if row.uuid}
    silent = {row.who for row in rows if row.figure == ANSWER}
    good = {(row.uuid or row.who, row.figure) for row in rows if row.word == "good"}
    bad = find_bad(rows)

    def is_mended(key: str, figure: str) -> bool:
        if key.startswith("GPU-") and key not in measured:
            return bool(measured) and not silent and len(measured) >= count
        if figure == ANSWER:  # by its number, from 0 on: it is silent, or one of those that told something
            number = whole(key.removeprefix("GPU "))
            return bool(measured) and key not in silent and number is not None and number < len(measured | silent)
        if not figure:
            return key not in bad and any(of == key for of, _ in good)
        return (key, figure) in good

    left = {key: {f: why for f, why in said.items() if not is_mended(key, f)} for key, said in before.items()}
    return {key: said for key, said in left.items() if said}


def _count(node: Mapping[str, Any]) -> int:
    """Return how many GPUs a plugin says that a node has; 0 where they are claimed."""
    capacity = (node.get("status") or {}).get("capacity") or {}
    return max((whole(str(said)) or 0 for name, said in capacity.items() if name.endswith("/gpu")), default=0)


async def keep_bad(on: Kube, measured: Mapping[str, Sequence[Row]]) -> None:
    """Write on each node which of its GPUs had bad figures, and what of an earlier measurement still stands.

    Raises the errors of the API.
    """
    on.forget()
    nodes = await nodes_by_name(on)
    for name, rows in measured.items():
        if name not in nodes:
            continue
        before = _read(nodes[name])
        bad = find_left(before, rows, _count(nodes[name]))
        for key, said in find_bad(rows).items():
            bad[key] = bad.get(key, {}) | said
        if bad != before:
            note = json.dumps(bad) if bad else None
            await on.patch("v1", "Node", name, {"metadata": {"annotations": {BAD: note}}})
