"""The stages of an upgrade that change something: fetched everywhere first, control planes, add-ons, workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from shipway.cluster.window import next_opening, open_now
from shipway.converge import On, Permit, converge, look_at_all
from shipway.edits.containerd import CONFIG
from shipway.errors import Blocked, PostconditionFailed, Refused, ShipwayError
from shipway.facts.services import UnitState
from shipway.host.session import Command, Host
from shipway.kube.drain import uncordon
from shipway.kubeadm.config import image_repository
from shipway.step import Check, Impact, Step, StepResult
from shipway.steps.kubernetes.kubeadm_objects import JoinsGetDeclared
from shipway.steps.kubernetes.retire import NodeClosed, NodeDrained
from shipway.steps.kubernetes.static_pods import ManifestsBack
from shipway.steps.kubernetes.user_kubeconfig import UserHasKubeconfig
from shipway.steps.runtime.containerd import ContainerdLoaded, CriAnswers
from shipway.steps.runtime.pause_image import SandboxImageAgrees
from shipway.steps.upgrade.control_plane import ControlPlaneRuns, ProxyRuns
from shipway.steps.upgrade.fetched import BESIDE, ImagesPulled, list_images
from shipway.steps.upgrade.gpu_jobs import GpuJobsOver
from shipway.steps.upgrade.node import UPGRADING, KubeletRunsVersion, NodeOpenedAgain, NodeReports
from shipway.steps.upgrade.possible import EtcdFits
from shipway.steps.upgrade.proof import STEP, NoGpuErrors, prove_host, take_namespace_away
from tasks import gates
from tasks.certificates.stages import KEPT, keep_renewed
from tasks.context import Run
from tasks.drift.parts import kubelet_declared
from tasks.locking import still_alone
from tasks.retire.allowed import losable
from tasks.stages.kubernetes_packages import PROGRAMS
from tasks.upgrade.look import control_planes_in_order, is_control, is_drained
from tasks.waiting import by_api, hear_results, hear_waits, wait_for

DRAIN_SECONDS = 1800.0
API_SECONDS, NODE_SECONDS, GPU_SECONDS = 180.0, 300.0, 300.0
AGAIN = "run `shipway upgrade` again"


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
        run.upgrade.begun = run.upgrade.changed = True
        return run.allow

    return permit


async def _bring(run: Run, stage: str, on: On, steps: Sequence[Check[On]]) -> list[StepResult]:
    on.forget()
    return await converge(steps, on, run.allow, hear_results(run, stage, on.name), permit_held(run))


def _failed(results: Sequence[StepResult]) -> bool:
    return any(result.outcome == "failed" for result in results)


def fetch_steps(run: Run, host: str) -> list[Check[Host]]:
    """Return what brings packages, the new kubeadm and images to a host, and changes nothing that runs."""
    cluster, family, version = run.cluster, run.family(host), run.cluster.kubernetes.version
    packages = dict.fromkeys(PROGRAMS, version)
    return [
        family.in_order(cluster),
        family.repository("kubernetes", cluster),
        family.fetched(f"packages of Kubernetes {version} are fetched", packages),
        family.beside("kubeadm", version, BESIDE),
        ImagesPulled(version, image_repository(cluster), is_control(run, host)),
    ]


async def fetch(run: Run, stage: str, host: str) -> list[StepResult]:
    """Fetch all that the upgrade installs and starts on a host."""
    return await _bring(run, stage, run.session(host), fetch_steps(run, host))


def _kubelet_steps(run: Run, host: str, *, by_kubeadm: bool) -> list[Check[Host]]:
    """Return the steps of a host's kubelet, after its API server: packages held as before, containerd that agrees."""
    cluster, family, version = run.cluster, run.family(host), run.cluster.kubernetes.version
    packages = family.in_version(
        f"kubelet and kubectl are {version}",
        {"kubelet": version, "kubectl": version},
        cluster.system.may_remove,
    )
    return [
        KubeletRunsVersion(version, packages, family.held(PROGRAMS), cluster, by_kubeadm=by_kubeadm),
        family.held(PROGRAMS),
        SandboxImageAgrees(list_images(version, image_repository(cluster))),
        ContainerdLoaded("containerd", (CONFIG,)),
        CriAnswers(),
    ]


