"""A host's turn in a run in waves: emptied before its work, proven after it, and opened only then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from shipway.cluster.window import next_opening, open_now
from shipway.converge import On, Permit, converge, look_at_all
from shipway.errors import Blocked, DeadlineExceeded, PostconditionFailed, Refused, ShipwayError
from shipway.facts.services import UnitState
from shipway.gpu.jobs import find_jobs
from shipway.kube.drain import uncordon
from shipway.step import Check, Impact, Step, StepResult
from shipway.steps.gpu.plugin import renew_older
from shipway.steps.gpu.plugin_mode import proven_as
from shipway.steps.kubernetes.retire import NodeClosed, NodeDrained
from shipway.steps.upgrade.gpu_jobs import GpuJobsOver
from shipway.steps.upgrade.node import NodeOpenedAgain, NodeReports
from shipway.steps.upgrade.proof import REACHES, STEP, NoGpuErrors, prove_host, prove_reach, take_namespace_away
from tasks import gates
from tasks.context import Run
from tasks.locking import still_alone
from tasks.retire.allowed import losable
from tasks.waiting import hear_results, hear_waits, wait_for
from tasks.waves.hosts import decided, is_drained

DRAIN_SECONDS = 1800.0
NODE_SECONDS, GPU_SECONDS = 300.0, 300.0
BOUND_SECONDS = 3.0  # after which the pods in place of replicas that left have GPUs of their own, or wait for some


def closed_until(run: Run) -> str:
    """Return why no further host is begun now, by the maintenance window; "" while it is open, or there is none."""
    window, now = run.cluster.repair.window, datetime.now().astimezone()
    if window is None or open_now(window, now):
        return ""
    opens = next_opening(window, now)
    return (
        f"the maintenance window is closed; it opens {opens:%Y-%m-%d %H:%M}"
        if opens
        else "the window never opens again"
    )


def permit_held(run: Run) -> Permit:
    """Return what is asked right before a step is applied: whether the run still holds the cluster."""

    async def permit(step: Step[Any]) -> Impact:  # noqa: ARG001 - a permit's signature
        still_alone(run)
        run.waves.begun = run.waves.changed = True
        return run.allow

    return permit


async def bring(run: Run, stage: str, on: On, steps: Sequence[Check[On]]) -> list[StepResult]:
    """Converge, and apply each step only while the run still holds the cluster."""
    on.forget()
    return await converge(steps, on, run.allow, hear_results(run, stage, on.name), permit_held(run))


def failed(results: Sequence[StepResult]) -> bool:
    """Say whether one of these failed."""
    return any(result.outcome == "failed" for result in results)


async def empty(run: Run, stage: str, host: str, why: str, *, begun: bool) -> list[StepResult]:
    """Close a node, let its GPU jobs end by what was decided of them, and evict its pods as budgets allow.

    `why` is the note on the node. One that cannot be emptied is opened again, unless its work has `begun`.
    """
    settings = run.cluster.upgrade
    hear = hear_waits(run, stage, host)
    over = GpuJobsOver(host, settings.gpu_jobs, settings.wait_minutes * 60.0, hear, run.waves.whole)
    drained = NodeDrained(
        host,
        DRAIN_SECONDS,
        losable(run),
        evict_gpu_pods=True,
        on_wait=hear,
        again=f"run `shipway {run.waves.command}` again",
        kept=over.left,
        reopens=not begun,
    )
    closed = NodeClosed(host, why)
    kube = await run.kube()
    run.waves.whole.add(host)
    try:
        results = await bring(run, stage, kube, [closed, over])
        if not failed(results):
            results += await _evict(run, stage, over, drained, waits=results[-1].outcome == "drifted")
    finally:
        run.waves.whole.discard(host)
    if failed(results) and run.allow is not Impact.NOTHING and not begun:
        await uncordon(kube, host)
    return results


async def _evict(run: Run, stage: str, over: GpuJobsOver, drained: NodeDrained, *, waits: bool) -> list[StepResult]:
    """Evict the pods of a closed node whose GPU jobs are over; `waits`: a plan has found some that are not."""
    kube, host = await run.kube(), drained.node
    if run.allow is Impact.NOTHING and waits:
        first = Blocked("what is left to evict is known once its GPU jobs are over", host=host)
        return [StepResult(drained.name, "unknown", error=first)]
    if run.allow is Impact.NOTHING:
        return await bring(run, stage, kube, [drained])
    alone = run.waves.moving if await _has_replicas(run, host) else asyncio.Lock()
    while True:
        try:
            async with asyncio.timeout(max(1.0, over.remaining)):
                await alone.acquire()
        except TimeoutError:
            message = "replicas were moved off another host of the wave until the time was over"
            late = DeadlineExceeded(message, host=host, code="SHW-795", fix="Run again: it goes on there.", retry=False)
            return [StepResult(drained.name, "failed", error=late)]
        try:
            if closed := closed_until(run):
                message = f"the host was emptied too late: {closed}"
                error = Refused(message, host=host, code="SHW-798", fix="Run again then.")
                return [StepResult(drained.name, "failed", error=error)]
            kube.forget()
            (seen,) = await look_at_all([over], kube, lambda _: None)
            if seen.outcome == "ok":
                run.waves.whole.discard(host)
                results = await bring(run, stage, kube, [drained])
                if alone is run.waves.moving:
                    await asyncio.sleep(BOUND_SECONDS)
                return results
        finally:
            alone.release()
        # Another host's replicas were moved since.
        results = await bring(run, stage, kube, [over]) if seen.outcome == "drifted" else decided([seen])
        if failed(results):
            return results


async def _has_replicas(run: Run, host: str) -> bool:
    """Say whether replicas are moved off a host: then no other host's are at the same time."""
    try:
        jobs = await find_jobs(await run.kube(), run.cluster.upgrade.gpu_jobs, host)
    except ShipwayError:
        return True
    return any(job.serves and job.policy == "wait" for job in jobs)


