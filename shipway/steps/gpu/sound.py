"""The steps about sick GPUs: they are told of, their node is kept from new pods, and opened again by a proof."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import ClassVar

from shipway.cluster.model import Cluster
from shipway.errors import Blocked, PostconditionFailed
from shipway.gpu.chosen import VENDOR
from shipway.gpu.evidence import count_taken
from shipway.gpu.figures.history import History
from shipway.gpu.figures.judge import judge
from shipway.gpu.figures.mark import read_bad
from shipway.gpu.figures.measured import LOAD, keep_verdicts, read_measured
from shipway.gpu.health.model import ADVICE, UNFIT, Fault, GpuHealth, sick
from shipway.gpu.health.quarantine import (
    EFFECT,
    NOTE,
    TAINT,
    find_again,
    mark,
    most_quarantined,
    read_quarantine,
    tell_kept,
    unmark,
)
from shipway.gpu.measuring import measure_node
from shipway.gpu.proof import Proof
from shipway.gpu.proven import read_record
from shipway.kube.client import Kube, Object
from shipway.kube.nodes import nodes_by_name
from shipway.step import Drift, Impact
from shipway.steps.gpu.plugin_mode import proven_as
from shipway.steps.gpu.proven import prove_alone
from shipway.steps.kubernetes.nodes import node_of

SHOWN = 4
MEASURE_SECONDS = 600.0  # an image of gigabytes, then a minute or two; where it takes longer the next pass goes on
CLOCKS = 60.0  # seconds by which clocks that are set right may still differ


def since_proof(gpus: Sequence[GpuHealth], node: Object | None) -> list[GpuHealth]:
    """Return the GPUs of a node without what the kernel said of one before it did well at work; what is so now stays.

    What asks for no reset is outweighed by the last proof that it passed as well: being held by a pod for a moment
    shows nothing of a memory that fails under load. Times that are to come, by the host's clock, outweigh nothing.
    """
    if node is None:
        return list(gpus)
    measured, record = read_measured(node), read_record(node)
    try:
        proven = datetime.fromisoformat(record.at).timestamp() if record else 0.0
    except ValueError:
        proven = 0.0
    devices = record.devices if record else frozenset[str]()

    def left(one: GpuHealth) -> tuple[Fault, ...]:
        now = time.time() + one.ahead + CLOCKS
        worked, held = measured.get(one.uuid, 0.0), (proven + one.ahead) * (one.uuid in devices)
        worked, held = (at if at < now else 0.0 for at in (worked, held))
        return tuple(
            fault
            for fault in one.faults
            if fault.at is None or fault.at > (worked if fault.answer in UNFIT else max(worked, held))
        )

    return [replace(one, faults=left(one)) for one in gpus]


def unfit(gpus: Sequence[GpuHealth], node: Object) -> list[GpuHealth]:
    """Return the GPUs of a node on which pods fail, now or soon, the gravest first."""
    return [one for one in sick(since_proof(gpus, node)) if one.answer in UNFIT]


def find_new(gpus: Sequence[GpuHealth], before: Sequence[GpuHealth], began: float) -> dict[str, str]:
    """Return by GPU what is wrong since a load began (seconds since 1970, by the host's clock), or could not be told.

    What only asks for a closer look and was so before is nothing new.
    """
    known = {(one.uuid, fault.row, fault.said) for one in before for fault in one.faults}
    found: dict[str, str] = {}
    for one in gpus:
        new = [
            str(fault)
            for fault in one.faults
            if fault.answer != "application"
            and (fault.at > began if fault.at is not None else True)
            and (fault.answer in UNFIT or (one.uuid, fault.row, fault.said) not in known)
        ]
        if new or one.unseen:
            found[one.title] = "; ".join([*new, *one.unseen])
    return found


def tell(ill: Sequence[GpuHealth]) -> str:
    """Return the sick GPUs in a line: who, and why."""
    more = f"; and {len(ill) - SHOWN} more" if len(ill) > SHOWN else ""
    return "; ".join(f"{one.title}: {one.why}" for one in ill[:SHOWN]) + more


@dataclass(frozen=True)
class GpusSound:
    """No GPU of a node is sick: the application's faults are none, and a proof outweighs what was said before it."""

    node: str
    gpus: Sequence[GpuHealth] = field(hash=False, repr=False)
    name: str = "each GPU is sound"

    async def check(self, on: Kube) -> Drift | None:
        """Judge what was seen on the host by what was proven since."""
        node = (await nodes_by_name(on)).get(self.node)
        ill = sick(since_proof(self.gpus, node))
        answers = dict.fromkeys(one.answer for one in ill if one.answer)
        return Drift(tell(ill), f"no fault: {'; '.join(ADVICE[answer] for answer in answers)}") if ill else None


@dataclass(frozen=True)
class UnfitKeptFromPods:
    """No new pod comes to a node with a GPU that must be reset, restarted with its host, or replaced.

    `keep` writes the evidence down and returns its name.
    """

    impact: ClassVar[Impact] = Impact.FILES  # pods that run are left alone
    node: str
    gpus: Sequence[GpuHealth] = field(hash=False, repr=False)
    keep: Callable[[], str] = field(hash=False, repr=False)
    name: str = "no new pod comes to a node with an unfit GPU"

    async def check(self, on: Kube) -> Drift | None:
        """Compare what was seen on the host with the node's taint."""
        node = await node_of(on, self.node)
        ill = unfit(self.gpus, node)
        if not ill or tell_kept(node):
            return None
        return Drift(f"open, with {tell(ill)}", f"taint {TAINT}")

    async def apply(self, on: Kube) -> None:
        """Taint the node; raises Blocked SHW-620 where as many GPU nodes are kept from pods as may be at once."""
        on.forget()
        nodes = await nodes_by_name(on)
        node = await node_of(on, self.node)
        with_gpus = {name for name, one in nodes.items() if VENDOR.label in (one["metadata"].get("labels") or {})}
        away = sorted(name for name in with_gpus - {self.node} if read_quarantine(nodes[name]))
        most = most_quarantined(len(with_gpus | {self.node}))
        if len(away) >= most:
            raise Blocked(
                f"{', '.join(away)} of {len(with_gpus | {self.node})} GPU nodes are kept from pods already, and no "
                f"more than {most} may be at once",
                code="SHW-620",
                fix="Look for what they have in common (driver, switch, room) before the GPUs; prove or replace those "
                "that are kept away, or cordon this node yourself.",
            )
        if ill := unfit(self.gpus, node):
            await on.patch("v1", "Node", self.node, mark(node, ill, tell(ill), self.keep()))


@dataclass(frozen=True)
class ReleasedByProof:
    """A node that we keep from pods, whose GPUs tell of no fault any more, is proven under load and opened again.

    Only the marks that are ours go: another taint, or a cordon, stays as it is. What a GPU says of itself without load
    is too good to be believed (NVSentinel#695): every GPU of the node is held by a pod first, then all are measured
    together, and the very GPUs that the node is kept away for must do well. Where nothing measures them, the sample of
    `gpu.compute` must have run on each; where that is off as well, no pass opens the node. Then the host is looked at
    again (`again`): what went wrong under that very load keeps the node away. `recall` gives what GPUs reached before.
    """

    impact: ClassVar[Impact] = Impact.START
    node: str
    gpus: Sequence[GpuHealth] = field(hash=False, repr=False)
    cluster: Cluster = field(hash=False, repr=False)
    expected: int
    again: Callable[[], Awaitable[Sequence[GpuHealth]]] = field(hash=False, repr=False)
    recall: Callable[[], History] = field(default=dict, hash=False, repr=False)
    name: str = "a node that is kept from pods has an unfit GPU"

    async def check(self, on: Kube) -> Drift | None:
        """Tell of each node that is kept from pods, and what keeps it so beside the lack of a proof."""
        node = (await nodes_by_name(on)).get(self.node)
        if node is None or read_quarantine(node) is None:
            return None
        why = self._keeps(node)
        have = tell_kept(node) if why else f"{tell_kept(node)}; no fault now"
        return Drift.held(have, "every GPU proven under load, then open to pods", why)

    async def hold(self, on: Kube) -> str:
        """Return why it may not be proven now: a fault that is there, or what could tell of one and was not read."""
        return self._keeps(await node_of(on, self.node))

    def _keeps(self, node: Object) -> str:
        if not self.expected:
            hand = f"`kubectl taint node {self.node} {TAINT}:{EFFECT}- ; kubectl annotate node {self.node} {NOTE}-`"
            return f"no pod gets its GPUs, so none can prove them; by hand: {hand}"
        if not self.gpus:
            return "nothing is known of its GPUs"
        if ill := unfit(self.gpus, node):
            return tell(ill)
        return "; ".join(f"{one.title}: {', '.join(one.unseen)}" for one in self.gpus if one.unseen)

    async def apply(self, on: Kube) -> None:
        """Prove every GPU of this node alone, then take our marks away.

        Raises Blocked SHW-621 while pods hold some, SHW-638 where one had bad figures when it was last measured,
        SHW-639 where one that it is kept away for is not there, SHW-622 where nothing puts them under load, SHW-641
        where one told of a fault under that load; and what keeps from looking at the host.
        """
        node = await node_of(on, self.node)
        _refuse_bad(read_bad(node))
        kept = read_quarantine(node)
        if kept is None:
            return
        named, lost = find_again(kept, self.gpus)
        if lost:
            raise Blocked(
                f"it is kept away for {', '.join(lost)}, which is not there any more, and no other GPU is in its slot",
                code="SHW-639",
                fix="Have the GPU put in, or replaced: the next pass proves it. To do without it take the mark away: "
                f"`kubectl taint node {self.node} {TAINT}:{EFFECT}- ; kubectl annotate node {self.node} {NOTE}-`.",
            )
        taken = await count_taken(on, {self.node: self.expected}, node=self.node)
        if any(taken.values()):
            raise Blocked(
                f"pods hold {sum(taken.values())} of its {self.expected} GPUs, and all of them are to be proven",
                code="SHW-621",
                fix="Wait for their end, or drain the node; the next pass proves it.",
            )
        began = time.time() + max((one.ahead for one in self.gpus), default=0.0)
        proof = await prove_alone(on, self.cluster, {self.node: self.expected})
        wholes = set(proof.devices.values()) <= {one.uuid for one in self.gpus}  # a part of a GPU has a UUID of its own
        missing = sorted(named - set(proof.devices.values())) if wholes else []
        if proof.outcome != "ok" or proof.verified < self.expected or missing:
            told = f"{proof.outcome}, without {', '.join(missing)}" if missing else proof.outcome
            raise PostconditionFailed(
                f"{proof.verified} of {self.expected} GPUs were proven ({told}), so it stays kept from pods",
                fix=f"See `kubectl describe node {self.node}`; the next pass tries again.",
            )
        why = await self._not_measured(on, proof, named)
        if why and proof.compute != "passed":
            raise Blocked(
                f"nothing puts its GPUs under load: gpu.compute is off, and they are not measured ({why})",
                code="SHW-622",
                fix="Set `gpu.compute: required`, or a `gpu.figures.image` that its GPUs can be measured with.",
            )
        if new := find_new(await self.again(), self.gpus, began):
            raise Blocked(
                f"its GPUs did well at work, and then: {'; '.join(f'{who}: {what}' for who, what in new.items())}",
                code="SHW-641",
                fix="Do what the fault asks for, as a pass tells it; the next one proves the node anew.",
            )
        on.forget()
        node = await node_of(on, self.node)
        if read_quarantine(node) is not None:
            await on.patch("v1", "Node", self.node, unmark(node))

    async def _not_measured(self, on: Kube, proof: Proof, named: set[str]) -> str:
        """Measure the GPUs; return why these are not measured, "" where they are and do well.

        Raises Blocked SHW-638 where a figure of the node is bad: that is written on it then.
        """
        if VENDOR.figures is None or proof.shared:
            return "; ".join(proof.shared.values()) or f"nothing measures GPUs of {VENDOR.name}"
        cluster, _ = await proven_as(on, self.cluster)
        heard = await measure_node(on, cluster, self.node, self.expected, seconds=MEASURE_SECONDS)
        rows = judge([heard], self.recall(), self.cluster.gpu.figures.least)
        await keep_verdicts(on, [heard], rows)
        _refuse_bad({row.uuid or row.who: row.said for row in rows if row.word == "bad"})
        good = {row.uuid for row in rows if row.word == "good" and row.figure in LOAD}
        wanted = named or {one.uuid for one in self.gpus if one.uuid}
        if wanted <= good:
            return ""
        told = [row.why for row in rows if row.word == "not judged" and row.figure in ("answer", *LOAD) and row.why]
        return told[0] if told else f"nothing was told of {', '.join(sorted(wanted - good))}"


def _refuse_bad(bad: Mapping[str, str]) -> None:
    if bad:
        raise Blocked(
            f"figures were bad when its GPUs were last measured: {'; '.join(f'{k}: {v}' for k, v in bad.items())}",
            code="SHW-638",
            fix="Mend or replace the GPU, then `shipway verify FILE --level full`; the next pass opens the node.",
        )