def _kubeadm_steps(run: Run, host: str) -> list[Check[Host]]:
    cluster, family, version = run.cluster, run.family(host), run.cluster.kubernetes.version
    named, removable = f"kubeadm is {version}", cluster.system.may_remove
    return [family.in_order(cluster), family.in_version(named, {"kubeadm": version}, removable)]


async def upgrade_control_plane(run: Run, stage: str, host: str) -> list[StepResult]:
    """Upgrade a control plane, then the kubelet of its host; it is ready before the next one is begun.

    Its etcd stands still for a moment, so whether all others are well is asked once more right before.
    """
    session, spec, version = run.session(host), run.cluster.host(host), run.cluster.kubernetes.version
    results = await _empty(run, stage, host) if is_drained(run, host) else []
    if _failed(results):
        return results
    whole = EtcdFits(run.upgrade.have, version)
    steps: list[Check[Host]] = [
        ManifestsBack(),
        whole,
        *_kubeadm_steps(run, host),
        ControlPlaneRuns(version, run.cluster, spec),
    ]
    results += await _bring(run, stage, session, steps)
    if _failed(results):
        return _say_closed(run, host, results)
    if run.allow is not Impact.NOTHING:
        await run.reconnect()  # kubeadm has renewed the administrator's certificate with all others
        results.append(await keep_renewed(run))
        kube = await run.kube()
        results += [
            await wait_for(run, stage, one, kube, seconds=API_SECONDS)
            for one in (gates.ApiAnswers(), gates.EtcdHealthy())
        ]
        hear = hear_results(run, stage, host)
        results += await look_at_all([EtcdFits(version, version, API_SECONDS)], session, hear)
        if _failed(results):
            return _say_closed(run, host, results)
    results += await _bring(run, stage, session, _kubelet_steps(run, host, by_kubeadm=False))
    own = UserHasKubeconfig(run.cluster.target(spec).user)
    if run.allow is not Impact.NOTHING:
        results += [] if _failed(results) else await _bring(run, stage, session, [own])
    elif any(one.step == steps[-1].name and one.outcome == "drifted" for one in results):
        renewed = Blocked("kubeadm renews the control plane's certificates with its upgrade", host=host)
        results += [StepResult(name, "unknown", error=renewed) for name in (own.name, KEPT)]
    if _failed(results):
        return _say_closed(run, host, results)
    return results + await _prove_and_open(run, stage, host)


async def upgrade_addons(run: Run, stage: str, host: str) -> list[StepResult]:
    """Bring what kubeadm runs in the cluster to the version, once every control plane has it, and what joins get."""
    del host
    session = run.session(run.control.name)
    proxy = ProxyRuns(run.cluster.kubernetes.version, run.cluster, run.control)
    if run.allow is Impact.NOTHING and control_planes_in_order(run):
        return [StepResult(proxy.name, "unknown", error=Blocked("kubeadm brings them with the last control plane"))]
    results = await _bring(run, stage, session, [proxy])
    if _failed(results):
        return results
    joins = JoinsGetDeclared(run.cluster.kubernetes.minor, kubelet_declared(run))
    return results + await by_api(run, stage, [joins])


async def upgrade_worker(run: Run, stage: str, host: str) -> list[StepResult]:
    """Empty a worker, upgrade it, prove it, open it; one that cannot be emptied is opened again, unchanged.

    One that is not proven stays closed, and the error says so: what was begun there is gone on with by the next run.
    """
    results = await _empty(run, stage, host)
    if _failed(results):
        return results
    steps = [*_kubeadm_steps(run, host), *_kubelet_steps(run, host, by_kubeadm=True)]
    results += await _bring(run, stage, run.session(host), steps)
    if _failed(results):
        return _say_closed(run, host, results)
    return results + await _prove_and_open(run, stage, host)


