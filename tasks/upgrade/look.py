"""The looks of an upgrade: what each host runs, what forbids to go on, and the order in which hosts would come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from shipway.backup.script import script_of
from shipway.converge import look_at_all
from shipway.errors import Refused
from shipway.facts.versions import ProgramVersion, StaticPodImages, tag_of
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kube.drain import cordon_note
from shipway.kube.nodes import few, nodes_by_name
from shipway.kube.status import why_not_ready
from shipway.kubeadm.writes import MANIFESTS
from shipway.os.families import recognise
from shipway.rules.upgrades import etcd_floor, older_patch
from shipway.step import Check, Drift, Impact, StepResult
from shipway.steps.upgrade.control_plane import OPERATION, SECONDS
from shipway.steps.upgrade.gpu_jobs import GpuJob, find_jobs, gangs
from shipway.steps.upgrade.possible import (
    BackupYoung,
    BudgetsAllow,
    ControlPlanesReady,
    EtcdFits,
    FlagsKnown,
    GpusThere,
    KubeletsFit,
    NothingExpired,
    NothingLost,
    PathAllowed,
    RecordReadable,
    RoomThere,
    kubelet_of,
    pods_by_node,
    requested_gone,
    running_version,
)
from shipway.survey.first_look import survey
from tasks.context import Run
from tasks.retire.allowed import losable
from tasks.upgrade.waves import plan_waves
from tasks.upgrade_pass import HostVersions, OrderRow
from tasks.waiting import hear_results
from tasks.workloads import OWN_NAMESPACES

CONTROL = "control plane"


def is_control(run: Run, host: str) -> bool:
    """Say whether a host runs a control plane by the cluster file."""
    return run.cluster.host(host) in run.cluster.control_planes


def is_done(run: Run, host: str) -> bool:
    """Say whether a host was all of the version when it was looked at, and is not held closed by us."""
    seen = run.upgrade
    versions, version = seen.hosts.get(host), run.cluster.kubernetes.version
    return (
        versions is not None
        and versions.runs(version, seen.kubelets.get(host, ""))
        and seen.cordons.get(host) != "ours"
    )


async def look_at_versions(run: Run, stage: str, host: str) -> list[StepResult]:
    """Look at a host, and keep what it runs; raises what keeps from reaching it.

    An upgrade of a killed run that its host still works at is waited for first.
    """
    session, control = run.session(host), is_control(run, host)
    session.forget()
    if run.allow is not Impact.NOTHING:
        await session.settled(OPERATION, seconds=SECONDS)
    run.seen.families[host] = await recognise(session)
    version = run.cluster.kubernetes.version
    seen, kept = await asyncio.gather(survey(session), _versions(session))
    run.seen.surveys[host], run.upgrade.hosts[host] = seen, kept
    if not seen.joined:
        if control:
            fix = "Run a bootstrap first: an upgrade goes on with a control plane that is whole."
            raise Refused(
                "it is a control plane by the file, and has joined no cluster", host=host, code="SHW-784", fix=fix
            )
        run.upgrade.skipped[host] = "it has not joined the cluster: a bootstrap joins it in the new version"
        return [StepResult("the host has joined a cluster", "unknown", drift=Drift("not joined", "joined"))]
    checks: list[Check[Host]] = [NothingExpired(control), FlagsKnown(version)]
    if not kept.runs(version, version):
        checks.insert(0, RoomThere(control))
    return _decided(await look_at_all(checks, session, hear_results(run, stage, host)))


def _decided(results: Sequence[StepResult]) -> list[StepResult]:
    """Return the results with what cannot be determined as failed: what nobody can tell forbids an upgrade."""
    return [replace(one, outcome="failed") if one.outcome == "unknown" and one.error else one for one in results]


async def _versions(session: Host) -> HostVersions:
    kubeadm, program, images = await session.read(
        ProgramVersion("kubeadm"), ProgramVersion("kubelet"), StaticPodImages(MANIFESTS)
    )
    kubeadms = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
    static = tuple((name, tag_of(image)) for name, image in sorted(images.items()) if name in kubeadms)
    return HostVersions(kubeadm, program, static)


async def look_at_possible(run: Run, stage: str, host: str) -> list[StepResult]:
    """Look for all that forbids the upgrade, at once, and keep the order in which hosts would come."""
    kube = await run.kube()
    kube.forget()
    await _learn(run, kube)
    make_order(run)
    checks = _checks(run)
    hear = hear_results(run, stage, host)
    results, etcd = await asyncio.gather(look_at_all(checks, kube, hear), _on_control(run, stage))
    return _decided([*results, *etcd])


async def _on_control(run: Run, stage: str) -> list[StepResult]:
    """Return what etcd and the backups say, asked on a control plane's host."""
    session = run.session(run.control.name)
    seen = run.upgrade
    checks: list[Check[Host]] = [EtcdFits(seen.have, run.cluster.kubernetes.version)]
    if not seen.backup and seen.order:
        checks.append(BackupYoung(script_of(run.cluster)))
    return await look_at_all(checks, session, hear_results(run, stage, session.name))


