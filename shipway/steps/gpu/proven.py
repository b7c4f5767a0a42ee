"""The steps about GPUs that count only once they are proven anew: their plugin was started, or called one sick."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from shipway.cluster.model import Cluster
from shipway.errors import Blocked
from shipway.gpu.counts import find_lacking
from shipway.gpu.evidence import count_taken, find_barrier
from shipway.gpu.offers import see_offers
from shipway.gpu.proof import Proof, prove
from shipway.gpu.proven import Mark, read_record, see_marks
from shipway.kube.client import Kube, Object
from shipway.kube.nodes import few, nodes_by_name
from shipway.kube.status import why_not_ready
from shipway.step import Drift, Impact
from shipway.steps.gpu.class_held import find_held
from shipway.steps.gpu.plugin_mode import proven_as

WANT = "every GPU proven since its plugin started"


async def find_unproven(on: Kube, expected: Mapping[str, int]) -> dict[str, str]:
    """Return by node why its GPUs do not count as proven; nothing of a node that no proof has written on.

    Raises the errors of the API.
    """
    nodes = await nodes_by_name(on)
    records = {name: record for name in expected if (record := read_record(nodes.get(name) or {"metadata": {}}))}
    if not records:
        return {}
    marks, offers = await asyncio.gather(
        see_marks(on, list(records)), see_offers(on, {name: expected[name] for name in records})
    )
    found: dict[str, str] = {}
    for name, record in records.items():
        mark, count = marks.get(name, Mark("")), offers[name].wanted(expected[name]) // offers[name].replicas
        proven = len(record.devices) if record.mark.holds(mark) else 0
        if proven < count:
            since = f"since {_event(record.mark, mark)} (the last proof was at {record.at})"
            found[name] = f"{name}: {proven} of {count} GPUs proven {since}"
    return found


def _event(then: Mark, now: Mark) -> str:
    """Return what happened last to a plugin that ended what was proven before it."""
    if now.container != then.container:
        return "its plugin was started anew" if now.container else "its plugin ended"
    return "its plugin started" if then.holds(now) else "its plugin called one unhealthy"


async def _sort_out(on: Kube, expected: Mapping[str, int]) -> tuple[dict[str, str], dict[str, str]]:
    """Return by node why its GPUs are not proven: of those that can be now, and of others with what keeps from it."""
    unproven = await find_unproven(on, expected)
    if not unproven:
        return {}, {}
    left = {name: expected[name] for name in unproven}
    taken, nodes, lacking = await asyncio.gather(count_taken(on, left), nodes_by_name(on), find_lacking(on, left))
    kept = {name: _keeps(nodes[name], taken.get(name, 0)) or lacking.get(name, "") for name in unproven}
    free = {name: why for name, why in unproven.items() if not kept[name]}
    return free, {name: f"{why}; {kept[name]}" for name, why in unproven.items() if kept[name]}


def _keeps(node: Object, taken: int) -> str:
    """Return what keeps the test pods from all GPUs of a node; "" where nothing does."""
    if taken:
        return f"pods hold {taken} of them"
    return find_barrier(node) or why_not_ready(node)


async def prove_alone(on: Kube, cluster: Cluster, expected: Mapping[str, int]) -> Proof:
    """Prove the GPUs of these nodes, with test pods on no other node; raises what the proof found."""
    others = sorted(set(await nodes_by_name(on)) - set(expected))
    held = await find_held(on, cluster)
    as_offered, _ = await proven_as(on, cluster)
    proof = await prove(on, as_offered, expected, {}, avoid=others, settle=False, held=held)
    if proof.error is not None:
        raise proof.error
    return proof


@dataclass(frozen=True)
class GpusProvenAnew:
    """No GPU counts that its plugin only calls healthy: on nodes where all are free, the proof is run.

    It takes them for some seconds, and disturbs nobody.
    """

    traps: ClassVar[tuple[int, ...]] = (23, 30)
    impact: ClassVar[Impact] = Impact.START
    cluster: Cluster = field(hash=False, repr=False)
    expected: Mapping[str, int] = field(hash=False)
    name: str = "free GPUs were proven since their device plugin started"

    async def check(self, on: Kube) -> Drift | None:
        """Compare what is written on the nodes with their plugins."""
        free, _ = await _sort_out(on, self.expected)
        return Drift(few(list(free.values())), WANT) if free else None

    async def apply(self, on: Kube) -> None:
        """Run the proof on these nodes; raises what it found."""
        free, _ = await _sort_out(on, self.expected)
        proof = await prove_alone(
            on, self.cluster, {name: self.expected[name] for name in self.expected if name in free}
        )
        if proof.outcome != "ok":
            raise Blocked(f"they could not be proven: {proof.outcome}")


@dataclass(frozen=True)
class GpusProvenLater:
    """No GPU counts that its plugin only calls healthy: one that is at work, or not offered, is told of until it is."""

    traps: ClassVar[tuple[int, ...]] = (23, 30)
    expected: Mapping[str, int] = field(hash=False)
    name: str = "no GPU waits for a proof that cannot be run now"

    async def check(self, on: Kube) -> Drift | None:
        """Compare what is written on the nodes with their plugins."""
        _, kept = await _sort_out(on, self.expected)
        return (
            Drift(few(list(kept.values())), f"{WANT} (`shipway verify` proves those that are free)") if kept else None
        )