async def _empty(run: Run, stage: str, host: str) -> list[StepResult]:
    """Close a node, let its GPU jobs end by what was decided of them, and evict its pods as budgets allow."""
    settings, version = run.cluster.upgrade, run.cluster.kubernetes.version
    hear = hear_waits(run, stage, host)
    over = GpuJobsOver(host, settings.gpu_jobs, settings.wait_minutes * 60.0, hear)
    begun = run.upgrade.hosts[host].begun(version)
    drained = NodeDrained(
        host,
        DRAIN_SECONDS,
        losable(run),
        evict_gpu_pods=True,
        on_wait=hear,
        again=AGAIN,
        kept=over.left,
        reopens=not begun,
    )
    closed = NodeClosed(host, f"{UPGRADING} {version} by Shipway")
    kube = await run.kube()
    results = await _bring(run, stage, kube, [closed, over])
    if _failed(results):
        pass
    elif run.allow is Impact.NOTHING and results[-1].outcome == "drifted":
        first = Blocked("what is left to evict is known once its GPU jobs are over", host=host)
        results.append(StepResult(drained.name, "unknown", error=first))
    elif run.allow is Impact.NOTHING or not (late := closed_until(run)):
        results += await _bring(run, stage, kube, [drained])
    else:
        error = Refused(f"the host was emptied too late: {late}", host=host, code="SHW-798", fix="Run again then.")
        results.append(StepResult(drained.name, "failed", error=error))
    if _failed(results) and run.allow is not Impact.NOTHING and not begun:
        await uncordon(kube, host)
    return results


async def _prove_and_open(run: Run, stage: str, host: str) -> list[StepResult]:
    """Wait until the node says that it is of the version and offers its GPUs, run a pod on each of them, open it."""
    if run.allow is Impact.NOTHING:
        return []
    kube, spec, version = await run.kube(), run.cluster.host(host), run.cluster.kubernetes.version
    session = run.session(host)
    session.forget()
    info = await session.read(UnitState("kubelet.service"))
    since = info.active_since if info.active == "active" else 0
    results = [await wait_for(run, stage, NodeReports(host, version, since), kube, seconds=NODE_SECONDS)]
    count = run.provable(spec)
    if count and not _failed(results):
        results.append(await wait_for(run, stage, gates.GpusAllocatable({host: count}), kube, seconds=GPU_SECONDS))
        results += [] if _failed(results) else [await _proof(run, stage, host, count)]
        session.forget()
        results += await look_at_all([NoGpuErrors(since)], session, hear_results(run, stage, host))
    if _failed(results):
        return _say_closed(run, host, results)
    opened = await _bring(run, stage, kube, [NodeOpenedAgain(host)])
    await session.do(Command(("rm", "-f", BESIDE)))
    # What the run closed it has opened: the host is as it was, so that is no change to tell of.
    return results + [replace(one, outcome="ok") if one.outcome == "changed" else one for one in opened]


async def _proof(run: Run, stage: str, host: str, count: int) -> StepResult:
    """Return the result of the GPU proof of one host; hosts of a wave are proven one after the other."""
    try:
        async with run.upgrade.proving:
            await prove_host(await run.kube(), run.cluster, host, count, hear_waits(run, stage, host))
    except ShipwayError as error:
        return StepResult(STEP, "failed", error=error.at(host=host, step=STEP))
    return StepResult(STEP, "ok")


def _say_closed(run: Run, host: str, results: Sequence[StepResult]) -> list[StepResult]:
    """Return the results with what a person must know of a host that failed in the middle: its node stays closed."""
    if run.allow is Impact.NOTHING or not is_drained(run, host):
        return list(results)
    fix = f"Mend what is named above it, then run again: {host} comes first then, and is opened once it is proven."
    error = PostconditionFailed(
        "it was not proven after its upgrade, so its node stays closed", host=host, code="SHW-796", fix=fix
    )
    return [*results, StepResult(f"node {host} takes pods again", "failed", error=error)]


async def end_upgrade(run: Run) -> None:
    """Take the namespace of the test pods away; what keeps from it is no news beside how the run ended."""
    if run.upgrade.changed:
        with contextlib.suppress(ShipwayError, TimeoutError):
            async with asyncio.timeout(30):
                await take_namespace_away(await run.kube())
