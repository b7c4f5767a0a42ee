"""The stages of a restore: what must be so, what will be lost, the restore, and all that must look at the API anew."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from shipway.backup.script import script_of
from shipway.backup.state import BackupsThere, taken_at
from shipway.converge import converge
from shipway.errors import ShipwayError
from shipway.facts.services import UnitState
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.step import Check, Drift, Impact, StepResult
from shipway.steps.backup.on_host import script_file
from shipway.steps.backup.possible import EtcdIsKubeadms, NoOtherBackup, RoomForBackup, ToolsCanBeHad
from shipway.steps.backup.restored import (
    OPERATION,
    RESTORE_SECONDS,
    BackupRestored,
    BackupThere,
    KubeletStarted,
    OneControlPlane,
)
from tasks.context import Run
from tasks.waiting import by_api, hear_results, wait_for
from tasks.workloads import OWN_NAMESPACES

KINDS = (
    ("v1", "Namespace"),
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "Node"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("batch/v1", "Job"),
)
SHOWN = 20
READY_SECONDS = 240.0  # an image may have to be pulled anew


async def _bring(run: Run, stage: str, host: str, steps: list[Check[Host]]) -> list[StepResult]:
    session = run.session(host)
    session.forget()
    return await converge(steps, session, run.allow, hear_results(run, stage, host))


async def restore_possible(run: Run, stage: str, host: str) -> list[StepResult]:
    """Look at what a restore needs, all at once; one of a killed run that is still at work is waited for first."""
    session, script = run.session(host), script_of(run.cluster)
    session.forget()
    if run.backup.restored is None:  # before one that is still at work ends: what that brings about is what was asked
        run.backup.restored = (await session.read(BackupsThere(script))).restored
    if run.allow is not Impact.NOTHING:
        await session.settled(OPERATION, seconds=RESTORE_SECONDS)
    state = await session.read(BackupsThere(script))
    if run.backup.source == "newest":
        run.backup.source = state.restoring.rpartition("/")[2] or (state.newest.name if state.newest else "newest")
    checks: list[Check[Host]] = [OneControlPlane(tuple(one.name for one in run.cluster.control_planes))]
    if not state.restoring:  # one that was broken off has taken the manifests out
        checks += [EtcdIsKubeadms(script), ToolsCanBeHad(script), RoomForBackup(script)]
    checks += [NoOtherBackup(script), BackupThere(script, run.backup.source)]
    return await _bring(run, stage, host, checks)


async def restore_loses(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001 - a stage's work
    """Say what the restore will take away, as far as the API can say now: a warning each, and never a refusal."""
    name = "what the restore takes away is known"
    try:
        lines = await _losses(await run.kube(), taken_at(run.backup.source))
    except ShipwayError as error:
        run.warned.append(f"what is newer than the backup cannot be told: the API does not answer ({error.message})")
        return [StepResult(name, "ok")]
    run.warned += lines or ["nothing of what was looked at is newer than the backup"]
    return [StepResult(name, "ok")]


async def _losses(kube: Kube, taken: datetime) -> list[str]:
    """Return a line for each kind with objects that are newer than the backup; pods among them will be ended."""
    kube.forget()
    found = await asyncio.gather(*(kube.list_(version, kind) for version, kind in KINDS))
    lines: list[str] = []
    for (_, kind), objects in zip(KINDS, found, strict=True):
        newer = [_called(one["metadata"]) for one in objects if _made(one["metadata"]) > taken]
        if newer:
            fate = "will be ended by their kubelets" if kind == "Pod" else "will be gone"
            more = f" and {len(newer) - SHOWN} more" if len(newer) > SHOWN else ""
            lines.append(f"{len(newer)} {kind} newer than the backup {fate}: {', '.join(newer[:SHOWN])}{more}")
    return lines


def _called(meta: Mapping[str, Any]) -> str:
    return "/".join(str(meta[key]) for key in ("namespace", "name") if meta.get(key))


def _made(meta: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(str(meta["creationTimestamp"]))


async def restore_backup(run: Run, stage: str, host: str) -> list[StepResult]:
    """Restore, once what every kubelet runs now was noted; a second attempt of this run sees what the first one did."""
    script = script_of(run.cluster)
    if run.allow is not Impact.NOTHING:
        await _note_kubelets(run)
    steps: list[Check[Host]] = [script_file(run.cluster)]
    steps.append(BackupRestored(script, run.backup.source, run.backup.restored or ""))
    results = await _bring(run, stage, host, steps)
    if any(result.outcome == "changed" for result in results):
        await run.reconnect()
    return results


async def _note_kubelets(run: Run) -> None:
    """Keep which start of each kubelet was before the restore; a host that does not answer is told of later."""

    async def note(name: str) -> None:
        info = await run.session(name).read(UnitState("kubelet.service"))
        run.backup.kubelets.setdefault(name, info.invocation)

    await asyncio.gather(*(note(spec.name) for spec in run.cluster.hosts), return_exceptions=True)


async def restart_kubelet(run: Run, stage: str, host: str) -> list[StepResult]:
    """Restart the kubelet of a host, unless it was started after the restore."""
    return await _bring(run, stage, host, [KubeletStarted(run.backup.kubelets.get(host, ""))])


@dataclass(frozen=True)
class WatchersStarted:
    """The cluster's own pods were started after the restore: what they saw before it may not be so any more.

    Only a restore that raises the revision and marks it as compacted ends their watches (etcd 3.6); before that their
    caches would go on without seeing a change (kubernetes#107457).
    """

    impact: ClassVar[Impact] = Impact.WORKLOADS
    since: datetime
    name: str = "the cluster's own pods look at the API anew"

    async def check(self, on: Kube) -> Drift | None:
        """Look for pods of the cluster's own that are older than the restore."""
        old = await self._old(on)
        return Drift(f"{len(old)} pods were started before the restore", "none") if old else None

    async def apply(self, on: Kube) -> None:
        """Delete them; their owners make new ones."""
        for meta in await self._old(on):
            await on.delete("v1", "Pod", str(meta["name"]), namespace=str(meta["namespace"]))
        on.forget()

    async def _old(self, on: Kube) -> list[Mapping[str, Any]]:
        pods = [pod for pod in await on.list_("v1", "Pod") if pod["metadata"].get("namespace") in OWN_NAMESPACES]
        return [
            pod["metadata"]
            for pod in pods
            if any(
                owner.get("kind") in ("DaemonSet", "ReplicaSet") for owner in pod["metadata"].get("ownerReferences", ())
            )
            and _made(pod["metadata"]) < self.since
            and not pod["metadata"].get("deletionTimestamp")
        ]


@dataclass(frozen=True)
class DaemonSetsRun:
    """Each DaemonSet of the cluster's own has a ready pod for each node that it is for: by its pods, not its status.

    Who writes that status has only just come back.
    """

    name: str = "the cluster's own DaemonSets run on every node"

    async def check(self, on: Kube) -> Drift | None:
        """Count the ready pods of each."""
        sets, pods = await asyncio.gather(on.list_("apps/v1", "DaemonSet"), on.list_("v1", "Pod"))
        short = []
        for one in sets:
            meta, wanted = one["metadata"], int((one.get("status") or {}).get("desiredNumberScheduled") or 0)
            ready = sum(_is_ready(pod) and _owned(pod, str(meta.get("uid"))) for pod in pods)
            if meta.get("namespace") in OWN_NAMESPACES and ready < wanted:
                short.append(f"{_called(meta)}: {ready} of {wanted}")
        return Drift("; ".join(short), "all ready") if short else None


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    there = not pod["metadata"].get("deletionTimestamp")
    return there and any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _owned(pod: Mapping[str, Any], uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in pod["metadata"].get("ownerReferences", ()))


async def start_watchers(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001 - a stage's work
    """Start the cluster's own pods anew: those made before the restore, by the clock of the control plane's host."""
    session = run.session(run.control.name)
    session.forget()
    state = await session.read(BackupsThere(script_of(run.cluster)))
    when = state.restored.partition(" ")[2]
    results = await by_api(run, stage, [WatchersStarted(taken_at(when) if when else state.now)])
    return [*results, await wait_for(run, stage, DaemonSetsRun(), await run.kube(), seconds=READY_SECONDS)]
