"""The verification's stages: nodes Ready, GPUs allocatable, and the proof that pods hold and use them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from dataclasses import replace

from shipway.errors import Blocked, PostconditionFailed, ShipwayError
from shipway.gpu.chosen import VENDOR
from shipway.gpu.classes import daemon_sets, declared_sharing
from shipway.gpu.offers import count_places, see_offers
from shipway.gpu.owners import find_owner
from shipway.gpu.proof import HostGpuFacts, prove
from shipway.gpu.result import Proof, none_ready
from shipway.kube.client import Kube
from shipway.kube.nodes import nodes_by_name
from shipway.kube.status import why_not_ready
from shipway.stage import StageName
from shipway.step import Check, Impact, StepResult
from shipway.steps.gpu.class_held import find_held
from shipway.steps.gpu.plugin import find_hopeless, start_anew
from shipway.steps.gpu.plugin_mode import proven_as
from shipway.steps.kubernetes.serving_requests import (
    KubeletsAnswer,
    ServingRequestsApproved,
    inventories,
    is_declared,
)
from tasks import gates
from tasks.context import Run
from tasks.locking import still_alone
from tasks.stage_result import CLUSTER
from tasks.stages import device_plugin, nvidia_runtime
from tasks.waiting import by_api, hear_results, hear_waits, wait_for

ISOLATED = "a pod that asks for no GPU sees none"
NODE_SECONDS = 600.0  # a pod network's images are pulled on every node before it is Ready
GPU_SECONDS = 300.0
SERVING_SECONDS, APPROVE_EVERY = 120.0, 3.0  # a kubelet asks within seconds, and again after minutes
ROLLOUT_SECONDS = 120.0  # of the plugin, node after node; most of it is the grace of the pod that goes
HOPELESS_SECONDS = 20.0  # where the pod network's own stage failed, nodes are Ready at once or not at all


def count_expected(run: Run) -> dict[str, int]:
    """Return the GPUs of every node that has come as far as being Ready."""
    return {host.name: run.provable(host) for host in run.hosts if host.name in run.ready}


async def nodes_ready(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001 - a stage's signature
    """Wait for the nodes that joined; each one that is not Ready in the end is named, the others go on."""
    if run.allow is Impact.NOTHING:
        return await by_api(run, stage, [gates.NodesReady(tuple(host.name for host in run.hosts))])
    names = tuple(sorted(run.ready))
    failed = any(result.stage == StageName.POD_NETWORK and not result.stands for result in run.results)
    limit = HOPELESS_SECONDS if failed else NODE_SECONDS
    together = await wait_for(run, stage, gates.NodesReady(names), await run.kube(), seconds=limit)
    if together.outcome == "ok":
        return [together, *await _reach_kubelets(run, stage, names)]
    return await _one_by_one(run, {name: gates.NodesReady((name,)) for name in names}, await run.kube(), leave=True)


async def _reach_kubelets(run: Run, stage: str, names: tuple[str, ...]) -> list[StepResult]:
    """Approve what the kubelets ask for until the API reaches each of them: the proof reads logs through them.

    Only where the cluster file has them ask for serving certificates; they do so seconds after their nodes are there. A
    verification approves nothing.
    """
    if not is_declared(run.cluster):
        return []
    kube = await run.kube()
    approving = asyncio.create_task(_approve(run, kube)) if run.kind != "verify" else None
    try:
        return [await wait_for(run, stage, KubeletsAnswer(names), kube, seconds=SERVING_SECONDS)]
    finally:
        if approving is not None:
            approving.cancel()
            await asyncio.gather(approving, return_exceptions=True)


async def _approve(run: Run, kube: Kube) -> None:
    """Approve what waits, again and again; what keeps from it shows in what is waited for."""
    step = ServingRequestsApproved(inventories(run.cluster))
    while True:
        with contextlib.suppress(ShipwayError):
            still_alone(run)
            await step.apply(kube)
        await asyncio.sleep(APPROVE_EVERY)


async def gpus_allocatable(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001
    """Wait for every GPU to be offered; each node that lacks some is named."""
    wanted = {name: count for name, count in count_expected(run).items() if count}
    if run.allow is Impact.NOTHING:
        declared = {host.name: count for host in run.hosts if (count := run.provable(host))}
        return await by_api(run, stage, [_allocatable(run, declared)] if declared else [])
    if not wanted:
        return []
    kube = await run.kube()
    held = await _held_back(run, stage, kube)
    left = await _clear_classes(run, stage)
    if run.kind != "verify" and (anew := await start_anew(kube)):
        run.view.show_wait(CLUSTER, stage, f"started anew, for what they say is of an earlier start: {', '.join(anew)}")
    # A plugin that is being replaced takes its GPUs away with it, and the node tells that seconds later: first the
    # plugin in its newest form, then its GPUs. Where it does not come up, the missing GPUs are named by node.
    sets = [] if await find_owner(kube) else daemon_sets(run.cluster, held)
    plugins = [gates.WorkloadRuns("DaemonSet", one, VENDOR.plugin.namespace) for one in sets]
    rollouts = [await wait_for(run, stage, plugin, kube, seconds=ROLLOUT_SECONDS) for plugin in plugins]
    lost = {} if all(one.outcome == "ok" for one in rollouts) else await find_hopeless(kube)
    coming = {name: count for name, count in wanted.items() if name not in lost}
    check = _allocatable(run, coming, held)
    results = [*held.values(), *left]
    results += [
        StepResult(check.name, "failed", error=error.at(host=name, step=check.name))
        for name, error in lost.items()
        if name in wanted
    ]
    if not coming:
        return results
    together = await wait_for(run, stage, check, kube, seconds=GPU_SECONDS)
    if together.outcome == "ok":
        return [together, *results]
    each: dict[str, Check[Kube]] = {name: _allocatable(run, {name: coming[name]}, held) for name in coming}
    return [*results, *await _one_by_one(run, each, kube)]


def _allocatable(run: Run, gpus: Mapping[str, int], held: Collection[str] = ()) -> Check[Kube]:
    return gates.GpusAllocatable(gpus, declared=declared_sharing(run.cluster, held), parts=run.seen.gpu_parts)


async def _held_back(run: Run, stage: str, kube: Kube) -> dict[str, StepResult]:
    """Tell at once of each node whose class of GPUs cannot come now, and who holds it back; return these rows."""
    held = await find_held(kube, run.cluster, _undivided(run))
    for result in held.values():
        hear_results(run, stage, CLUSTER)(result)
        run.view.show_wait(CLUSTER, stage, f"not waited for: {result.step}: {result.drift}")
    return held


def _undivided(run: Run) -> dict[str, str]:
    return {host.name: nvidia_runtime.undivided(run, host) for host in run.hosts}


async def _clear_classes(run: Run, stage: str) -> list[StepResult]:
    """Delete what is left of classes of GPUs: the plugin's own stage looked while nodes still changed theirs."""
    steps = [] if run.kind == "verify" else device_plugin.leftovers(run.cluster)
    return await by_api(run, stage, steps) if steps else []


