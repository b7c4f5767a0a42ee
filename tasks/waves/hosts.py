"""The hosts of a run in waves: which are control planes, who closed which node, whose GPU jobs run there, who waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from shipway.gpu.jobs import GpuJob, find_jobs, gangs
from shipway.kube.client import Kube
from shipway.kube.drain import cordon_note
from shipway.kube.nodes import nodes_by_name
from shipway.kube.owners import controller_of
from shipway.kube.status import why_not_ready, why_pressed
from shipway.kube.webhooks import list_webhooks
from shipway.step import StepResult
from shipway.steps.kubernetes.webhooks import warn_of
from shipway.steps.upgrade.possible import kubelet_of, pods_by_node
from tasks.context import Run
from tasks.passes.waves import Cordon
from tasks.waves.order import count_alone, plan_waves
from tasks.waves.soak import keepers_by_node, pending
from tasks.workloads import OWN_NAMESPACES

CONTROL = "control plane"
OfHost = Callable[[Run, str], bool]  # what a kind of run says of one of its hosts, by its name


def is_control(run: Run, host: str) -> bool:
    """Say whether a host runs a control plane by the cluster file."""
    return run.cluster.host(host) in run.cluster.control_planes


def is_drained(run: Run, host: str) -> bool:
    """Say whether a host is drained in its turn: a control plane only where users' pods run."""
    shared = run.cluster.schedules_on_control_plane or bool(run.waves.pods.get(host))
    return not is_control(run, host) or shared


async def learn_pods(run: Run, host: str) -> None:
    """Keep how many pods of users are on a host now: the first look may be hours old. Raises the API's errors."""
    kube = await run.kube()
    kube.forget()
    pods = await kube.list_("v1", "Pod", fields=f"spec.nodeName={host}")
    run.waves.pods[host] = pods_by_node(pods, OWN_NAMESPACES).get(host, 0)


def jobs_on(run: Run, host: str) -> list[GpuJob]:
    """Return the pods that hold GPUs of a host."""
    return [job for job in run.waves.jobs if job.node == host]


def decided(results: Sequence[StepResult]) -> list[StepResult]:
    """Return the results with what cannot be determined as failed: what nobody can tell forbids the run."""
    return [replace(one, outcome="failed") if one.outcome == "unknown" and one.error else one for one in results]


def closed_by_us(node: Mapping[str, Any] | None) -> Cordon:
    """Return who closed a node: Shipway, or somebody else."""
    if not ((node or {}).get("spec") or {}).get("unschedulable"):
        return ""
    return "ours" if node and cordon_note(node) else "another's"


def why_closed(node: Mapping[str, Any]) -> str:
    """Return why a host is left out whose node is closed, and not by this kind of run."""
    note = cordon_note(node)
    if note:
        return f"another run of Shipway closed its node ({note}): see that to its end, then run again"
    return "somebody else closed its node: open it, then run again"


async def learn_nodes(
    run: Run,
    kube: Kube,
    *,
    reached: Collection[str],
    done: OfHost,
    resumed: OfHost,
    closed_by: Callable[[Mapping[str, Any] | None], Cordon] = closed_by_us,
) -> None:
    """Keep what the API tells of nodes, cordons, pods, GPU jobs and webhooks, and why a worker is left out.

    `reached` are the hosts that were looked at; `done` and `resumed` say of a host whether it needs nothing, and
    whether an earlier run has begun with it; `closed_by` says of a node whose cordon it has. Raises the API's errors.
    """
    seen = run.waves
    nodes, pods, seen.jobs, seen.webhooks = await asyncio.gather(
        nodes_by_name(kube),
        kube.list_("v1", "Pod"),
        find_jobs(kube, run.cluster.upgrade.gpu_jobs),
        list_webhooks(kube),
    )
    seen.pods = pods_by_node(pods, OWN_NAMESPACES)
    seen.keepers = keepers_by_node(pods)
    seen.pending = dict(Counter(str(controller_of(one).get("uid")) for one in pending(pods)))
    for host in run.hosts:
        node = nodes.get(host.name)
        seen.kubelets[host.name] = kubelet_of(node or {})
        seen.cordons[host.name] = closed_by(node)
        if host.name in seen.skipped or host in run.cluster.control_planes or done(run, host.name):
            continue
        if host.name not in reached:
            seen.skipped[host.name] = "it does not answer SSH"
        elif node is None:
            seen.skipped[host.name] = "it is no node of the cluster: a bootstrap joins it"
        elif seen.cordons[host.name] == "another's":
            seen.skipped[host.name] = why_closed(node)
        elif (why := why_not_ready(node)) and not resumed(run, host.name):
            seen.skipped[host.name] = f"its node is not Ready ({why}): mend it, then run again"
        elif (why := why_pressed(node)) and not resumed(run, host.name):
            seen.skipped[host.name] = f"its kubelet is short ({why}): mend it, then run again"
        elif any(job.policy == "never" for job in jobs_on(run, host.name)):
            seen.skipped[host.name] = f"GPU jobs that are never touched run there: {jobs_on(run, host.name)[0].said}"
    seen.begun = seen.begun or any(resumed(run, host.name) for host in run.hosts)


