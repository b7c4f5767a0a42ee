"""GPU jobs on a host that is to be emptied: the wait for the end of those that are waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from shipway.errors import DeadlineExceeded, Refused, ShipwayError
from shipway.gpu.jobs import ANNOTATION, GpuJob, Policy, find_jobs
from shipway.kube.client import Kube
from shipway.kube.nodes import few
from shipway.step import Drift, Impact
from shipway.steps.upgrade.services import is_ending, why_not_moved

EVERY_SECONDS = 5.0
DECIDE = f"change {ANNOTATION} or upgrade.gpu_jobs"


def _now() -> float:
    return time.monotonic()


def _unheard(sentence: str) -> None:
    """Hear a wait's sentence, and do nothing."""


@dataclass(frozen=True)
class GpuJobsOver:
    """No pod that is waited for holds GPUs of a node: the node is closed, so none comes after it.

    A replica of a service is waited for until it may be moved; `whole` are nodes that are closed beside it, and nothing
    is moved off them meanwhile. The wait ends `seconds` after this step was made, however often it is begun.
    """

    impact: ClassVar[Impact] = Impact.WORKLOADS
    node: str
    policy: Policy
    seconds: float
    on_wait: Callable[[str], None] = field(default=_unheard, compare=False, repr=False)
    whole: Collection[str] = field(default=(), compare=False, repr=False)
    since: float = field(default_factory=_now, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The node."""
        return f"no GPU job that is waited for runs on node {self.node}"

    @property
    def remaining(self) -> float:
        """Return how many seconds of the wait are left; none are where it is below 0."""
        return self.since + self.seconds - _now()

    async def left(self, on: Kube) -> list[str]:
        """Return the pods that are waited for. Raises Refused SHW-795 for one that is never touched."""
        jobs = await find_jobs(on, self.policy, self.node)
        kept = [job.said for job in jobs if job.policy == "never"]
        if kept:
            fix = f"Let their owners end them, or {DECIDE}; then run again."
            raise Refused(f"these are never touched: {few(kept)}", host=self.node, code="SHW-795", fix=fix)
        replicas = [job for job in jobs if job.policy == "wait" and job.serves]
        return [job.said for job in jobs if job.ends] + await self._not_moved(on, replicas)

    async def _not_moved(self, on: Kube, jobs: Sequence[GpuJob]) -> list[str]:
        """Return the replicas that are not moved now, each with the reason."""
        found = [await on.get("v1", "Pod", *reversed(job.pod.split("/", 1))) for job in jobs]
        there = [(job, pod) for job, pod in zip(jobs, found, strict=True) if pod and not is_ending(pod)]
        said = await why_not_moved(on, [pod for _, pod in there], whole=self.whole) if there else []
        return [f"{job.said}: {why}" for (job, _), why in zip(there, said, strict=True) if why]

    async def why_kept(self, on: Kube) -> str:
        """Return why the node is not drained now, with the pods and what changes that; "" where nothing keeps it."""
        try:
            left = await self.left(on)
        except Refused as error:
            return f"{error.message}. {error.fix}"
        return f"GPU jobs are waited for: {few(left)}. Run again when they are over, or {DECIDE}." if left else ""

    async def check(self, on: Kube) -> Drift | None:
        """List them. Raises Refused SHW-795 for one that is never touched."""
        left = await self.left(on)
        return Drift(f"{len(left)}: {few(left)}", f"none, within {self.seconds / 60:.0f} minutes") if left else None

    async def apply(self, on: Kube) -> None:
        """Wait for their end. Raises DeadlineExceeded SHW-795 naming those that are left."""
        said = ""
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
            if self.remaining < 0:
                break
            await asyncio.sleep(EVERY_SECONDS)
        fix = "Run again when they are over: this host is left as it is; or set upgrade.gpu_jobs or wait_minutes."
        message = f"GPU jobs still run after {self.seconds / 60:.0f} minutes: {few(left)}"
        raise DeadlineExceeded(message, host=self.node, code="SHW-795", fix=fix, retry=False)
