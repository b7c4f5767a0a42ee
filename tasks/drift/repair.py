"""The repair of a drift pass: each host brought back as far as is allowed, and looked at again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace

from shipway.converge import converge
from shipway.errors import PostconditionFailed, Refused, ShipwayError
from shipway.facts.services import UnitState
from shipway.gpu.chosen import VENDOR
from shipway.gpu.counts import GpusAllocatable
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kube.drain import cordon, uncordon
from shipway.stage import StageName
from shipway.step import Impact, StepResult
from shipway.steps.gpu.plugin import PluginRunning
from shipway.steps.gpu.sound import ReleasedByProof, UnfitKeptFromPods
from shipway.steps.kubernetes.health_cluster import NodeReady, PodsStable
from shipway.steps.kubernetes.retire import NodeDrained
from shipway.steps.upgrade.gpu_jobs import GpuJobsOver
from tasks.context import Run
from tasks.drift.divided import without_plugin
from tasks.drift.look import look_at_cluster, look_at_host
from tasks.drift.parts import OF_GPUS, Part, cluster_parts, host_parts, plain_runtime
from tasks.drift.permission import find_kept, permit_of, withhold_unapproved
from tasks.findings import Finding, Key
from tasks.locking import new_lease
from tasks.retire.allowed import losable
from tasks.stage_result import CLUSTER
from tasks.waiting import hear_results, hear_waits, wait_for

DRAIN_SECONDS = 600.0
READY_SECONDS = 300.0
RELEASE_SECONDS = 1200.0  # within which the proof of a node that is kept from pods is begun
LATE = "other nodes were proven first, and the time was over; the next pass goes on"
RELEASED = ReleasedByProof.name
SETTLE_SECONDS = 120.0  # a plugin's pod that is replaced takes 30 s to end, and its node tells of its GPUs after that
EVERY_SECONDS = 2.0
AGAIN_SECONDS = (2.0, 4.0)  # between looks at a host before a repair is said to have failed: a service starts
FOLLOWING = frozenset(
    {
        NodeReady("").name,
        GpusAllocatable({}).name,
        PluginRunning("").name,
        PodsStable(VENDOR.plugin.daemon_set, "", "").name,
    }
)


def parts_of(run: Run, host: str) -> list[Part[Host]]:
    """Return a host's parts as they were looked at: without nvidia's on a host that has no GPUs."""
    spec = run.cluster.host(host)
    parts = host_parts(run, spec)
    if spec.gpus == "auto" and not run.gpus_of(spec):
        plain = plain_runtime(run, spec)
        parts = [plain if part.stage == plain.stage else part for part in parts if part.stage not in OF_GPUS]
    return parts


async def repair_host(run: Run, stage: str, host: str) -> list[StepResult]:
    """Repair a host without touching workloads, then look again; what became of each finding is kept in the run."""
    await _as_approved(run, stage, host)
    most = Impact.FILES if host in run.drift.files_only else Impact.SERVICE
    results = await _converge(run, stage, host, min(most, run.allow))
    await _again(run, stage, host, results)
    return outcome_of(results, run.drift.findings.get(host, ()))


def outcome_of(results: Sequence[StepResult], findings: Sequence[Finding]) -> list[StepResult]:
    """Return the results of a repair as the look after it confirmed them: what is only reported is no failed repair.

    A workload that was put right a moment ago is not ready yet when its step ends; the look that waited for it decides.
    """
    failed = {finding.step for finding in findings if finding.action in ("failed", "came back")}
    return [one for one in results if one.outcome in ("ok", "changed") or (one.drift and one.step in failed)]


async def _as_approved(run: Run, stage: str, host: str) -> None:
    """Look again where a person approved a list: what is not on it is not repaired under that approval."""
    if run.drift.approved is not None:
        await look_at_host(run, stage, host)
        withhold_unapproved(run, run.drift.findings.get(host, ()))


async def repair_drained(run: Run, stage: str, host: str) -> list[StepResult]:
    """Cordon, drain, repair, look again, uncordon. A host whose drain is held up is opened again, unchanged.

    One whose GPU jobs forbid the drain, by what was decided of them, is repaired as far as that goes without.
    A host that is not Ready afterwards stays cordoned, and the error says so; one that a person had cordoned before
    stays so as well. Raises Refused where a drain would destroy something, before the node is cordoned,
    DeadlineExceeded where a drain is held up, PostconditionFailed where the host stays cordoned.
    """
    kube = await run.kube()
    await new_lease(run)
    drained = NodeDrained(
        host,
        DRAIN_SECONDS,
        losable(run),
        evict_gpu_pods=True,
        on_wait=hear_waits(run, stage, host),
        again="repair again",
        kept=GpuJobsOver(host, run.cluster.upgrade.gpu_jobs, 0).left,
    )
    try:
        await _as_approved(run, stage, host)
        await drained.check(kube)
        await cordon(kube, host, f"repair by Shipway: {', '.join(_steps(run, host))}"[:200])
        await drained.apply(kube)
    except BaseException as error:
        await uncordon(kube, host)  # a killed pass may have left it closed; nobody else's cordon is touched
        if not isinstance(error, Refused):
            raise
        await find_kept(run, host)
        if host not in run.drift.kept:
            raise
        return await repair_host(run, stage, host)
    results: list[StepResult] = []
    try:
        async with without_plugin(run, kube, host):
            results = await _converge(run, stage, host, Impact.WORKLOADS, drained=True)
            await _again(run, stage, host, results)
    finally:
        kube.forget()
        node_ready = NodeReady(host, kubelet_since=run.drift.kubelet_since.get(host, 0))
        ready = await wait_for(run, stage, node_ready, kube, seconds=READY_SECONDS)
        if ready.outcome == "ok":
            await uncordon(kube, host)
    if ready.outcome != "ok":
        fix = f"See `journalctl -u kubelet` on {host}; then `kubectl uncordon {host}`."
        raise PostconditionFailed("not Ready after its repair, so it stays cordoned", host=host, fix=fix)
    return outcome_of(results, run.drift.findings.get(host, ()))


def _steps(run: Run, host: str) -> list[str]:
    return [finding.step for finding in run.drift.findings.get(host, ())]


async def _converge(run: Run, stage: str, host: str, allow: Impact, *, drained: bool = False) -> list[StepResult]:
    """Converge the parts in which something drifted, each as far as its own limit and the permit of the moment go."""
    permit = permit_of(run, host, drained=drained)
    session, drifted = run.session(host), {finding.stage for finding in run.drift.findings.get(host, ())}
    results: list[StepResult] = []
    for part in parts_of(run, host):
        if part.stage in drifted or any(result.outcome == "changed" for result in results):
            session.forget()
            limit = min(allow, part.most)
            results += await converge(part.steps, session, limit, hear_results(run, stage, host), permit)
    return results


async def _again(run: Run, stage: str, host: str, results: Sequence[StepResult]) -> None:
    """Look again, and keep what became of every finding of this host; what is still starting is looked at once more."""
    before = list(run.drift.findings.get(host, ()))
    with contextlib.suppress(ShipwayError):  # a host that is gone after its repair: nothing was confirmed
        for wait in (*AGAIN_SECONDS, 0.0):
            await look_at_host(run, stage, host)
            after = {finding.key: finding for finding in run.drift.findings.get(host, ())}
            run.drift.findings[host] = became(before, after, results)
            if not wait or not any(f.action in ("failed", "came back") for f in run.drift.findings[host]):
                break
            await asyncio.sleep(wait)
        if any(result.outcome == "changed" for result in results):
            await _keep_start_of_kubelet(run, host)
        run.drift.repaired |= {f.host for f in run.drift.findings[host] if f.action == "repaired"}
        return
    run.drift.findings[host] = [finding.became("failed", "the host could not be looked at again") for finding in before]


async def _keep_start_of_kubelet(run: Run, host: str) -> None:
    """Keep since when the kubelet runs, so that no older status of its node counts; not where the clock went back."""
    kubelet = await run.session(host).read(UnitState("kubelet.service"))
    if kubelet.active == "active" and kubelet.active_since <= time.time() + run.seen.surveys[host].skew:
        run.drift.kubelet_since[host] = kubelet.active_since


def became(before: Sequence[Finding], after: dict[Key, Finding], results: Sequence[StepResult]) -> list[Finding]:
    """Return what became of each finding: gone is repaired; changed and here again came back; the rest stays."""
    # An error with a drift is of a repair; without one it is of a look that did not succeed.
    errors = {r.step: r.error for r in results if r.outcome == "failed" and r.error and r.drift}
    changed = {result.step for result in results if result.outcome == "changed"}
    ended = []
    for finding in before:
        error = errors.get(finding.step)
        if finding.key not in after:
            ended.append(finding.became("repaired"))
        elif error is not None:
            ended.append(finding.became("failed", f"{error.message} Next: {error.fix}"))
        elif finding.step in changed:
            ended.append(finding.became("came back", "it was repaired and drifted again at once: something owns it"))
        else:
            ended.append(finding)
    known = {finding.key for finding in before}
    return [*ended, *(finding for key, finding in after.items() if key not in known)]


async def repair_cluster(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001 - a stage's signature
    """Repair nodes' settings and the objects that all share, then look again."""
    kube = await run.kube()
    await new_lease(run)  # a repair of the control plane's host may have brought its API back
    if run.drift.approved is not None:
        await look_at_cluster(run, stage, CLUSTER)
        withhold_unapproved(run, run.drift.of_cluster)
    before = list(run.drift.of_cluster)
    drifted = {(finding.host, finding.stage) for finding in before}
    results: dict[str, list[StepResult]] = {}
    parts = [part for part in cluster_parts(run) if (part.host, part.stage) in drifted]
    # What keeps pods from sick GPUs waits for nothing; nothing waits for the proofs that open nodes again.
    for some in (_only(parts, UnfitKeptFromPods), _without(parts, UnfitKeptFromPods, ReleasedByProof)):
        for part in some:
            if part.stage != StageName.GPU_PROOF:
                results.setdefault(part.host, []).extend(await _by_api(run, stage, part, kube))
    results_of_all = [result for some in results.values() for result in some]
    done = run.drift.repaired or any(result.outcome == "changed" for result in results_of_all)
    await _settle(run, stage, seconds=SETTLE_SECONDS if done else 0.0)
    for part in cluster_parts(run):  # last, for a repair may have started a plugin: its GPUs are to be proven then
        if part.stage == StageName.GPU_PROOF and any(
            one.stage == part.stage and one.level for one in run.drift.of_cluster
        ):
            results.setdefault(part.host, []).extend(await _by_api(run, stage, part, kube))
            await look_at_cluster(run, stage, CLUSTER)
    late = await _release(run, stage, kube, results)
    results_of_all = [result for some in results.values() for result in some]
    after = {finding.key: finding for finding in run.drift.of_cluster}
    run.drift.of_cluster = [
        one.became("held back", LATE) if one.host in late and one.step == RELEASED else one
        for one in became(before, after, results_of_all)
    ]
    return outcome_of(results_of_all, run.drift.of_cluster)