async def _one_by_one(run: Run, checks: dict[str, Check[Kube]], kube: Kube, *, leave: bool = False) -> list[StepResult]:
    """Look once more, node by node, and name each that is not as wanted; it leaves the proof where that is asked."""
    results: list[StepResult] = []
    for name, check in checks.items():
        error: ShipwayError | None = None
        try:
            drift = await check.check(kube)
            if drift:
                error = PostconditionFailed(str(drift), fix=f"See `kubectl describe node {name}`, then run again.")
        except ShipwayError as caught:
            error = caught
        if error is None:
            results.append(StepResult(f"{check.name} ({name})", "ok"))
            continue
        results.append(StepResult(check.name, "failed", error=error.at(host=name, step=check.name)))
        if leave:
            run.ready.discard(name)
    return results


async def gpu_proof(run: Run, stage: str, host: str) -> list[StepResult]:
    """Prove every GPU of the nodes that are Ready; a plan makes no pods, so it cannot tell."""
    name = "every expected GPU can be scheduled and used"
    if run.allow is Impact.NOTHING:
        return [StepResult(name, "unknown", error=ShipwayError("a plan starts no test pods"))]
    kube = await run.kube()
    away = run.away
    others = {name: count for name, count in (await _elsewhere(kube)).items() if name not in away}
    wanted = {**others, **count_expected(run)}
    if away and not any(wanted.values()):
        run.proof = Proof("failed", sum(away.values()), error=none_ready(away))
    else:
        # A node whose kubelet died is Ready for 40 s more (kube-controller-manager, --node-monitor-grace-period).
        cluster, notes = await proven_as(kube, run.cluster)
        held = await find_held(kube, run.cluster, _undivided(run))
        today = tuple(f"{node} counts as it shares its GPUs today: {one.drift}" for node, one in held.items())
        settle = all(result.stands for result in run.results if result.stage == StageName.GPUS_ALLOCATABLE)
        found = await prove(
            kube, cluster, wanted, _see(run), hear_waits(run, stage, host), avoid=sorted(away), settle=settle, held=held
        )
        notes = () if found.outcome == "all held" else notes
        run.proof = replace(found, notes=(*found.notes, *notes, *today))
    if run.proof.outcome == "all held":
        return [StepResult(name, "unknown", error=Blocked("pods hold every GPU, so none is free to be proven"))]
    proof = StepResult(name, "failed" if run.proof.outcome == "failed" else "ok", error=run.proof.error)
    return [proof, *isolation(run, run.proof.without)]


