"""The ReplicaSet controller: as many pods as asked for."""

from __future__ import annotations

from collections.abc import Hashable

from lab.simulated.kube.objects import Obj, controller_of, copied, dig, is_true, key_of, name_of
from lab.simulated.kube.store import DELETED, Change
from lab.simulated.kube.world import World, is_finished

from .base import Controller
from .pods.factory import PodFactory

_RESOURCE = "replicasets.apps"
BURST = 500  # pods that are made in one turn; what they cause asks for the next
REFUSED_RETRY = 2.0  # seconds until a pod that was refused is tried again


class ReplicaSets(Controller):
    """Works on one ReplicaSet at a time."""

    def __init__(self, world: World, factory: PodFactory) -> None:
        super().__init__(world)
        self._factory = factory
        self.store.listen([_RESOURCE], self._changed)
        self.store.listen(["pods"], self._pod_changed)

    def _changed(self, change: Change) -> None:
        if change.kind != DELETED:
            self.enqueue(key_of(change.obj))

    def _pod_changed(self, change: Change) -> None:
        owner = controller_of(change.obj)
        if owner is not None and owner["kind"] == "ReplicaSet":
            key = (change.obj["metadata"]["namespace"], owner["name"])
            self.enqueue(key, things=self.store.count("pods"))

    def reconcile(self, key: Hashable) -> None:
        """Create or delete pods until the number is right, and count them."""
        assert isinstance(key, tuple)  # noqa: S101 - for the type checker
        rs = self.store.get(_RESOURCE, *key)
        if rs is None or rs["metadata"].get("deletionTimestamp"):
            return
        pods = self._living(rs)
        wanted = int(dig(rs, "spec", "replicas", default=0))
        for _ in range(min(BURST, wanted - len(pods))):
            if not self._create(rs):
                self.enqueue(key, REFUSED_RETRY)
                break
        # Those that are not ready, and the youngest, go first.
        pods.sort(key=lambda pod: (is_true(pod, "Ready"), pod["metadata"]["creationTimestamp"]))
        for pod in pods[: max(0, len(pods) - wanted)]:
            self._factory.delete(pod)
        self._status(rs)

    def _living(self, rs: Obj) -> list[Obj]:
        pods = self.store.indexed("pods", "owner", rs["metadata"]["uid"])
        return [pod for pod in pods if not is_finished(pod) and not pod["metadata"].get("deletionTimestamp")]

    def _create(self, rs: Obj) -> bool:
        template = copied(rs["spec"]["template"])
        metadata = {
            "name": self.store.unused_name("pods", key_of(rs)[0], f"{name_of(rs)}-"),
            "generateName": f"{name_of(rs)}-",
            "labels": template["metadata"].get("labels"),
            "annotations": template["metadata"].get("annotations"),
        }
        return self._factory.create(rs, metadata, template["spec"])

    def _status(self, rs: Obj) -> None:
        pods = self._living(rs)
        ready = sum(1 for pod in pods if is_true(pod, "Ready"))
        status = {
            "replicas": len(pods),
            "fullyLabeledReplicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "observedGeneration": rs["metadata"].get("generation", 1),
        }
        shown = {name: value for name, value in status.items() if value or name in {"replicas", "observedGeneration"}}
        self.store.replace(_RESOURCE, {**rs, "status": shown})
