"""Steps about objects of the cluster: they are there as declared, or they are not there at all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from shipway.converge import wait_until
from shipway.errors import Blocked
from shipway.kube.client import Kube, Object, title
from shipway.kube.errors import KindMissing
from shipway.kube.status import differences, is_true
from shipway.step import Drift, Impact

ESTABLISH_SECONDS = 60.0  # a CustomResourceDefinition is established within a second on a healthy API server
SHOWN = 8
LOOKS = 4  # at an object that somebody else keeps writing
CRD = "CustomResourceDefinition"
# What others need stands first; everything that is not named here (workloads, services, custom resources) comes last.
RANKS = (
    ("Namespace",),
    (CRD,),
    ("PriorityClass", "RuntimeClass", "ServiceAccount", "Secret", "ConfigMap"),
    ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"),
)


class Source(Protocol):
    """Objects that are only known when they are asked for, like those of a manifest that must be downloaded."""

    async def load(self) -> Sequence[Object]:
        """Return the objects; raises Refused or Transient."""


@dataclass(frozen=True)
class CrdServed:
    """A custom resource is accepted by the API: its definition is established and its kind is served."""

    traps: ClassVar[tuple[int, ...]] = (42,)
    crd: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The definition that is looked at."""
        return f"the API serves {self.crd['metadata']['name']}"

    async def check(self, on: Kube) -> Drift | None:
        """Ask the definition's conditions, then discovery, which lags behind."""
        found = await on.get(self.crd["apiVersion"], CRD, self.crd["metadata"]["name"])
        if found is None or not is_true(found, "Established"):
            return Drift("not established yet", "established")
        group, kind = found["spec"]["group"], found["spec"]["names"]["kind"]
        versions = [entry["name"] for entry in found["spec"].get("versions", ()) if entry.get("served")]
        try:
            await asyncio.gather(*(on.resource(f"{group}/{version}", kind) for version in versions))
        except KindMissing:
            return Drift("established, not yet in the API's discovery", "served")
        return None


@dataclass(frozen=True)
class ObjectsPresent:
    """All these objects are in the cluster as declared; what the API filled in by itself is no drift.

    `objects` are the objects, or a source that gives them when first looked at. Each is compared with the answer of a
    server-side dry run of itself, so defaults, admission and number formats are the server's on both sides.
    """

    traps: ClassVar[tuple[int, ...]] = (41, 42)  # server-side apply has no annotation to grow too long; CRDs first
    name: str
    objects: Sequence[Object] | Source
    impact: Impact = Impact.SERVICE

    async def _load(self) -> Sequence[Object]:
        return self.objects if isinstance(self.objects, Sequence) else await self.objects.load()

    async def check(self, on: Kube) -> Drift | None:
        """Look at all objects at once; Blocked (KindMissing) where a kind is neither known nor brought along."""
        objects = await self._load()
        brought = _brought(objects)
        found = await asyncio.gather(*(_drift(on, obj, brought) for obj in objects))
        places = [place for some in found for place in some]
        if not places:
            return None
        more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
        return Drift("; ".join(places[:SHOWN]) + more, f"{len(objects)} objects as declared")

    async def apply(self, on: Kube) -> None:
        """Apply all objects, rank after rank; custom resources once their definitions are served."""
        objects = await self._load()
        for group in _rank(objects):
            await asyncio.gather(*(on.apply(obj) for obj in group))
            crds = [obj for obj in group if obj["kind"] == CRD]
            await asyncio.gather(*(wait_until(CrdServed(c), on, seconds=ESTABLISH_SECONDS, every=0.5) for c in crds))


def _brought(objects: Iterable[Object]) -> set[tuple[str, str]]:
    """Return (group, kind) of every definition among the objects."""
    specs = [obj["spec"] for obj in objects if obj["kind"] == CRD]
    return {(spec["group"], spec["names"]["kind"]) for spec in specs}


def _rank(objects: Sequence[Object]) -> list[list[Object]]:
    """Return the objects in the groups in which they are applied."""
    rank = {kind: index for index, kinds in enumerate(RANKS) for kind in kinds}
    groups: list[list[Object]] = [[] for _ in range(len(RANKS) + 1)]
    for obj in objects:
        groups[rank.get(obj["kind"], len(RANKS))].append(obj)
    return groups


async def _drift(on: Kube, obj: Object, brought: set[tuple[str, str]]) -> list[str]:
    """Return what differs as `kind/namespace/name: field`; contents are never shown."""
    try:
        live = await _live(on, obj)
    except KindMissing:
        if (obj["apiVersion"].rpartition("/")[0], obj["kind"]) not in brought:
            raise
        live = None
    places: list[str] = []
    for _ in range(LOOKS):
        if live is None:
            return [f"{title(obj)}: missing"]
        if live["metadata"].get("deletionTimestamp"):
            raise Blocked(f"{title(obj)} is being deleted", fix="Wait until it is gone, then run again.")
        places = [f"{title(obj)}: {place}" for place in differences(live, await on.dry_run_apply(obj))]
        # A controller may write between the two answers; only what differs from one and the same state is drift.
        again = await _live(on, obj, fresh=True) if places else live
        if again is not None and again["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]:
            break
        live = again
    return places


async def _live(on: Kube, obj: Object, *, fresh: bool = False) -> Object | None:
    meta = obj["metadata"]
    return await on.get(obj["apiVersion"], obj["kind"], meta["name"], meta.get("namespace", ""), fresh=fresh)


@dataclass(frozen=True)
class ObjectAbsent:
    """An object is not in the cluster."""

    name: str
    api_version: str
    kind: str
    object_name: str
    namespace: str = ""
    impact: Impact = Impact.SERVICE

    async def check(self, on: Kube) -> Drift | None:
        """Look for it; a kind that the API does not know has no objects."""
        try:
            found = await on.get(self.api_version, self.kind, self.object_name, self.namespace)
        except KindMissing:
            return None
        return Drift(f"{title(found)} is there", "no such object") if found else None

    async def apply(self, on: Kube) -> None:
        """Delete it."""
        await on.delete(self.api_version, self.kind, self.object_name, self.namespace)
