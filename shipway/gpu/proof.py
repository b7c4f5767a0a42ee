"""The GPU proof: as many pods as GPUs run at once, each with a GPU of its own, and one more finds none."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Literal

from shipway.cluster.model import Cluster
from shipway.converge import wait_until
from shipway.errors import DeadlineExceeded, PostconditionFailed, Refused, ShipwayError
from shipway.gpu.chosen import VENDOR
from shipway.gpu.claims import see_claims, see_devices
from shipway.gpu.classes import declared_sharing
from shipway.gpu.counts import GpusAllocatable
from shipway.gpu.evidence import collect, count_taken, mismatches, see_nodes
from shipway.gpu.links import find_broken_link
from shipway.gpu.pods import (
    CLEAR_SECONDS,
    EXTRA,
    NAMESPACE,
    WITHOUT,
    AllDecided,
    AllRun,
    AllSpoke,
    ExtraWaits,
    NoPods,
    PodsGone,
    Said,
    WithoutSpoke,
    apply_pods,
    find_space,
    pod_with_gpu,
    pod_without,
    run_together,
)
from shipway.gpu.proven import Mark, keep_proven, see_marks
from shipway.gpu.result import Proof, ProofOutcome, no_gpus, not_as_claimed, plain, same_gpus
from shipway.gpu.seen import Evidence, HostGpuFacts, NodeSeen
from shipway.gpu.vendor import Vendor
from shipway.kube.client import Kube, Object
from shipway.kube.manifests import render
from shipway.step import Check

__all__ = ["HostGpuFacts", "Proof", "prove"]

LOOK_SECONDS = 1.0
EXTRA_SECONDS = 60.0  # the scheduler speaks within a second or two; a busy one may take longer
WITHOUT_SECONDS = 60.0  # the image is there: test pods of the same one have just run
# A kubelet posts its node's status every 10 s (nodeStatusUpdateFrequency), so after a plugin or containerd has been
# restarted the count of GPUs may be old for that long, in both directions.
SETTLE_SECONDS = 30.0
# For pods that start well while others do not: by then their image is there, or it is pulled for minutes.
DECIDE_SECONDS = 30.0
OnWait = Callable[[str], None]


async def prove(
    kube: Kube,
    cluster: Cluster,
    expected: Mapping[str, int],
    seen: Mapping[str, HostGpuFacts],
    on_wait: OnWait = lambda _: None,
    *,
    avoid: Sequence[str] = (),
    settle: bool = True,
    held: Collection[str] = (),
    vendor: Vendor = VENDOR,
) -> Proof:
    """Prove that every expected GPU can be scheduled and used; never raises a ShipwayError, it is in the proof.

    `expected` is GPUs by node, `seen` what SSH showed of the hosts; `on_wait` hears what is waited for. No test pod
    goes to a node to `avoid`. Without `settle` nothing is waited for that was waited for just before. Nodes that are
    `held` are proven as they share their GPUs today, whatever is declared. Everything it
    made is deleted when all is well, and kept as evidence when not. Pods of others are left alone: GPUs they hold are
    not proven, and a note says so; where they hold every one, the outcome is `all held`. What is proven is written on
    the nodes (shipway.gpu.proven).
    """
    wanted = {name: count for name, count in expected.items() if count}
    if not wanted:
        return no_gpus(cluster, vendor)
    proving = _Proving(kube, cluster, wanted, seen, on_wait, avoid=avoid, settle=settle, held=held, vendor=vendor)
    marks: dict[str, Mark] = {}
    with contextlib.suppress(ShipwayError):  # the proof asks the same API, and tells why it does not answer
        marks = await see_marks(kube, list(wanted), vendor=vendor)
    proof = await proving.run()
    if marks and proof.outcome != "all held" and not isinstance(proof.error, Refused):
        try:
            await keep_proven(kube, marks, proving.proven(), passed=proof.outcome == "ok")
        except ShipwayError as error:
            return replace(proof, notes=(*proof.notes, f"it was not written on every node: {error.message}"))
    return proof


class _Proving:
    """One proof under way."""

    def __init__(
        self,
        kube: Kube,
        cluster: Cluster,
        expected: dict[str, int],
        seen: Mapping[str, HostGpuFacts],
        on_wait: OnWait,
        *,
        avoid: Sequence[str],
        settle: bool,
        held: Collection[str],
        vendor: Vendor,
    ) -> None:
        self.kube, self.cluster, self.expected, self.seen, self.on_wait = kube, cluster, expected, seen, on_wait
        self.avoid, self.settle, self.vendor = avoid, settle, vendor
        self.as_today = held
        self.compute = cluster.gpu.compute == "required"
        self.heard: dict[str, Said] = {}
        self.names: list[str] = []
        self.asks: dict[str, str] = {}  # which resource each pod asks for
        self.nodes: tuple[NodeSeen, ...] = ()
        self.notes: list[str] = []
        self.held = 0  # GPUs, by pods of others
        self.refusal = ""
        self.without: dict[str, int | None] = {}

    async def run(self) -> Proof:
        """Go through the proof; on the first thing that is not so, collect the evidence."""
        started = time.monotonic()
        error: ShipwayError | None = None
        faults: list[str] = []
        try:
            await clear(self.kube, self.on_wait)
            faults = await self._count()
            if self.held and not self.names and not faults:
                return self._proof("all held", time.monotonic() - started)
            await self._hold()
            faults += same_gpus(self.heard, self._replicas()) + self._computed() + await self._as_claimed()
            if not faults:
                await self._look_without()
                await clear(self.kube, self.on_wait)
        except ShipwayError as caught:
            error = caught
        if error is None and not faults:
            return self._proof("ok", time.monotonic() - started)
        said = "; ".join([*faults, *([error.message] if error else [])])
        self.refusal = said
        return await self._failed(said, error, time.monotonic() - started)

    async def _count(self) -> list[str]:
        """Count the GPUs that are free to be proven; return how the counts of the hosts and of Kubernetes disagree."""
        with contextlib.suppress(DeadlineExceeded):  # what is missing then is said with its reason below
            await self._wait(
                GpusAllocatable(self.expected, vendor=self.vendor),
                min(SETTLE_SECONDS if self.settle else 0.0, self.cluster.gpu.verify_seconds),
            )
        self.kube.forget()
        self.nodes, others = await asyncio.gather(
            see_nodes(
                self.kube,
                self.expected,
                self.seen,
                declared=declared_sharing(self.cluster, self.as_today),
                vendor=self.vendor,
            ),
            count_taken(self.kube, self.expected, vendor=self.vendor),
        )
        self.notes += [
            f"{node.name} is {node.kept}: what is proven of its GPUs no workload gets"
            for node in self.nodes
            if node.kept
        ]
        usable = [node for node in self.nodes if not node.barred and not node.why_not_ready]
        resources = list(dict.fromkeys(name for node in usable for name in node.offer.amounts))
        asks: list[str] = []
        for resource in resources:
            taken = others if len(resources) == 1 else await self._taken(resource)
            amounts = {node.name: node.offer.amounts.get(resource, 0) for node in usable}
            held = sum(min(taken.get(name, 0), amount) for name, amount in amounts.items())
            self.held += held
            asks += [resource] * (sum(amounts.values()) - held)
        if self.held:
            proven = "only the free ones were proven" if asks else "none is free to be proven"
            self.notes.append(f"{self.held} GPUs are held by pods of others: {proven}")
        self.asks = {f"gpu-test-{number}": resource for number, resource in enumerate(asks, 1)}
        self.names = list(self.asks)
        return mismatches(self.nodes, self.vendor)

    async def _taken(self, resource: str) -> dict[str, int]:
        return await count_taken(self.kube, self.expected, resource=resource, vendor=self.vendor)

    async def _hold(self) -> None:
        """Hold every free GPU at once, hear which, and see that one more pod finds none."""
        if not self.names:
            raise PostconditionFailed("no GPU is free to be proven")
        await make_space(self.kube)
        pods = {name: self._pod(name) for name in self.names}
        await apply_pods(self.kube, pods.values(), vendor=self.vendor)
        limit = self.cluster.gpu.verify_seconds
        await run_together(self.kube, pods, self.on_wait, seconds=limit, every=LOOK_SECONDS, vendor=self.vendor)
        await self._wait(AllSpoke(self.names, self.compute, self.heard, vendor=self.vendor), limit)
        for number, resource in enumerate(dict.fromkeys(self.asks.values())):
            name = EXTRA + f"-{number}" * bool(number)
            self.asks[name] = resource
            await apply_pods(self.kube, [self._pod(name)], vendor=self.vendor)
            await self._wait(ExtraWaits(self.vendor, name, resource), EXTRA_SECONDS)
        await self._wait(AllRun(self.names), LOOK_SECONDS * 5)  # still: none gave its GPU back meanwhile

    async def _look_without(self) -> None:
        """See on each node what a pod sees that asks for no GPU; a node where it does not start is not judged."""
        nodes = [node.name for node in self.nodes if not node.why_not_ready]
        pods = {f"{WITHOUT}-{number}": node for number, node in enumerate(nodes, 1)}
        spoke = WithoutSpoke(tuple(pods), vendor=self.vendor)
        try:
            await asyncio.gather(
                *(
                    self.kube.apply(pod_without(self.cluster, name, node, vendor=self.vendor))
                    for name, node in pods.items()
                )
            )
            await self._wait(spoke, WITHOUT_SECONDS)
        except ShipwayError as error:
            self.notes.append(f"what a pod sees that asks for no GPU is not known of every node: {error.message}")
        self.without = {node: spoke.heard.get(name) for name, node in pods.items()}
        if self.cluster.gpu.isolation == "off":
            open_ = [node for node, count in self.without.items() if count]
            if open_:
                self.notes.append(
                    f"gpu.isolation is off: a pod that asks for no GPU sees those of its host: {', '.join(open_)}"
                )

    def _pod(self, name: str) -> Object:
        return pod_with_gpu(self.cluster, name, self.avoid, resource=self.asks[name], vendor=self.vendor)

    async def _wait(self, check: Check[Kube], seconds: float) -> None:
        await wait_until(check, self.kube, seconds=seconds, every=LOOK_SECONDS, on_wait=self.on_wait)

    async def _as_claimed(self) -> list[str]:
        """Return the pods that see another GPU than their claim was allocated, or than their host has."""
        names = [name for name in self.heard if self.vendor.is_claimed(self.asks[name])]
        if not names:
            return []
        self.kube.forget()
        pods = {one["metadata"]["name"]: one for one in await self.kube.list_("v1", "Pod", NAMESPACE)}
        claims = await see_claims(self.kube, pods.values(), vendor=self.vendor)
        offered = await see_devices(self.kube, vendor=self.vendor)
        given = {
            name: [
                offered.get(self.heard[name].node, {}).get(one)
                for some in claims.of(pods[name]).values()
                for one in some
            ]
            for name in names
            if name in pods
        }
        hosts = {node.name: node.host.uuids for node in self.nodes}
        return not_as_claimed(self.heard, given, hosts)

    def _computed(self) -> list[str]:
        """Return the pods whose sample did not pass, where it was asked for."""
        failed = [name for name, words in sorted(self.heard.items()) if self.compute and words.passed is False]
        return [f"the {self.vendor.sample.name} failed in {', '.join(failed)}"] if failed else []

    def _replicas(self) -> dict[str, int]:
        return {node.name: node.offer.replicas for node in self.nodes}

    def _verified(self) -> dict[str, str]:
        """Return pod and GPU of each that is proven: held by no more pods than share it, computing where asked for."""
        holders = [device for words in self.heard.values() for device in words.devices]
        replicas = self._replicas()
        return {
            name: words.devices[0]
            for name, words in sorted(self.heard.items())
            if len(words.devices) == 1
            and holders.count(words.devices[0]) <= replicas.get(words.node, 1)
            and (words.passed or not self.compute)
        }

    def proven(self) -> dict[str, list[str]]:
        """Return by node the GPUs that are proven."""
        found: dict[str, list[str]] = {}
        for name, device in self._verified().items():
            found.setdefault(self.heard[name].node, []).append(device)
        return found

    def _proof(self, outcome: ProofOutcome, seconds: float, **more: Any) -> Proof:
        devices = self._verified()
        if not self.compute:
            self.notes.append(f"gpu.compute is off: no {self.vendor.sample.name} was run")
        shared = {node.name: told for node in self.nodes if (told := node.offer.tell(node.name, node.expected))}
        return Proof(
            outcome,
            sum(node.wanted for node in self.nodes) if self.nodes else sum(self.expected.values()),
            sum(node.allocatable for node in self.nodes),
            len(devices),
            devices,
            self._compute(),
            (*self.notes, *shared.values()),
            without=dict(self.without),
            shared=shared,
            seconds=seconds,
            **more,
        )

    def _compute(self) -> Literal["passed", "failed", "not run"]:
        if not self.compute or not self.names:
            return "not run"
        return "passed" if self.heard and not self._computed() else "failed"

    async def _failed(self, said: str, error: ShipwayError | None, seconds: float) -> Proof:
        """Collect the evidence, and name the broken link; what one node lacks must not hide what the others can."""
        if not isinstance(error, Refused):
            with contextlib.suppress(ShipwayError):  # the evidence shows it
                await self._wait(AllDecided(self.names), DECIDE_SECONDS)
        self.kube.forget()
        evidence, missing = await collect(
            self.kube, self.cluster, self.expected, self.seen, self.refusal, held=self.as_today, vendor=self.vendor
        )
        self.nodes = evidence.nodes or self.nodes
        if isinstance(error, Refused):
            return self._proof("failed", seconds, error=error, evidence=plain(evidence, missing))
        await self._hear(evidence)
        link = find_broken_link(evidence, self.vendor)
        named = PostconditionFailed(
            f"{said} -> broken link: {link.name}: {link.why}",
            host=self.kube.name,
            step="every expected GPU can be scheduled and used",
            code=link.code,
            fix=link.fix,
            retry=error is not None and error.may_retry and link.name == "unknown",
        )
        return self._proof("failed", seconds, link=link, error=named, evidence=plain(evidence, missing))

    async def _hear(self, evidence: Evidence) -> None:
        """Take in what the pods that do run have said, so that working GPUs count."""
        running = [pod.name for pod in evidence.pods if pod.runs and pod.name in self.names]
        try:
            await self._wait(AllSpoke(running, self.compute, self.heard, vendor=self.vendor), DECIDE_SECONDS)
        except ShipwayError as error:
            self.notes.append(f"not every test pod was heard: {error.message}")


async def make_space(kube: Kube) -> None:
    """Make the namespace of the proofs, with what its pods need."""
    for setting in render("verify/namespace.yaml", namespace=NAMESPACE):
        await kube.apply(setting)


@asynccontextmanager
async def own_space(kube: Kube, on_wait: OnWait) -> AsyncIterator[None]:
    """Have the namespace of the proofs for pods of one's own: what is left there goes before, and all goes afterwards.

    Raises Refused where it is not ours. What cannot be deleted in the end the next proof deletes.
    """
    await clear(kube, on_wait)
    try:
        await make_space(kube)
        yield
    finally:
        with contextlib.suppress(ShipwayError):
            await clear(kube, on_wait)


async def clear(kube: Kube, on_wait: OnWait) -> None:
    """Delete everything a proof made, and wait until it is gone; raises Refused where the namespace is not ours."""
    kube.forget()
    if await find_space(kube) is None:
        return
    pods = await kube.list_("v1", "Pod", NAMESPACE)
    await asyncio.gather(*(kube.delete("v1", "Pod", pod["metadata"]["name"], NAMESPACE, grace=1) for pod in pods))
    # A namespace that still has pods is tried again ever more slowly by its controller: they go first.
    await wait_until(NoPods(), kube, seconds=CLEAR_SECONDS, every=LOOK_SECONDS / 2, on_wait=on_wait)
    await kube.delete("v1", "Namespace", NAMESPACE)
    await wait_until(PodsGone(), kube, seconds=CLEAR_SECONDS, every=LOOK_SECONDS / 2, on_wait=on_wait)
