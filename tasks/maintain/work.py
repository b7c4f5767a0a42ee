"""The stages of a maintenance that change something: updates fetched everywhere, control planes, workers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from shipway.converge import look_at_all
from shipway.errors import Blocked, Refused, ShipwayError
from shipway.gpu.classes import label_of
from shipway.gpu.jobs import find_jobs
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kube.drain import cordon, uncordon
from shipway.kube.nodes import few
from shipway.retry import patiently
from shipway.step import Check, Drift, Impact, StepResult
from shipway.steps.gpu.classes import NodeClass
from shipway.steps.gpu.driver.holders import Nobody
from shipway.steps.kubernetes.retire import NodeClosed, refuse_in_use
from shipway.steps.maintain.pause import QuorumStays
from shipway.steps.maintain.restart import RunsInstalled
from shipway.steps.runtime.containerd import CriAnswers
from shipway.steps.upgrade.possible import EtcdFits
from tasks import gates
from tasks.context import Run
from tasks.drivers import RESTART, prove_driver, restart_step
from tasks.imex import bring_imex
from tasks.maintain.look import MAINTAINING, has_gpus, is_resumed, read_system, why_restart_for_gpus
from tasks.passes.maintain import SystemState
from tasks.stages import container_runtime, gpu_driver, nvidia_runtime
from tasks.waiting import hear_results, hear_waits, wait_for
from tasks.waves.hosts import decided, is_control, is_drained, learn_pods
from tasks.waves.turn import bring, empty, failed, permit_held, prove_and_open, say_closed
from tasks.workloads import OWN_NAMESPACES

API_SECONDS, RUNTIME_SECONDS, FREE_SECONDS, ASK_SECONDS = 300.0, 180.0, 120.0, 20.0
NOTE = f"{MAINTAINING} by Shipway"


async def fetch(run: Run, stage: str, host: str) -> list[StepResult]:
    """Fetch the lists of packages and all that is pending, and keep what is pending by them."""
    scope, family, session = run.cluster.maintain.packages, run.family(host), run.session(host)
    if scope == "none":
        return []
    kernel = run.maintenance.hosts[host].kernel
    results = await bring(run, stage, session, [family.indexed()])
    if not failed(results):
        results += await bring(run, stage, session, [family.updates_fetched(scope, kernel=kernel)])
    if run.allow is not Impact.NOTHING and not failed(results):
        session.forget()
        run.maintenance.hosts[host] = await read_system(run, host)
    return results


def system_steps(run: Run, stage: str, host: str, state: SystemState) -> list[Check[Host]]:
    """Return what brings a host's packages and containerd to what is wanted, and restarts it where that asks for it."""
    if run.maintenance.driver:
        return _driver_steps(run, stage, host)
    cluster, family, settings, spec = run.cluster, run.family(host), run.cluster.maintain, run.cluster.host(host)
    steps: list[Check[Host]] = []
    if settings.packages != "none" or state.runtime:
        steps.append(family.in_order(cluster))
    if settings.packages != "none":
        steps.append(family.updated(settings.packages, cluster.system.may_remove, kernel=state.kernel))
    if state.runtime:
        steps += container_runtime.steps(cluster, spec, family)
        steps += nvidia_runtime.steps(cluster, spec, family) if has_gpus(run, host) else []

    async def anew() -> None:
        await run.connect_anew(host)

    async def more(on: Host) -> list[str]:
        return await why_restart_for_gpus(run, host, on) if state.mode else []

    steps.append(
        RunsInstalled(
            family,
            settings.reboot,
            cluster.runtime.package,
            has_gpus(run, host),
            settings.reboot_minutes,
            more=more,
            permit=partial(_may_restart, run, host),
            anew=anew,
            on_wait=hear_waits(run, stage, host),
        )
    )
    return steps


def _driver_steps(run: Run, stage: str, host: str) -> list[Check[Host]]:
    """Return what brings a host's driver, and nothing else of its system; none on a host that needs none."""
    cluster, family, spec = run.cluster, run.family(host), run.cluster.host(host)
    restart = replace(restart_step(run, stage, host), permit=partial(_may_restart, run, host))
    before = gpu_driver.before_restart(cluster, spec, family)
    after = gpu_driver.after_restart(cluster, spec, family)
    return [family.in_order(cluster), *before, *([restart] if before else []), *after]


