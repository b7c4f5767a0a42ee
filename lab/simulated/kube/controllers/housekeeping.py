"""What follows from other things: what a namespace holds and its end, and the end of orphans and of old tokens."""

from __future__ import annotations

import base64
from collections.abc import Hashable
from datetime import UTC, datetime

from lab.simulated.kube.bootstrap_tokens import PREFIX, TYPE, bootstrap_secret
from lab.simulated.kube.deletion import Deletion
from lab.simulated.kube.objects import key_of, name_of, parsed_time
from lab.simulated.kube.store import ADDED, DELETED, Change
from lab.simulated.kube.world import World

from .base import Controller


class Namespaces(Controller):
    """Empties a namespace that is being deleted, then removes it; gives a new one its account and CA."""

    def __init__(self, world: World, ca: bytes) -> None:
        super().__init__(world)
        self._ca = ca.decode()
        self.store.listen(["namespaces"], self._changed)

    def _changed(self, change: Change) -> None:
        if change.kind == ADDED or (change.kind != DELETED and change.obj["metadata"].get("deletionTimestamp")):
            self.enqueue(name_of(change.obj))

    def reconcile(self, key: Hashable) -> None:
        """Furnish a namespace, or clear it."""
        namespace = self.store.get("namespaces", "", str(key))
        if namespace is None:
            return
        if namespace["metadata"].get("deletionTimestamp"):
            self._clear(str(key))
        else:
            self.furnish(str(key))

    def furnish(self, name: str) -> None:
        """Make what every namespace holds: the default account and the cluster's CA."""
        metadata = {"name": "default", "namespace": name}
        self.world.put({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        metadata = {"name": "kube-root-ca.crt", "namespace": name}
        data = {"ca.crt": self._ca}
        self.world.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})

    def _clear(self, name: str) -> None:
        deletion, left = Deletion(self.world), 0
        for resource in self.store.resources():
            for obj in self.store.objects(resource, name):
                deletion.delete(resource, obj, {})
                left += self.store.get(resource, *key_of(obj)) is not None
        if left:
            self.enqueue(name, self.latencies.namespace_deletion)
        else:
            self.pace.after(self.latencies.namespace_deletion, self._remove, name)

    def _remove(self, name: str) -> None:
        self.store.remove("namespaces", "", name)


class Garbage:
    """Deletes the pods and ReplicaSets whose owner has gone."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._deletion = Deletion(world)
        world.store.listen(["deployments.apps", "replicasets.apps", "daemonsets.apps"], self._changed)

    def _changed(self, change: Change) -> None:
        obj = change.obj
        if change.kind != DELETED:
            return
        for resource in ("replicasets.apps", "pods"):
            for child in self._world.store.indexed(resource, "owner", obj["metadata"]["uid"]):
                self._deletion.delete(resource, child, {})


class TokenCleaner:
    """Deletes bootstrap tokens once they have expired."""

    def __init__(self, world: World) -> None:
        self._world = world
        world.store.listen(["secrets"], self._changed)

    def _changed(self, change: Change) -> None:
        expiration = (change.obj.get("data") or {}).get("expiration")
        if change.kind != DELETED and change.obj.get("type") == TYPE and expiration:
            moment = parsed_time(base64.b64decode(expiration).decode())
            left = max(0.0, (moment - datetime.now(UTC)).total_seconds())
            self._world.pace.after_exactly(left, self._clean, name_of(change.obj))

    def _clean(self, name: str) -> None:
        if bootstrap_secret(self._world.store, name.removeprefix(PREFIX)) is None:
            self._world.store.remove("secrets", "kube-system", name)
