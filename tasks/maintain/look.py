"""The looks of a maintenance: each host's system, what forbids to go on, and the order in which hosts would come."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from shipway.backup.script import script_of
from shipway.converge import look_at_all
from shipway.errors import Blocked, Refused
from shipway.facts.packages import describe_pending
from shipway.gpu.chosen import VENDOR
from shipway.gpu.driver.generations import SPACES, gpus, read_devices
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kube.drain import cordon_note
from shipway.kube.nodes import few, nodes_by_name, taints_of
from shipway.kube.status import why_not_ready
from shipway.os.families import recognise
from shipway.os.family import Family
from shipway.step import Check, Drift, Impact, StepResult, can_change
from shipway.steps.gpu.driver.declared import DriverDeclared
from shipway.steps.gpu.driver.imex import ImexLeftToPods
from shipway.steps.gpu.mig import why_restart_for_mode
from shipway.steps.kubernetes.health_cluster import OWN_TAINTS
from shipway.steps.kubernetes.nodes import CONTROL_PLANE_TAINTS
from shipway.steps.maintain.pause import QuorumStays
from shipway.steps.maintain.restart import (
    DKMS,
    NobodyAtWork,
    NothingInhibits,
    checks_of_restart,
    read_boot,
    why_restart,
)
from shipway.steps.upgrade.possible import BackupYoung, EtcdFits, NothingExpired, RoomThere
from shipway.survey.first_look import survey
from tasks import imex
from tasks.context import Run
from tasks.passes.maintain import SystemState
from tasks.passes.waves import Cordon, OrderRow
from tasks.stages import gpu_driver, nvidia_runtime
from tasks.waiting import hear_results
from tasks.waves.forbids import shared_checks
from tasks.waves.hosts import (
    closed_by_us,
    control_planes_left,
    decided,
    is_control,
    is_drained,
    jobs_on,
    learn_nodes,
    notes_on_skipped,
    notes_on_waves,
    places,
    waves_left,
    why_closed,
)

MAINTAINING = "maintenance"  # how the note on a node begins that a maintenance keeps closed: only one opens it
SETTLE_SECONDS = 1800
# Parts that run from the boot on: after these a restart is likely.
RESTARTS = ("kernel", "libc", "openssl", "systemd", "microcode")
KEEPS = ("NoSchedule", "NoExecute")


def refuse_undeclared(run: Run) -> None:
    """Raise Refused SHW-694 where the file declares no driver that a run could bring."""
    if run.cluster.gpu.driver.source == "none":
        fix = "Write `gpu.driver: {source: cuda, branch: 580}` or another one into it (docs/stages/gpu-driver.md)."
        raise Refused("the cluster file declares no driver to bring", code="SHW-694", fix=fix)


def is_done(run: Run, host: str) -> bool:
    """Say whether nothing of a host is to be changed, and it is not held closed by us."""
    state = run.maintenance.hosts.get(host)
    return state is not None and not state.needs and run.maintenance.cordons.get(host) != "ours"


def is_resumed(run: Run, host: str) -> bool:
    """Say whether an earlier maintenance has begun with a host, and not ended: it comes before all others."""
    return run.maintenance.cordons.get(host) == "ours"


async def look_at_system(run: Run, stage: str, host: str) -> list[StepResult]:
    """Look at a host's system, and keep it; raises what keeps from reaching it.

    Packages that a killed run's host still works at are waited for first.
    """
    session = run.session(host)
    session.forget()
    family = run.seen.families[host] = await recognise(session)
    if run.allow is not Impact.NOTHING:
        await session.settled(family.operation, seconds=SETTLE_SECONDS)
    seen = run.seen.surveys[host] = await survey(session)
    if not seen.joined:
        if is_control(run, host):
            fix = "Run a bootstrap first: a maintenance begins with control planes that are whole."
            raise Refused("it is a control plane by the file, and has joined no cluster", code="SHW-784", fix=fix)
        run.maintenance.skipped[host] = "it has not joined the cluster: a bootstrap joins it"
        return [StepResult("the host has joined a cluster", "unknown", drift=Drift("not joined", "joined"))]
    state = run.maintenance.hosts[host] = await read_system(run, host)
    control = is_control(run, host)
    checks: list[Check[Host]] = [NothingExpired(control)]
    if state.driver:
        spec = run.cluster.host(host)
        checks += [RoomThere(control), NobodyAtWork(family), NothingInhibits()]
        checks += gpu_driver.checks(run.cluster, spec, family)
        if not seen.driver_gpus:
            run.maintenance.mended.add(host)
    if state.pending or state.runtime:
        checks += [RoomThere(control), NobodyAtWork(family)]
    if state.reasons:
        checks += checks_of_restart(family, gpus=has_gpus(run, host))
    return decided(await look_at_all(list(dict.fromkeys(checks)), session, hear_results(run, stage, host)))


def has_gpus(run: Run, host: str) -> bool:
    """Say whether a host is expected to have GPUs."""
    return run.gpus_of(run.cluster.host(host)) > 0


async def read_system(run: Run, host: str) -> SystemState:
    """Return what a host's system is. Raises what keeps from telling."""
    if run.maintenance.driver:
        return await _read_driver(run, host)
    session, family, settings = run.session(host), run.family(host), run.cluster.maintain
    boot, kernel = await asyncio.gather(read_boot(session), may_change_kernel(run, host, session))
    reasons, runtime, modes = await asyncio.gather(
        why_restart(session, family, settings.reboot, run.cluster.runtime.package),
        _runtime(run, session, family),
        why_restart_for_gpus(run, host, session),
    )
    why = (*reasons, *modes)
    known = SystemState(reasons=why, running=boot.kernel, runtime=runtime, kernel=kernel, mode=bool(modes))
    if settings.packages == "none":
        return known
    pending, drift = await asyncio.gather(
        family.pending(session, settings.packages, kernel=kernel),
        family.updated(settings.packages, run.cluster.system.may_remove, kernel=kernel).check(session),
    )
    return replace(known, pending=tuple(pending), held=drift is not None and not pending)