def _only(parts: Sequence[Part[Kube]], kind: type) -> list[Part[Kube]]:
    """Return the parts that have steps of a kind, with these alone."""
    found = [replace(part, steps=[step for step in part.steps if isinstance(step, kind)]) for part in parts]
    return [part for part in found if part.steps]


def _without(parts: Sequence[Part[Kube]], *kinds: type) -> list[Part[Kube]]:
    return [replace(part, steps=[step for step in part.steps if not isinstance(step, kinds)]) for part in parts]


async def _release(run: Run, stage: str, kube: Kube, results: dict[str, list[StepResult]]) -> set[str]:
    """Prove the nodes that are kept from pods, one after another; return those to which the time did not come.

    Each pass begins with another one: a node whose proof takes long, and fails, keeps no other closed for good.
    """
    kept = {one.host for one in run.drift.of_cluster if one.step == RELEASED and one.level}
    parts = _only([part for part in cluster_parts(run) if part.host in kept], ReleasedByProof)
    first, ends = int(time.time()) % max(1, len(parts)), time.monotonic() + RELEASE_SECONDS
    parts = [*parts[first:], *parts[:first]]
    late = set[str]()
    for part in parts:
        if time.monotonic() > ends:
            late.add(part.host)
        else:
            results.setdefault(part.host, []).extend(await _by_api(run, stage, part, kube))
    if parts:
        await look_at_cluster(run, stage, CLUSTER)
    return late


async def _settle(run: Run, stage: str, *, seconds: float) -> None:
    """Look again until nothing is left that follows from a repair by itself: Ready nodes, pods that start, GPUs.

    So does what could not be looked at: a kubelet that was started a moment ago does not answer the API yet.
    """
    ends, last = time.monotonic() + seconds, ""
    while True:
        await look_at_cluster(run, stage, CLUSTER)
        following = [one for one in run.drift.of_cluster if one.step in FOLLOWING or one.unseen]
        if not following or time.monotonic() > ends:
            return
        said = f"waiting until {following[0].step} on {following[0].host}: {following[0].have}"
        if said != last:
            hear_waits(run, stage, CLUSTER)(last := said)
        await asyncio.sleep(EVERY_SECONDS)


async def _by_api(run: Run, stage: str, part: Part[Kube], kube: Kube) -> list[StepResult]:
    kube.forget()
    limit = min(Impact.SERVICE, run.allow, part.most)
    return await converge(
        part.steps, kube, limit, hear_results(run, stage, part.host), permit_of(run, part.host, drained=True)
    )