def isolation(run: Run, without: Mapping[str, int | None]) -> list[StepResult]:
    """Return what the proof saw of `gpu.isolation`: of each node where a pod that asks for no GPU sees some, the fault.

    A host that is held open for pods that were given GPUs the old way has said so in its own stage, as drift.
    """
    if run.cluster.gpu.isolation == "off" or not without:
        return []
    held = {
        result.host for result in run.results if result.stage == StageName.GPU_ISOLATION and result.outcome == "drifted"
    }
    seen = {node: count for node, count in sorted(without.items()) if count}
    results: list[StepResult] = []
    for node in (node for node in seen if node not in held):
        fix = f"Run the bootstrap again; on {node} {VENDOR.closed}."
        message = f"a pod that asks for no GPU sees {seen[node]} GPUs of {node}"
        error = PostconditionFailed(message, host=node, step=ISOLATED, code="SHW-617", fix=fix)
        results.append(StepResult(ISOLATED, "failed", error=error))
    judged = not seen and None not in without.values()
    return [StepResult(ISOLATED, "ok")] if judged else results


async def _elsewhere(kube: Kube) -> dict[str, int]:
    """Return the GPUs of all Ready nodes: a test pod may land on one that this run was not about."""
    try:
        nodes, places = await nodes_by_name(kube), await count_places(kube)
    except ShipwayError:
        return {}  # the proof asks the API itself, and tells why it does not answer
    ready = {name: count for name, count in places.items() if not why_not_ready(nodes[name])}
    offers = await see_offers(kube, {name: places for name, places in ready.items() if places})
    return {name: offer.gpus for name, offer in offers.items()}


def _see(run: Run) -> dict[str, HostGpuFacts]:
    """Return what SSH showed of the hosts' GPUs; a toolkit may have been installed since the first look."""
    installed = {done.host for done in run.results if done.stage == StageName.NVIDIA_RUNTIME and done.stands}
    return {
        name: HostGpuFacts(
            survey.gpus,
            survey.driver_gpus,
            survey.driver_said,
            survey.toolkit or name in installed,
            parts=survey.driver_parts,
            uuids=survey.driver_uuids,
        )
        for name, survey in run.seen.surveys.items()
    }