async def _read_driver(run: Run, host: str) -> SystemState:
    """Return what a host's driver is, and keep which GPUs and kernel it drives: the first of each kind goes alone."""
    session, spec = run.session(host), run.cluster.host(host)
    boot = await read_boot(session)
    if not gpu_driver.is_declared(run.cluster, spec) or not has_gpus(run, host):
        return SystemState(running=boot.kernel)
    declared = gpu_driver.declared(run.cluster, spec, run.family(host), run.file)
    asked = [one for one in declared if isinstance(one, DriverDeclared | ImexLeftToPods)]
    drift, spaces = await asyncio.gather(_first_drift([*asked, *imex.steps(run, host)], session), session.read(SPACES))
    ids = sorted({f"{one.id:04x}" for one in gpus(read_devices(spaces.stdout))})
    run.maintenance.kinds[host] = " ".join((*ids, boot.kernel))
    return SystemState(
        running=boot.kernel, driver=(drift.have, run.cluster.gpu.driver.said) if drift is not None else None
    )


async def _first_drift(steps: Sequence[Check[Host]], on: Host) -> Drift | None:
    """Return the first drift that a step finds which changes something; what cannot be told yet is none."""
    for one in steps:
        try:
            drift = await one.check(on) if can_change(one) else None
        except Blocked:
            continue
        if drift:
            return drift
    return None


async def why_restart_for_gpus(run: Run, host: str, on: Host) -> list[str]:
    """Return why a host is restarted for how its GPUs are divided; for nothing where restarts are not wanted."""
    if run.cluster.maintain.reboot == "never" or not has_gpus(run, host):
        return []
    steps = nvidia_runtime.divided_as(run.cluster.gpu_sharing_of(run.cluster.host(host)))
    return [why for step in steps for why in await why_restart_for_mode(on, step)]


async def may_change_kernel(run: Run, host: str, on: Host) -> bool:
    """Say whether a newer kernel would get the GPUs' module by itself: dkms(8) builds it, or there are no GPUs."""
    return not has_gpus(run, host) or VENDOR.module in (await on.read(DKMS)).stdout


async def _runtime(run: Run, on: Host, family: Family) -> tuple[str, str] | None:
    """Return what containerd is and what the file pins it to, where that is another one and a restart may follow."""
    package, want = run.cluster.runtime.package, run.cluster.runtime.version
    if not want or run.cluster.maintain.reboot == "never":
        return None
    step = family.in_version(f"containerd is {want}", {package: want}, run.cluster.system.may_remove)
    drift = await step.check(on)
    return (drift.have, want) if drift else None


async def look_at_possible(run: Run, stage: str, host: str) -> list[StepResult]:
    """Look for all that forbids the maintenance, at once, and keep the order in which hosts would come."""
    kube = await run.kube()
    kube.forget()
    await _learn(run, kube)
    make_order(run)
    hear = hear_results(run, stage, host)
    checks = shared_checks(run, is_resumed)
    results, etcd = await asyncio.gather(look_at_all(checks, kube, hear), _on_control(run, stage))
    return decided([*results, *etcd])


async def _on_control(run: Run, stage: str) -> list[StepResult]:
    """Return what etcd and the backups say, asked on a control plane's host."""
    session, version = run.session(run.control.name), run.cluster.kubernetes.version
    checks: list[Check[Host]] = [EtcdFits(version, version)]
    if control_planes_in_order(run):
        checks.append(QuorumStays())
        if not run.maintenance.backup and wants_backup(run):
            checks.append(BackupYoung(script_of(run.cluster)))
    return await look_at_all(checks, session, hear_results(run, stage, session.name))


