"""What follows from other things: what a namespace holds and its end, and the end of orphans."""

from __future__ import annotations

from collections.abc import Hashable

from lab.simulated.kube.deletion import Deletion
from lab.simulated.kube.objects import key_of, name_of
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
        if self.store.get("serviceaccounts", name, "default") is None:
            metadata = {"name": "default", "namespace": name}
            self.store.create("serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        if self.store.get("configmaps", name, "kube-root-ca.crt") is None:
            metadata = {"name": "kube-root-ca.crt", "namespace": name}
            data = {"ca.crt": self._ca}
            self.store.create(
                "configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
            )

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