def control_planes_left(run: Run, done: OfHost, resumed: OfHost) -> list[str]:
    """Return the control planes that are left, those that were begun first; `done` and `resumed` as above."""
    left = [one.name for one in run.cluster.control_planes if _is_left(run, one.name, done)]
    return sorted(left, key=lambda name: not resumed(run, name))


def waves_left(run: Run, done: OfHost, resumed: OfHost) -> list[tuple[str, ...]]:
    """Return the waves of the workers that are left, as the section `upgrade` of the cluster file has them."""
    left = [one.name for one in run.cluster.workers if _is_left(run, one.name, done)]
    burden = {name: len(jobs_on(run, name)) for name in left}
    size, together = run.cluster.upgrade.hosts_at_once, gangs(run.waves.jobs)
    begun = [name for name in left if resumed(run, name)]
    return plan_waves(left, size=size, gangs=together, resumed=begun, burden=burden, kinds=run.waves.kinds)


def _is_left(run: Run, host: str, done: OfHost) -> bool:
    return host not in run.waves.skipped and not done(run, host)


def places(
    controls: Sequence[str], waves: Sequence[Sequence[str]], kinds: Mapping[str, str] | None = None
) -> list[tuple[str, str]]:
    """Return each host with the name of its place in the order."""
    named = [(name, f"{CONTROL} {number}") for number, name in enumerate(controls, 1)]
    alone = max(1, count_alone(waves, kinds or {}))
    words = ["first alone", *(f"alone {at}" for at in range(2, alone + 1))]
    words += [f"wave {at}" for at in range(1, len(waves) - alone + 1)]
    return named + [(name, word) for word, wave in zip(words, waves, strict=False) for name in wave]


def drained_at_once(run: Run) -> list[list[str]]:
    """Return the hosts of the order that are drained, place by place: those of one place are drained together."""
    rows = [row for row in run.waves.order if is_drained(run, row.host)]
    return [[row.host for row in rows if row.wave == place] for place in dict.fromkeys(row.wave for row in rows)]


def notes_on_waves(run: Run, waves: Sequence[Sequence[str]]) -> list[str]:
    """Return what a person should know of how the workers come, and of who is left out."""
    settings, notes = run.cluster.upgrade, []
    if waves:
        jobs = f"; GPU jobs: {settings.gpu_jobs}"
        jobs += f", at most {settings.wait_minutes} minutes a host" if settings.gpu_jobs == "wait" else ""
        alone = count_alone(waves, run.waves.kinds)
        who = "the first worker goes" if alone < 2 else f"{alone} workers, one of each kind of GPUs and kernel, go"  # noqa: PLR2004
        soak = f"{who} alone, and is watched for {settings.soak_seconds} s"
        asked = "; each wave waits for an approval" if settings.approve else ""
        notes.append(f"{soak}; then {settings.hosts_at_once} at once{jobs}{asked}")
    notes += warn_of(run.waves.webhooks, drained_at_once(run))
    if run.cluster.repair.window is not None:
        notes.append("no host is begun outside the maintenance window (repair.window); the next run goes on")
    return notes


def notes_on_skipped(run: Run) -> list[str]:
    """Return who is left out, with the reason."""
    return [f"{name} is left out: {why}" for name, why in sorted(run.waves.skipped.items())]
