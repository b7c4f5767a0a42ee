"""How objects go: at once, by the kubelet after a grace period, or when their last finalizer is gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from .objects import Obj, dig, key_of, timestamp, with_metadata, with_status
from .world import World, is_finished


class Deletion:
    """The deletion rules of the API server. Dependents go by the garbage collector, after their owner."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._store = world.store

    def delete(self, resource: str, obj: Obj, options: Obj) -> Obj:
        """Delete an object or mark it as being deleted; return its last state."""
        if resource == "pods":
            grace = self._grace(obj, options)
            if grace > 0:
                return self._mark(resource, obj, grace)
        if resource == "namespaces":
            marked = self._mark(resource, obj, 0)
            return self._store.replace(resource, with_status(marked, phase="Terminating"))
        if obj["metadata"].get("finalizers"):
            return self._mark(resource, obj, 0)
        return self._store.remove(resource, *key_of(obj)) or obj

    def finish(self, resource: str, obj: Obj) -> None:
        """Remove an object that was only waiting for its finalizers, once they are gone."""
        metadata = obj["metadata"]
        waiting = metadata.get("deletionTimestamp") and not metadata.get("finalizers")
        if waiting and resource not in {"pods", "namespaces"}:
            self._store.remove(resource, *key_of(obj))

    def _grace(self, pod: Obj, options: Obj) -> int:
        if not dig(pod, "spec", "nodeName") or is_finished(pod):
            return 0
        asked = options.get("gracePeriodSeconds")
        if asked is None:
            asked = dig(pod, "spec", "terminationGracePeriodSeconds", default=30)
        return int(asked)

    def _mark(self, resource: str, obj: Obj, grace: int) -> Obj:
        if obj["metadata"].get("deletionTimestamp"):
            return obj
        at = timestamp(datetime.now(UTC) + timedelta(seconds=grace))
        return self._store.replace(resource, with_metadata(obj, deletionTimestamp=at, deletionGracePeriodSeconds=grace))
