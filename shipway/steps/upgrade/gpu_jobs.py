"""GPU jobs on a host that is to be upgraded: whose they are, what was decided of them, and the wait for their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast, get_args

from shipway.errors import DeadlineExceeded, Refused, ShipwayError
from shipway.gpu.holders import asked_devices
from shipway.gpu.pods import NAMESPACE
from shipway.kube.client import Kube
from shipway.kube.nodes import few
from shipway.kube.owners import walk_up
from shipway.step import Drift, Impact
from shipway.steps.upgrade.services import serves, why_not_moved

Policy = Literal["wait", "evict", "never"]
ANNOTATION = "shipway.dev/gpu-jobs"  # of a pod, one of its owners, or its namespace: wait, evict or never
EVERY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class GpuJob:
    """A pod that holds GPUs: its node, the object that owns it at the top ("Job train/llm"), what was decided of it.

    `serves` says that it is a replica of what runs forever: nobody waits for its end, but until it may be moved.
    """

    pod: str
    node: str
    holds: str
    owner: str
    policy: Policy
    serves: bool = False

    @property
    def ends(self) -> bool:
        """Whether its end is waited for: no drain takes it away."""
        return self.policy == "wait" and not self.serves

    @property
    def said(self) -> str:
        """One line: the pod, what it holds, whose it is, what becomes of it."""
        of = f" of {self.owner}" if self.owner else ", of nobody"
        what = "moved while another replica is Ready" if self.policy == "wait" and self.serves else self.policy
        return f"{self.pod}{of} ({self.holds}: {what})"


async def find_jobs(on: Kube, default: Policy, node: str = "") -> list[GpuJob]:
    """Return every pod that holds GPUs, on all nodes or one, but for those of the proof. Raises the API's errors."""
    found = []
    for pod in await on.list_("v1", "Pod", fields=f"spec.nodeName={node}" if node else ""):
        meta, where = pod["metadata"], (pod.get("spec") or {}).get("nodeName", "")
        if not where or meta.get("namespace") == NAMESPACE or not (held := asked_devices(pod)):
            continue
        chain = [pod, *await walk_up(on, pod)]
        top = chain[-1]
        owner = f"{top.get('kind')} {meta['namespace']}/{top['metadata']['name']}" if len(chain) > 1 else ""
        space = await on.get("v1", "Namespace", meta["namespace"])
        policy = _decided([*chain, *([space] if space else [])]) or default
        name = f"{meta['namespace']}/{meta['name']}"
        found.append(GpuJob(name, where, ", ".join(held), owner, policy, serves(pod)))
    return sorted(found, key=lambda one: (one.node, one.pod))


def _decided(chain: Iterable[Mapping[str, Any]]) -> Policy | None:
    """Return what the nearest of them says by its annotation; a word that means nothing is none."""
    for one in chain:
        said = str((one["metadata"].get("annotations") or {}).get(ANNOTATION, "")).strip()
        if said in get_args(Policy):
            return cast("Policy", said)
    return None


def gangs(jobs: Iterable[GpuJob]) -> list[frozenset[str]]:
    """Return the sets of nodes that one owner's pods span: who loses one of its pods loses its work on all of them.

    Replicas of a service are no gang: while one is moved the others answer.
    """
    by_owner: dict[str, set[str]] = {}
    for job in jobs:
        if job.owner and not job.serves:
            by_owner.setdefault(job.owner, set()).add(job.node)
    joined: list[set[str]] = []
    for nodes in by_owner.values():
        touching = [one for one in joined if one & nodes]
        joined = [one for one in joined if not one & nodes] + [nodes.union(*touching)]
    return [frozenset(one) for one in joined if len(one) > 1]


def _unheard(sentence: str) -> None:
    """Hear a wait's sentence, and do nothing."""


@dataclass(frozen=True)
class GpuJobsOver:
    """No pod that is waited for holds GPUs of a node: the node is closed, so none comes after it.

    A replica of a service is waited for until it may be moved.
    """

    impact: ClassVar[Impact] = Impact.WORKLOADS
    node: str
    policy: Policy
    seconds: float
    on_wait: Callable[[str], None] = field(default=_unheard, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The node."""
        return f"no GPU job that is waited for runs on node {self.node}"

    async def left(self, on: Kube) -> list[str]:
        """Return the pods that are waited for. Raises Refused SHW-795 for one that is never touched."""
        jobs = await find_jobs(on, self.policy, self.node)
        kept = [job.said for job in jobs if job.policy == "never"]
        if kept:
            fix = f"Let their owners end them, or change {ANNOTATION} or upgrade.gpu_jobs; then run again."
            raise Refused(f"these are never touched: {few(kept)}", host=self.node, code="SHW-795", fix=fix)
        left = []
        for job in (job for job in jobs if job.policy == "wait"):
            if job.ends:
                left.append(job.said)
            elif why := await self._why_not_moved(on, job):
                left.append(f"{job.said}: {why}")
        return left

    async def _why_not_moved(self, on: Kube, job: GpuJob) -> str:
        space, _, name = job.pod.partition("/")
        pod = await on.get("v1", "Pod", name, space)
        return await why_not_moved(on, pod) if pod and not pod["metadata"].get("deletionTimestamp") else ""

    async def check(self, on: Kube) -> Drift | None:
        """List them. Raises Refused SHW-795 for one that is never touched."""
        left = await self.left(on)
        return Drift(f"{len(left)}: {few(left)}", f"none, within {self.seconds / 60:.0f} minutes") if left else None

    async def apply(self, on: Kube) -> None:
        """Wait for their end. Raises DeadlineExceeded SHW-795 naming those that are left."""
        ends, said = time.monotonic() + self.seconds, ""
        while True:
            on.forget()
            try:
                left = await self.left(on)
            except ShipwayError as error:  # an API server that restarts is asked again: the wait takes hours
                if not error.may_retry:
                    raise
                left = [error.message]
            if not left:
                return
            line = f"waiting for GPU jobs on {self.node}: {few(left)}"
            if line != said:
                self.on_wait(said := line)
            if time.monotonic() > ends:
                break
            await asyncio.sleep(EVERY_SECONDS)
        fix = "Run again when they are over: this host is left as it is; or set upgrade.gpu_jobs or wait_minutes."
        message = f"GPU jobs still run after {self.seconds / 60:.0f} minutes: {few(left)}"
        raise DeadlineExceeded(message, host=self.node, code="SHW-795", fix=fix, retry=False)