async def _may_restart(run: Run, host: str) -> None:
    """Ask right before a restart whether etcd bears it, and whether nobody has opened the node since it was emptied.

    Minutes have gone by, and packages, since then. Raises Refused SHW-823, SHW-714, SHW-795.
    """
    if is_control(run, host):
        await QuorumStays().check(run.session(run.control.name))
    await patiently(lambda: _refuse_in_use(run, host), seconds=ASK_SECONDS)


async def _refuse_in_use(run: Run, host: str) -> None:
    """Refuse to end pods of users, and GPU jobs that are waited for or never touched, by a restart."""
    kube = await run.kube()
    await refuse_in_use(kube, host, () if is_drained(run, host) else OWN_NAMESPACES)
    jobs = await find_jobs(kube, run.cluster.upgrade.gpu_jobs, host)
    if left := [job.said for job in jobs if job.policy in ("wait", "never")]:
        fix = "Let their owners end them, then run again."
        raise Refused(f"a restart would end {few(left)}", host=host, code="SHW-795", fix=fix)


async def _is_in_use(run: Run, host: str) -> bool:
    """Say whether pods are there that a restart would end, or may come at any moment."""
    try:
        await _refuse_in_use(run, host)
    except ShipwayError as error:
        return isinstance(error, Refused)  # where nobody can tell, the proof does
    return False


async def _change(run: Run, stage: str, host: str) -> list[StepResult]:
    """Bring a host's system to what is wanted; a plan says of the restart what it cannot know yet."""
    state = run.maintenance.hosts[host]
    if state.mode and run.allow is not Impact.NOTHING:
        return await _change_divided(run, stage, host)
    steps = system_steps(run, stage, host, state)
    results = await bring(run, stage, run.session(host), steps)
    if run.maintenance.driver:
        return await _end_of_driver(run, stage, host, results)
    if run.allow is Impact.NOTHING and results[-1].outcome == "ok" and (state.pending or state.runtime):
        later = Blocked("whether it is restarted is known once its packages are changed", host=host)
        results[-1] = replace(results[-1], outcome="unknown", error=later)
    return results


async def _change_divided(run: Run, stage: str, host: str) -> list[StepResult]:
    """Bring a host's system to what is wanted, and its GPUs into a mode of MIG that waits for the restart.

    No plugin is there meanwhile, for one offers what it saw when it started; the node comes back in its declared class
    once its GPUs are divided so. Where pods hold some of them it is not restarted for that, and the result says so.
    """
    kube, spec, session = await run.kube(), run.cluster.host(host), run.session(host)
    state, node = run.maintenance.hosts[host], NodeClass(host, label_of(run.cluster, host))
    (divided,) = nvidia_runtime.divided_as(run.cluster.gpu_sharing_of(spec))
    try:
        earlier = await node.leave(kube)
    except Blocked as error:
        kept = StepResult(divided.name, "unknown", error=error)
        return [kept, *await bring(run, stage, session, system_steps(run, stage, host, replace(state, mode=False)))]
    last: list[StepResult] = []
    try:
        results = await bring(run, stage, session, system_steps(run, stage, host, state))
        results += [] if failed(results) else await prove_driver(run, stage, host)
        last = [] if failed(results) else await bring(run, stage, session, [divided])
    finally:
        done = bool(last) and last[0].outcome in ("ok", "changed")
        await patiently(lambda: node.come_back(kube, earlier, as_declared=done), seconds=API_SECONDS)
    return results + last


async def _end_of_driver(run: Run, stage: str, host: str, results: list[StepResult]) -> list[StepResult]:
    """Return the results with the proof that the driver answers; a plan says of the restart what it cannot know yet."""
    if run.allow is Impact.NOTHING:
        later = Blocked("whether it is restarted is known once its driver is changed", host=host)
        at = next((at for at, one in enumerate(results) if one.step == RESTART), len(results))
        changes = any(one.outcome == "drifted" for one in results[:at])
        return [
            replace(one, outcome="unknown", error=later)
            if changes and one.step == RESTART and one.outcome == "ok"
            else one
            for one in results
        ]
    if failed(results) or not has_gpus(run, host):
        return results
    results += await prove_driver(run, stage, host)
    more = [] if failed(results) else await bring_imex(run, stage, host, run.allow, permit_held(run))
    # Another host may just be restarting, and not tell its fabric: a bootstrap or a drift pass has the rest then.
    return results + [replace(one, outcome="unknown") if isinstance(one.error, Blocked) else one for one in more]