def wants_backup(run: Run) -> bool:
    """Say whether a backup is needed first: a control plane may be restarted."""
    restarts = run.maintenance.driver or run.cluster.maintain.reboot != "never"
    return bool(control_planes_in_order(run)) and restarts


def closed_by(node: Mapping[str, Any] | None) -> Cordon:
    """Return who closed a node: a maintenance, or somebody else, be it another kind of run of Shipway."""
    ours = closed_by_us(node) == "ours" and cordon_note(node or {}).startswith(MAINTAINING)
    return "ours" if ours else "another's" if closed_by_us(node) else ""


async def _learn(run: Run, kube: Kube) -> None:
    """Keep what the API tells; what somebody else took out is left alone, control planes too."""
    seen = run.maintenance
    await learn_nodes(
        run,
        kube,
        reached=seen.hosts,
        done=is_done,
        resumed=is_resumed,
        closed_by=closed_by,
    )
    nodes = await nodes_by_name(kube)
    for host in run.hosts:
        node = nodes.get(host.name)
        if node is None or host.name in seen.skipped or is_done(run, host.name):
            continue
        foreign = foreign_taints(node, run.cluster.maintain.taints)
        if host in run.cluster.control_planes and seen.cordons[host.name] == "another's" and not why_not_ready(node):
            seen.skipped[host.name] = why_closed(node)
        elif foreign:
            fix = "take it away, or name its key in maintain.taints"
            seen.skipped[host.name] = f"it has the taint {few(foreign)}: {fix}"


def foreign_taints(node: Mapping[str, Any], known: tuple[str, ...]) -> list[str]:
    """Return the keys of taints that keep pods off a node and are neither Kubernetes' own nor known."""
    own = (*CONTROL_PLANE_TAINTS, VENDOR.resource, *known)
    found = [str(one.get("key", "")) for one in taints_of(node) if one.get("effect") in KEEPS]
    return [key for key in found if key not in own and not key.startswith(OWN_TAINTS)]


def control_planes_in_order(run: Run) -> list[str]:
    """Return the control planes that are left, one that was begun first."""
    return control_planes_left(run, is_done, is_resumed)


def waves_in_order(run: Run) -> list[tuple[str, ...]]:
    """Return the waves of workers that are left."""
    return waves_left(run, is_done, is_resumed)


def make_order(run: Run) -> None:
    """Keep the order, and what a person should know before it begins."""
    seen, settings = run.maintenance, run.cluster.maintain
    controls, waves = control_planes_in_order(run), waves_in_order(run)
    seen.order = [_row(run, name, place) for name, place in places(controls, waves, seen.kinds)]
    notes = []
    if len(run.cluster.control_planes) == 1 and controls and wants_backup(run):
        notes.append(f"while {controls[0]} restarts, the API is away: it is the only control plane")
    if waves:
        notes += notes_on_waves(run, waves)
    kept = [name for name, state in sorted(seen.hosts.items()) if not state.kernel]
    if seen.driver:
        notes.append("each host that gets another driver is restarted, unless none is loaded there")
    elif kept and settings.packages != "none":
        notes.append(
            f"the kernel of {few(kept)} stays: no dkms there builds {VENDOR.name}'s module for a newer one; change "
            "both together by hand"
        )
    if seen.order and run.mode == "plan" and (seen.driver or settings.packages != "none"):
        notes.append("by the lists of packages that each host has; a run fetches them first")
    seen.notes = notes + notes_on_skipped(run)


def _row(run: Run, name: str, wave: str) -> OrderRow:
    seen = run.maintenance
    state = seen.hosts.get(name, SystemState())
    pods = seen.pods.get(name, 0) if is_drained(run, name) else 0
    jobs = tuple(job.said for job in jobs_on(run, name))
    have = f"kernel {state.running}{f', {state.driver[0]}' if state.driver else ''}"
    return OrderRow(name, wave, have, describe(run, state), pods, jobs)


def describe(run: Run, state: SystemState) -> str:
    """Return in one line what becomes of a host: packages, containerd, whether it is restarted and why."""
    said = [describe_pending(state.pending)] if state.pending else []
    if state.driver:
        said.append(f"driver {state.driver[1]}, and a restart")
    if state.runtime:
        said.append(f"containerd {state.runtime[1]}")
    mode = run.cluster.maintain.reboot
    if state.reasons or (state.runtime and mode != "never"):
        why = few(state.reasons) or "containerd is another one"
        said.append(f"a restart: {why}")
    elif mode != "never" and any(one.part in RESTARTS for one in state.pending):
        said.append("a restart is likely")
    return "; ".join(said) or "its proof, for it was left closed"