async def _learn(run: Run, kube: Kube) -> None:
    """Keep what the API tells of versions, cordons, pods and GPU jobs."""
    seen = run.upgrade
    seen.have = await running_version(kube)
    nodes, pods, seen.jobs = await asyncio.gather(
        nodes_by_name(kube), kube.list_("v1", "Pod"), find_jobs(kube, run.cluster.upgrade.gpu_jobs)
    )
    seen.pods = pods_by_node(pods, OWN_NAMESPACES)
    for host in run.hosts:
        node = nodes.get(host.name)
        seen.kubelets[host.name] = kubelet_of(node or {})
        closed = bool(node and (node.get("spec") or {}).get("unschedulable"))
        seen.cordons[host.name] = "" if not closed else "ours" if node and cordon_note(node) else "another's"
        if host.name in seen.skipped or host in run.cluster.control_planes or is_done(run, host.name):
            continue
        if host.name not in seen.hosts:
            seen.skipped[host.name] = "it does not answer SSH"
        elif node is None:
            seen.skipped[host.name] = "it is no node of the cluster: a bootstrap joins it in the new version"
        elif seen.cordons[host.name] == "another's":
            seen.skipped[host.name] = "somebody else closed its node: open it, then run again"
        elif (why := why_not_ready(node)) and not _resumed(run, host.name):
            seen.skipped[host.name] = f"its node is not Ready ({why}): mend it, then run again"
        elif any(job.policy == "never" for job in _jobs(run, host.name)):
            seen.skipped[host.name] = f"GPU jobs that are never touched run there: {_jobs(run, host.name)[0].said}"
    _, metrics = await kube.raw("/metrics")
    seen.gone = requested_gone(metrics, run.cluster.kubernetes.version)
    run.upgrade.begun = run.upgrade.begun or any(_resumed(run, host.name) for host in run.hosts)


def _jobs(run: Run, host: str) -> list[GpuJob]:
    return [job for job in run.upgrade.jobs if job.node == host]


def _resumed(run: Run, host: str) -> bool:
    """Say whether an earlier run has begun with a host, and not ended: it comes before all others."""
    versions = run.upgrade.hosts.get(host)
    begun = versions is not None and versions.begun(run.cluster.kubernetes.version)
    return not is_done(run, host) and (begun or run.upgrade.cordons.get(host) == "ours")


def is_drained(run: Run, host: str) -> bool:
    """Say whether a host is drained before its kubelet is changed: a control plane only where users' pods run."""
    shared = run.cluster.schedules_on_control_plane or bool(run.upgrade.pods.get(host))
    return not is_control(run, host) or shared


def control_planes_in_order(run: Run) -> list[str]:
    """Return the control planes that are left, one that was begun first."""
    names = [host.name for host in run.cluster.control_planes if not is_done(run, host.name)]
    return sorted(names, key=lambda name: not _resumed(run, name))


def waves_in_order(run: Run) -> list[tuple[str, ...]]:
    """Return the waves of workers that are left."""
    left = [
        one.name for one in run.cluster.workers if not is_done(run, one.name) and one.name not in run.upgrade.skipped
    ]
    burden = {name: len(_jobs(run, name)) for name in left}
    resumed = [name for name in left if _resumed(run, name)]
    together = gangs(run.upgrade.jobs)
    size = run.cluster.upgrade.hosts_at_once
    return plan_waves(left, size=size, gangs=together, resumed=resumed, burden=burden)


