"""The mark by which Shipway keeps new pods off a node with an unfit GPU: a taint, and an annotation that says why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from shipway.gpu.health.model import GpuHealth
from shipway.kube.nodes import taints_of

TAINT = "shipway.dev/gpu-quarantine"
EFFECT = "NoSchedule"  # pods that run go on
AWAY = (EFFECT, "NoExecute")
NOTE = "shipway.dev/gpu-quarantined"
SHARE = 4  # of the GPU nodes at most one in so many is kept from pods, and one at least


@dataclass(frozen=True, slots=True)
class Quarantined:
    """What is written on a node that Shipway keeps from pods: since when, why, which GPUs, the evidence's name.

    `gpus` are UUIDs, or a slot where only that was known; `slots` where each of them sat, "" of a switch.
    """

    since: str
    why: str
    gpus: tuple[str, ...] = ()
    evidence: str = ""
    slots: tuple[str, ...] = ()


def read_quarantine(node: Mapping[str, Any]) -> Quarantined | None:
    """Return our mark of a node; None where it has none.

    A taint of that key without a note of ours, or with another effect, is not ours.
    """
    if not any(map(_is_ours, taints_of(node))):
        return None
    try:
        data = json.loads((node["metadata"].get("annotations") or {})[NOTE])
        gpus = tuple(str(one) for one in data["gpus"])
        slots = tuple(str(one) for one in data.get("slots", ()))
        return Quarantined(str(data["since"]), str(data["why"]), gpus, str(data["evidence"]), slots)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def find_again(kept: Quarantined, gpus: Sequence[GpuHealth]) -> tuple[set[str], list[str]]:
    """Return the UUIDs of the GPUs that a node was marked for, as it has them now, and those that it has no more.

    One that is gone counts as replaced where another one is in its slot.
    """
    there, by_slot = {gpu.uuid for gpu in gpus if gpu.uuid}, {gpu.slot: gpu.uuid for gpu in gpus if gpu.uuid}
    slots = (*kept.slots, *("",) * len(kept.gpus))
    found, lost = set[str](), list[str]()
    for named, slot in zip(kept.gpus, slots, strict=False):
        if named in there:
            found.add(named)
        elif slot in by_slot:
            found.add(by_slot[slot])
        elif slot or named.startswith("GPU-"):
            lost.append(f"{named} in {slot}" if slot and slot != named else named)
    return found, lost


def most_quarantined(nodes: int) -> int:
    """Return how many of so many GPU nodes may be kept from pods at once: a quarter, and one at least.

    A fault that all nodes show at once is more often that of a driver, or of whoever judges, than of the GPUs.
    """
    return max(1, nodes // SHARE)


def mark(node: Mapping[str, Any], unfit: Sequence[GpuHealth], why: str, evidence: str) -> dict[str, Any]:
    """Return the change of a node that marks it, only if nobody wrote it since it was read; other taints stay."""
    note = Quarantined(
        datetime.now(UTC).isoformat(timespec="seconds"),
        why,
        tuple(one.uuid or one.slot for one in unfit),
        evidence,
        tuple(one.slot if one.uuid or not one.product else "" for one in unfit),  # a switch has a product, and no UUID
    )
    taint = {"key": TAINT, "value": unfit[0].answer or "", "effect": EFFECT}
    return _change(node, [*_others(node), taint], json.dumps(asdict(note)))


def unmark(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the change of a node that takes our mark away, and nothing else."""
    return _change(node, _others(node), None)


def _change(node: Mapping[str, Any], taints: list[dict[str, str]], note: str | None) -> dict[str, Any]:
    meta = {"annotations": {NOTE: note}, "resourceVersion": node["metadata"]["resourceVersion"]}
    return {"metadata": meta, "spec": {"taints": taints}}


def _others(node: Mapping[str, Any]) -> list[dict[str, str]]:
    return [taint for taint in taints_of(node) if not _is_ours(taint)]


def _is_ours(taint: Mapping[str, Any]) -> bool:
    return bool(taint.get("key") == TAINT and taint.get("effect") == EFFECT)


def list_strange(node: Mapping[str, Any]) -> list[str]:
    """Return the taints of our key that somebody else set: another effect beside ours, or one without our note."""
    ours = read_quarantine(node) is not None
    taints = [taint for taint in taints_of(node) if taint.get("key") == TAINT and not (ours and _is_ours(taint))]
    return [f"{TAINT}:{taint.get('effect')}" for taint in taints]


def tell_kept(node: Mapping[str, Any]) -> str:
    """Return why no workload comes to a node whose GPUs a proof reaches all the same; "" where none is kept away so."""
    kept = read_quarantine(node)
    if kept is not None:
        return f"kept from pods since {kept.since} ({kept.why})"
    away = any(taint.get("key") == TAINT and taint.get("effect") in AWAY for taint in taints_of(node))
    return f"kept from pods by a taint {TAINT} that has no note of Shipway's" if away else ""
