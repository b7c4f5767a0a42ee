"""The GPU proof: as many pods as cards run at once, each with a card of its own, and one more finds none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from shipway.cluster import Cluster
from shipway.converge import wait_until
from shipway.errors import PostconditionFailed, Refused, ShipwayError
from shipway.gpu_proof_evidence import collect, mismatches, see_nodes, taken_by_others
from shipway.gpu_proof_links import Link, broken_link
from shipway.gpu_proof_pods import (
    EXTRA,
    NAMESPACE,
    AllRun,
    AllSpoke,
    ExtraWaits,
    NoPods,
    PodsGone,
    Said,
    same_cards,
    test_pod,
)
from shipway.gpu_proof_seen import Evidence, HostGpuFacts, NodeSeen
from shipway.kube import Kube
from shipway.manifests import render

__all__ = ["HostGpuFacts", "Proof", "prove"]

LOOK_SECONDS = 1.0
EXTRA_SECONDS = 60.0  # the scheduler speaks within a second or two; a busy one may take longer
CLEAR_SECONDS = 120.0
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Proof:
    """How the proof ended. `verified` counts cards that a pod held while all others were held too.

    `devices` maps pod to card; `compute` is "not run" where gpu.compute is off; `notes` are for the report; on
    failure `error` names the broken `link`, and the pods and `evidence` are kept.
    """

    outcome: Literal["ok", "failed", "no cards declared"]
    expected: int
    allocatable: int = 0
    verified: int = 0
    devices: Mapping[str, str] = field(default_factory=dict)
    compute: Literal["passed", "failed", "not run"] = "not run"
    notes: tuple[str, ...] = ()
    link: Link | None = None
    error: ShipwayError | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Give the part `gpus` of the report as plain data."""
        return {
            "outcome": self.outcome,
            "expected": self.expected,
            "allocatable": self.allocatable,
            "verified": self.verified,
            "devices": sorted(self.devices.values()),
            "compute": self.compute,
            "notes": list(self.notes),
            "link": asdict(self.link) if self.link else None,
            "evidence": dict(self.evidence),
        }


async def prove(
    kube: Kube,
    cluster: Cluster,
    expected: Mapping[str, int],
    seen: Mapping[str, HostGpuFacts],
    told: Told = lambda _: None,
) -> Proof:
    """Prove that every expected card can be scheduled and used; never raises a ShipwayError, it is in the proof.

    `expected` gives cards by node, `seen` what SSH showed of the hosts, `told` hears what is waited for. Everything it
    made is deleted when all is well, and kept as evidence when not. Pods of others are left alone: cards they hold
    are not proven, and a note says so.
    """
    wanted = {name: count for name, count in expected.items() if count}
    if not wanted:
        return _nothing(cluster)
    return await _Proving(kube, cluster, wanted, seen, told).run()


def _nothing(cluster: Cluster) -> Proof:
    """Give the proof of no cards: right where the cluster file says so of every host, else a failure."""
    if all(host.gpus == 0 for host in cluster.hosts):
        return Proof("no cards declared", 0, notes=("every host declares gpus: 0, so there is nothing to prove",))
    fix = "Look at `lspci -d 10de:` on the hosts; declare `gpus: 0` for every host of a cluster without cards."
    error = PostconditionFailed("no card was found on any host: there is nothing to prove", code="SHW-601", fix=fix)
    return Proof("failed", 0, error=error)