def make_order(run: Run) -> None:
    """Keep the order, and what a person should know before it begins."""
    seen, version = run.upgrade, run.cluster.kubernetes.version
    controls = control_planes_in_order(run)
    waves = [("first alone" if not at else f"wave {at}", wave) for at, wave in enumerate(waves_in_order(run))]
    named = [(f"{CONTROL} {number}", (name,)) for number, name in enumerate(controls, 1)]
    seen.order = [_row(run, name, wave) for wave, names in (*named, *waves) for name in names]
    if not seen.order:
        return
    notes = [f"v{seen.have} to v{version}"]
    if controls:
        notes.append(_no_return(run, controls))
    if (newest := older_patch(seen.have)) and newest.rpartition(".")[0] != version.rpartition(".")[0]:
        notes.append(f"{newest} is the last patch of the running minor: to go by it first is safer (`--to {newest}`)")
    settings = run.cluster.upgrade
    if waves:
        jobs = f"; GPU jobs: {settings.gpu_jobs}"
        jobs += f", at most {settings.wait_minutes} minutes a host" if settings.gpu_jobs == "wait" else ""
        soak = f"the first worker goes alone, and is watched for {settings.soak_seconds} s"
        asked = "; each wave waits for an approval" if settings.approve else ""
        notes.append(f"{soak}; then {settings.hosts_at_once} at once{jobs}{asked}")
    if run.cluster.repair.window is not None:
        notes.append("no host is begun outside the maintenance window (repair.window); the next run goes on")
    if seen.gone:
        notes.append(f"clients still ask for APIs that v{version} does not have: {few(seen.gone)}")
    notes += [f"{name} is left out: {why}" for name, why in sorted(seen.skipped.items())]
    seen.notes = notes


def _row(run: Run, name: str, wave: str) -> OrderRow:
    seen = run.upgrade
    pods = seen.pods.get(name, 0) if is_drained(run, name) else 0
    jobs = tuple(job.said for job in _jobs(run, name))
    return OrderRow(name, wave, seen.kubelets.get(name, ""), run.cluster.kubernetes.version, pods, jobs)


def _no_return(run: Run, controls: Sequence[str]) -> str:
    """Say where the point of no return is: the last control plane, whose etcd raises the cluster's version with it."""
    floor = etcd_floor(run.upgrade.have, run.cluster.kubernetes.version)
    why = " (it brings etcd's next minor)" if floor else ""
    return (
        f"the point of no return is {controls[-1]}, the last control plane{why}: before it the others serve as they "
        "did, after it only a backup of before leads back (docs/upgrade.md)"
    )


def _checks(run: Run) -> list[Check[Kube]]:
    """Return what the API is asked; only hosts that are still to come can forbid anything."""
    seen, version = run.upgrade, run.cluster.kubernetes.version
    rows = [row.host for row in seen.order]
    fresh = [name for name in rows if not _resumed(run, name)]
    drained = [name for name in rows if is_drained(run, name)]
    # In the middle of an upgrade pods are on their way: the host that was begun is finished, and its drain asks itself.
    guarded = drained if len(fresh) == len(rows) else []
    whole = [one.name for one in run.cluster.control_planes if not _resumed(run, one.name)]
    gpus = {name: count for name in fresh if (count := run.provable(run.cluster.host(name)))}
    local = losable(run)
    return [
        PathAllowed(version),
        ControlPlanesReady(whole),
        OneVersion(run),
        KubeletsFit(version),
        RecordReadable(version),
        GpusThere(gpus),
        BudgetsAllow(guarded),
        *(NothingLost(name, local, [job.pod for job in _jobs(run, name) if job.ends]) for name in drained),
    ]


class OneVersion:
    """The control planes run one version, or the new one: who mixed others decides how to go on."""

    name = "the control planes run one version, or the new one"

    def __init__(self, run: Run) -> None:
        self._run = run

    async def check(self, on: Any) -> Drift | None:
        """Compare the manifests that were seen. Raises Refused SHW-793."""
        del on
        wanted = f"v{self._run.cluster.kubernetes.version}"
        seen = self._run.upgrade.hosts
        tags = {
            name: sorted({tag for part, tag in versions.static if part != "etcd"} - {wanted})
            for name, versions in seen.items()
            if is_control(self._run, name)
        }
        others = sorted({tag for found in tags.values() for tag in found})
        if len(others) > 1:
            said = "; ".join(f"{name}: {', '.join(found)}" for name, found in sorted(tags.items()) if found)
            fix = "Bring them to one version first: `shipway upgrade` with the newest of these."
            raise Refused(f"control planes run different versions: {said}", code="SHW-793", fix=fix)
        return None
