"""After a restore: the cluster's own pods look at the API anew, a watch sees a change, who stays blind is named."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import urlencode

from shipway.backup.script import script_of
from shipway.backup.state import BackupsThere
from shipway.errors import PostconditionFailed
from shipway.foreign.numbers import whole
from shipway.kube.calls import OK
from shipway.kube.client import Kube
from shipway.kube.errors import refusal
from shipway.kube.reads import CALL_SECONDS, parse_object
from shipway.kube.record import SYSTEM
from shipway.kube.status import called, made_at
from shipway.step import Drift, Impact, StepResult
from shipway.steps.authority.objects import holders_of_old
from tasks.context import Run
from tasks.waiting import by_api, wait_for
from tasks.workloads import OWN_NAMESPACES

CANARY = "shipway-backup-canary"  # as the host's script writes it
CANARIES = f"/api/v1/namespaces/{SYSTEM}/configmaps"
BUMP = 1_000_000_000  # by which the host's script raises the revision, where etcd's program can
WATCH_SECONDS, WATCH_BEGINS = 5, 0.5
READY_SECONDS = 240.0  # an image may have to be pulled anew


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
            and made_at(pod["metadata"]) < self.since
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
                short.append(f"{called(meta)}: {ready} of {wanted}")
        return Drift("; ".join(short), "all ready") if short else None


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    there = not pod["metadata"].get("deletionTimestamp")
    return there and any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _owned(pod: Mapping[str, Any], uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in pod["metadata"].get("ownerReferences", ()))


async def revision_of(on: Kube) -> int:
    """Return etcd's revision, as the API tells it of a list; 0 where it tells none."""
    code, text = await on.send("GET", f"{CANARIES}?limit=1")
    if code != OK:
        raise refusal("list of ConfigMap", code, text)
    return whole(str((parse_object(text, "list of ConfigMap").get("metadata") or {}).get("resourceVersion", ""))) or 0


@dataclass(frozen=True)
class RevisionHigher:
    """The API's revision is above the backup's: what was seen before the restore is not taken for what is now."""

    floor: int
    name: str = "the revision is higher than the backup's"

    async def check(self, on: Kube) -> Drift | None:
        """Ask the API, past what is known."""
        have = await revision_of(on)
        return None if have > self.floor else Drift(f"revision {have}", f"above {self.floor}")


@dataclass(frozen=True)
class WatchSees:
    """A watch has seen a change of our canary after this restore."""

    impact: ClassVar[Impact] = Impact.FILES
    restore: str
    name: str = f"a watch sees a change within {WATCH_SECONDS} s"

    async def check(self, on: Kube) -> Drift | None:
        """Look whether the canary has this restore's id, which is written beside a watch alone."""
        found = await on.get("v1", "ConfigMap", CANARY, SYSTEM, fresh=True)
        tried = ((found or {}).get("data") or {}).get("restored") == self.restore
        return None if tried else Drift("none was tried since the restore", "seen")

    async def apply(self, on: Kube) -> None:
        """Watch, write, and see that it is told. Raises PostconditionFailed where the watch ends without it."""
        asked = {"watch": "true", "resourceVersion": await revision_of(on), "timeoutSeconds": WATCH_SECONDS}
        seconds = WATCH_SECONDS + CALL_SECONDS
        (_, told), _ = await asyncio.gather(
            on.send("GET", f"{CANARIES}?{urlencode(asked)}", seconds=seconds), self._write(on)
        )
        if self.restore not in told:
            message = (
                f"a watch of ConfigMaps in {SYSTEM} ended after {WATCH_SECONDS} s without the change that was made"
            )
            fix = (
                "See the API server's log; start it anew (move its manifest out and back), then run the restore again."
            )
            raise PostconditionFailed(message, fix=fix)

    async def _write(self, on: Kube) -> None:
        await asyncio.sleep(WATCH_BEGINS)
        meta = {"name": CANARY, "namespace": SYSTEM}
        await on.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"restored": self.restore}})


async def blind_watchers(kube: Kube, since: datetime) -> list[str]:
    """Return the workloads of others whose pods ask the API by a right of their own, and were made before `since`.

    Pods of the account `default` have none.
    """
    pods = await kube.list_("v1", "Pod")
    old = {
        called(pod["metadata"])
        for pod in pods
        if made_at(pod["metadata"]) < since
        and (pod.get("spec") or {}).get("serviceAccountName", "default") != "default"
    }
    asking = [one for one in await holders_of_old(kube, whenever=True) if f"{one.namespace}/{one.pod}" in old]
    return sorted({one.said for one in asking if one.namespace not in OWN_NAMESPACES})


async def start_watchers(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001 - a stage's work
    """Start the cluster's own pods anew, and see that a watch is told of a change; name those of others to restart.

    They are those made before the restore, by the clock of the control plane's host.
    """
    session = run.session(run.control.name)
    session.forget()
    state = await session.read(BackupsThere(script_of(run.cluster)))
    since, kube = state.restored_at or state.now, await run.kube()
    floor = next((one.revision for one in state.backups if one.name == run.backup.source), 0)
    results = await by_api(run, stage, [WatchersStarted(since)])
    results.append(await wait_for(run, stage, DaemonSetsRun(), kube, seconds=READY_SECONDS))
    results += await by_api(run, stage, [RevisionHigher(floor), WatchSees(run.backup.id)])
    if await revision_of(kube) < floor + BUMP and (blind := await blind_watchers(kube, since)):
        run.warned.append(
            "the revision was not raised (etcd before 3.6), so what watches the API since before may see no change any "
            f"more: their owners are to restart {', '.join(blind)}"
        )
    return results