async def prove_and_open(run: Run, stage: str, host: str, version: str, *, gpus: bool = True) -> list[StepResult]:
    """Wait until the node says that it is of the version and offers its GPUs, run a pod on each of them, open it.

    Without `gpus`, as on a host without any, a pod asks for DNS and the API alone: others may hold them.
    """
    if run.allow is Impact.NOTHING:
        return []
    kube, spec = await run.kube(), run.cluster.host(host)
    session = run.session(host)
    session.forget()
    info = await session.read(UnitState("kubelet.service"))
    since = info.active_since if info.active == "active" else 0
    results = [await wait_for(run, stage, NodeReports(host, version, since), kube, seconds=NODE_SECONDS)]
    count = run.provable(spec) if gpus else 0
    if count and not failed(results):
        await renew_older(kube, host, since)
        results.append(await wait_for(run, stage, gates.GpusAllocatable({host: count}), kube, seconds=GPU_SECONDS))
        results += [] if failed(results) else [await _proof(run, stage, host, count)]
        session.forget()
        results += await look_at_all([NoGpuErrors(since)], session, hear_results(run, stage, host))
    elif not failed(results):
        results.append(await prove_by_pod(run, stage, host))
    if failed(results):
        return say_closed(run, host, results)
    opened = await bring(run, stage, kube, [NodeOpenedAgain(host)])
    # What the run closed it has opened: the host is as it was, so that is no change to tell of.
    return results + [replace(one, outcome="ok") if one.outcome == "changed" else one for one in opened]


async def prove_by_pod(run: Run, stage: str, host: str) -> StepResult:
    """Return the result of asking for DNS and the API from a pod of a host that holds no GPU."""
    try:
        await prove_reach(await run.kube(), run.cluster, host, hear_waits(run, stage, host))
    except ShipwayError as error:
        return StepResult(REACHES, "failed", error=error.at(host=host, step=REACHES))
    return StepResult(REACHES, "ok")


async def _proof(run: Run, stage: str, host: str, count: int) -> StepResult:
    """Return the result of the GPU proof of one host; hosts of a wave are proven one after the other."""
    try:
        async with run.waves.proving:
            kube = await run.kube()
            cluster, _ = await proven_as(kube, run.cluster)
            await prove_host(kube, cluster, host, count, hear_waits(run, stage, host))
    except ShipwayError as error:
        return StepResult(STEP, "failed", error=error.at(host=host, step=STEP))
    return StepResult(STEP, "ok")


def say_closed(run: Run, host: str, results: Sequence[StepResult]) -> list[StepResult]:
    """Return the results with what a person must know of a host that failed in the middle: its node stays closed."""
    if run.allow is Impact.NOTHING or not (run.waves.closes_all or is_drained(run, host)):
        return list(results)
    fix = f"Mend what is named above it, then run again: {host} comes first then, and is opened once it is proven."
    message = f"it was not proven after its {run.waves.verb}, so its node stays closed"
    error = PostconditionFailed(message, host=host, code="SHW-796", fix=fix)
    return [*results, StepResult(f"node {host} takes pods again", "failed", error=error)]


async def end_waves(run: Run) -> None:
    """Take the namespace of the test pods away; what keeps from it is no news beside how the run ended."""
    if run.waves.changed:
        with contextlib.suppress(ShipwayError, TimeoutError):
            async with asyncio.timeout(30):
                await take_namespace_away(await run.kube())