class _Proving:
    """One proof under way."""

    def __init__(
        self, kube: Kube, cluster: Cluster, expected: dict[str, int], seen: Mapping[str, HostGpuFacts], told: Told
    ) -> None:
        self.kube, self.cluster, self.expected, self.seen, self.told = kube, cluster, expected, seen, told
        self.compute = cluster.gpu.compute == "required"
        self.heard: dict[str, Said] = {}
        self.names: list[str] = []
        self.nodes: tuple[NodeSeen, ...] = ()
        self.notes: list[str] = []
        self.refusal = ""

    async def run(self) -> Proof:
        """Go through the proof; on the first thing that is not so, collect the evidence."""
        started = time.monotonic()
        error: ShipwayError | None = None
        faults: list[str] = []
        try:
            await _clear(self.kube, self.told)
            faults = await self._count()
            await self._hold()
            faults += same_cards(self.heard) + self._computed()
            if not faults:
                await _clear(self.kube, self.told)
        except ShipwayError as caught:
            error = caught
        if error is None and not faults:
            return self._proof("ok", time.monotonic() - started)
        said = "; ".join([*faults, *([error.message] if error else [])])
        self.refusal = said
        return await self._failed(said, error, time.monotonic() - started)

    async def _count(self) -> list[str]:
        """Count the cards that are free to be proven; give how the counts of the hosts and of Kubernetes disagree."""
        self.kube.forget()
        self.nodes, others = await asyncio.gather(
            see_nodes(self.kube, self.expected, self.seen), taken_by_others(self.kube, self.expected)
        )
        usable = [node for node in self.nodes if not node.barred and not node.why_not_ready]
        held = sum(min(others.get(node.name, 0), node.allocatable) for node in usable)
        if held:
            self.notes.append(f"{held} cards are held by pods of others: only the free ones were proven")
        free = sum(node.allocatable for node in usable) - held
        self.names = [f"gpu-test-{number}" for number in range(1, free + 1)]
        return mismatches(self.nodes)

    async def _hold(self) -> None:
        """Hold every free card at once, hear which, and see that one more pod finds none."""
        if not self.names:
            raise PostconditionFailed("no card is free to be proven")
        setting = render("verify/namespace.yaml", namespace=NAMESPACE)
        for obj in setting:
            await self.kube.apply(obj)
        await asyncio.gather(*(self.kube.apply(test_pod(self.cluster, name)) for name in self.names))
        limit = self.cluster.gpu.verify_seconds
        await self._wait(AllRun(self.names), limit)
        await self._wait(AllSpoke(self.names, self.compute, self.heard), limit)
        await self.kube.apply(test_pod(self.cluster, EXTRA))
        await self._wait(ExtraWaits(), EXTRA_SECONDS)
        await self._wait(AllRun(self.names), LOOK_SECONDS * 5)  # still: none gave its card back meanwhile

    async def _wait(self, check: AllRun | AllSpoke | ExtraWaits, seconds: float) -> None:
        await wait_until(check, self.kube, seconds=seconds, every=LOOK_SECONDS, told=self.told)

    def _computed(self) -> list[str]:
        """Give the pods whose sample did not pass, where it was asked for."""
        failed = [name for name, words in sorted(self.heard.items()) if self.compute and words.passed is False]
        return [f"the CUDA sample failed in {', '.join(failed)}"] if failed else []

    def _verified(self) -> dict[str, str]:
        """Give pod and card of each card that is proven: held by one pod alone, and computing where asked for."""
        holders = [device for words in self.heard.values() for device in words.devices]
        return {
            name: words.devices[0]
            for name, words in sorted(self.heard.items())
            if len(words.devices) == 1 and holders.count(words.devices[0]) == 1 and (words.passed or not self.compute)
        }

    def _proof(self, outcome: Literal["ok", "failed"], seconds: float, **more: Any) -> Proof:
        devices = self._verified()
        if not self.compute:
            self.notes.append("gpu.compute is off: no CUDA sample was run")
        return Proof(
            outcome,
            sum(self.expected.values()),
            sum(node.allocatable for node in self.nodes),
            len(devices),
            devices,
            ("passed" if not self._computed() and self.heard else "failed") if self.compute else "not run",
            tuple(self.notes),
            seconds=seconds,
            **more,
        )

    async def _failed(self, said: str, error: ShipwayError | None, seconds: float) -> Proof:
        """Collect the evidence, and name the broken link."""
        self.kube.forget()
        evidence, missing = await collect(self.kube, self.cluster, self.expected, self.seen, self.refusal)
        self.nodes = evidence.nodes or self.nodes
        if isinstance(error, Refused):
            return self._proof("failed", seconds, error=error, evidence=_plain(evidence, missing))
        await self._hear(evidence)
        link = broken_link(evidence)
        named = PostconditionFailed(
            f"{said} -> broken link: {link.name}: {link.why}",
            host=self.kube.name,
            step="every expected card can be scheduled and used",
            code=link.code,
            fix=link.fix,
            retry=error is not None and error.may_retry and link.name == "unknown",
        )
        return self._proof("failed", seconds, link=link, error=named, evidence=_plain(evidence, missing))

    async def _hear(self, evidence: Evidence) -> None:
        """Take in what the pods that do run have said, so that working cards count."""
        running = [pod.name for pod in evidence.pods if pod.phase == "Running" and pod.name in self.names]
        try:
            await AllSpoke(running, self.compute, self.heard).check(self.kube)
        except ShipwayError as error:
            self.notes.append(f"the logs of the test pods could not be read: {error.message}")


def _plain(evidence: Evidence, missing: Sequence[str]) -> dict[str, Any]:
    """Give the evidence as plain data for the report."""
    return {**asdict(evidence), "not_collected": list(missing)}


async def _clear(kube: Kube, told: Told) -> None:
    """Delete everything a proof made, and wait until it is gone; raises Refused where the namespace is not ours."""
    kube.forget()
    space = await kube.get("v1", "Namespace", NAMESPACE)
    if space is None:
        return
    if (space["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") != "shipway":
        fix = f"Rename or delete it: the GPU proof needs the namespace {NAMESPACE} for itself."
        raise Refused(f"namespace {NAMESPACE} was not made by Shipway", fix=fix)
    pods = await kube.list_("v1", "Pod", NAMESPACE)
    await asyncio.gather(*(kube.delete("v1", "Pod", pod["metadata"]["name"], NAMESPACE, grace=1) for pod in pods))
    # A namespace that still has pods is tried again ever more slowly by its controller: they go first.
    await wait_until(NoPods(), kube, seconds=CLEAR_SECONDS, every=LOOK_SECONDS / 2, told=told)
    await kube.delete("v1", "Namespace", NAMESPACE)
    await wait_until(PodsGone(), kube, seconds=CLEAR_SECONDS, every=LOOK_SECONDS / 2, told=told)