def was_refused(results: Sequence[StepResult]) -> bool:
    """Say whether nothing failed but the restart, which was not begun: the host works as it did."""
    wrong = [one for one in results if one.outcome == "failed"]
    last = results[-1]
    return wrong == [last] and isinstance(last.error, Refused) and last.step == RunsInstalled.name


async def maintain_control_plane(run: Run, stage: str, host: str) -> list[StepResult]:
    """Maintain a control plane's host; etcd is asked right before, and is well again before the next one is begun."""
    lead, version = run.session(run.control.name), run.cluster.kubernetes.version
    before: list[Check[Host]] = [] if is_resumed(run, host) else [EtcdFits(version, version), QuorumStays()]
    results = decided(await look_at_all(before, lead, hear_results(run, stage, host)))
    if failed(results):
        return results
    if not is_drained(run, host):
        results += await bring(run, stage, await run.kube(), [NodeClosed(host, NOTE)])
        await learn_pods(run, host)
    if is_drained(run, host) and not failed(results):
        results += await empty(run, stage, host, NOTE, begun=is_resumed(run, host))
    results += [] if failed(results) else await _let_go(run, stage, host)
    return results if failed(results) else results + await _change_and_prove(run, stage, host)


async def maintain_worker(run: Run, stage: str, host: str) -> list[StepResult]:
    """Empty a worker, maintain its system, prove it, open it; one that cannot be emptied is opened again, unchanged."""
    results = await empty(run, stage, host, NOTE, begun=is_resumed(run, host))
    results += [] if failed(results) else await _let_go(run, stage, host)
    return results if failed(results) else results + await _change_and_prove(run, stage, host)


async def _let_go(run: Run, stage: str, host: str) -> list[StepResult]:
    """Wait until nobody holds a GPU of an emptied host whose driver is to change; else open it again, unchanged."""
    if not run.maintenance.driver or run.allow is Impact.NOTHING or not has_gpus(run, host):
        return []
    results = [await wait_for(run, stage, Nobody(), run.session(host), seconds=FREE_SECONDS)]
    if failed(results) and not is_resumed(run, host):
        await uncordon(await run.kube(), host)
    return results


async def _change_and_prove(run: Run, stage: str, host: str) -> list[StepResult]:
    """Maintain the system of a closed host, prove the host and open it.

    One whose restart is refused at the last moment works as before: it is proven and opened, and counts as failed. Its
    GPUs are not, where pods have come that may hold them.
    """
    results = await _change(run, stage, host)
    if run.allow is Impact.NOTHING:
        return results
    if failed(results) and not was_refused(results):
        with contextlib.suppress(ShipwayError):  # what failed is the news
            await cordon(await run.kube(), host, NOTE)  # again, where somebody has opened it meanwhile
        return say_closed(run, host, results)
    in_use = failed(results) and await _is_in_use(run, host)
    if is_control(run, host):
        well = await _wait_until_well(run, stage, host)
        results += well
        if failed(well):
            return say_closed(run, host, results)
    return results + await _prove(run, stage, host, gpus=not in_use)


async def _wait_until_well(run: Run, stage: str, host: str) -> list[StepResult]:
    """Wait until the API and etcd are well again after a control plane's turn, and the run holds the cluster."""
    kube, version = await run.kube(), run.cluster.kubernetes.version
    results = [
        await wait_for(run, stage, one, kube, seconds=API_SECONDS)
        for one in (gates.ApiAnswers(), gates.EtcdHealthy(), StillHeld(run))
    ]
    whole = EtcdFits(version, version, API_SECONDS)
    return results + decided(await look_at_all([whole], run.session(host), hear_results(run, stage, host)))


async def _prove(run: Run, stage: str, host: str, *, gpus: bool) -> list[StepResult]:
    """Wait for containerd, then prove and open the host; with `gpus` also each of its GPUs."""
    runs = await wait_for(run, stage, CriAnswers(), run.session(host), seconds=RUNTIME_SECONDS)
    if runs.outcome != "ok":
        return say_closed(run, host, [runs])
    return [runs, *await prove_and_open(run, stage, host, run.maintenance.kubelets[host], gpus=gpus)]


@dataclass(frozen=True)
class StillHeld:
    """The run holds the cluster: its lease could not be renewed while the only API was away."""

    run: Run
    name: str = "the run holds the cluster"

    async def check(self, on: Kube) -> Drift | None:
        """Ask what the lease's renewal heard last."""
        del on
        lost = self.run.locks.lost
        return Drift(lost.message, "its lease renewed") if lost else None
