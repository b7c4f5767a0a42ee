"""The Deployment controller: a ReplicaSet for every template, rolled over without losing what is available."""

from __future__ import annotations

from collections.abc import Hashable

from lab.simulated.kube.objects import (
    Obj,
    controller_of,
    copied,
    dig,
    digest_suffix,
    key_of,
    name_of,
    namespace_of,
    owner_reference,
    set_condition,
)
from lab.simulated.kube.quantities import share
from lab.simulated.kube.store import DELETED, Change
from lab.simulated.kube.world import World

from .base import Controller

_RESOURCE, _SETS = "deployments.apps", "replicasets.apps"
REVISION = "deployment.kubernetes.io/revision"


def _conditions(conditions: list[Obj], new: str, *, enough: bool, done: bool) -> list[Obj]:
    if enough:
        text = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    else:
        text = ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    conditions = set_condition(conditions, "Available", *text)
    reason, verb = (
        ("NewReplicaSetAvailable", "has successfully progressed") if done else ("ReplicaSetUpdated", "is progressing")
    )
    return set_condition(conditions, "Progressing", "True", reason, f'ReplicaSet "{new}" {verb}.')


class Deployments(Controller):
    """Works on one Deployment at a time."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.store.listen([_RESOURCE], self._changed)
        self.store.listen([_SETS], self._set_changed)

    def _changed(self, change: Change) -> None:
        if change.kind != DELETED:
            self.enqueue(key_of(change.obj))

    def _set_changed(self, change: Change) -> None:
        owner = controller_of(change.obj)
        if owner is not None and owner["kind"] == "Deployment":
            self.enqueue((change.obj["metadata"]["namespace"], owner["name"]))

    def reconcile(self, key: Hashable) -> None:
        """Make the ReplicaSet of the template, scale it and the older ones, write the status."""
        assert isinstance(key, tuple)  # noqa: S101 - for the type checker
        deployment = self.store.get(_RESOURCE, *key)
        if deployment is None or deployment["metadata"].get("deletionTimestamp"):
            return
        suffix = digest_suffix(deployment["spec"]["template"])
        sets = self.store.indexed(_SETS, "owner", deployment["metadata"]["uid"])
        new = next((rs for rs in sets if name_of(rs) == f"{name_of(deployment)}-{suffix}"), None)
        old = [rs for rs in sets if rs is not new]
        if new is None:
            new = self._create(deployment, suffix, old)
        if not deployment["spec"].get("paused"):
            self._scale(deployment, new, old)
        self._status(deployment, name_of(new))

    def _create(self, deployment: Obj, suffix: str, old: list[Obj]) -> Obj:
        template = copied(deployment["spec"]["template"])
        labels = {**template["metadata"].get("labels", {}), "pod-template-hash": suffix}
        template["metadata"]["labels"] = labels
        revision = 1 + max((int((rs["metadata"].get("annotations") or {}).get(REVISION, 0)) for rs in old), default=0)
        wanted = int(deployment["spec"]["replicas"])
        chosen = {**dig(deployment, "spec", "selector", "matchLabels", default={}), "pod-template-hash": suffix}
        metadata = {
            "name": f"{name_of(deployment)}-{suffix}",
            "namespace": namespace_of(deployment),
            "labels": labels,
            "annotations": {REVISION: str(revision), "deployment.kubernetes.io/desired-replicas": str(wanted)},
            "ownerReferences": [owner_reference(deployment)],
            "generation": 1,
        }
        spec = {"replicas": 0 if old else wanted, "selector": {"matchLabels": chosen}, "template": template}
        head = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata}
        rs = self.store.create(_SETS, {**head, "spec": spec, "status": {"replicas": 0}})
        verb = f"Scaled up replica set {name_of(rs)} to {wanted}" + (" from 0" if self.world.config.minor >= 28 else "")
        self.world.event(deployment, "ScalingReplicaSet", verb, "deployment-controller")
        metadata = deployment["metadata"]
        annotations = {**(metadata.get("annotations") or {}), REVISION: str(revision)}
        self.store.replace(_RESOURCE, {**deployment, "metadata": {**metadata, "annotations": annotations}})
        return rs

    def _resize(self, rs: Obj, replicas: int) -> None:
        if int(rs["spec"]["replicas"]) != replicas:
            generation = int(rs["metadata"].get("generation", 1)) + 1
            metadata = {**rs["metadata"], "generation": generation}
            self.store.replace(_SETS, {**rs, "metadata": metadata, "spec": {**rs["spec"], "replicas": replicas}})

    def _scale(self, deployment: Obj, new: Obj, old: list[Obj]) -> None:
        wanted = int(deployment["spec"]["replicas"])
        left = [rs for rs in old if int(rs["spec"]["replicas"]) or int(dig(rs, "status", "replicas", default=0))]
        if not left:
            self._resize(new, wanted)
            return
        if deployment["spec"]["strategy"]["type"] == "Recreate":
            for rs in left:
                self._resize(rs, 0)
            return
        rolling = deployment["spec"]["strategy"].get("rollingUpdate") or {}
        surge = share(rolling.get("maxSurge", "25%"), wanted, up=True)
        away = share(rolling.get("maxUnavailable", "25%"), wanted, up=False)
        total = sum(int(rs["spec"]["replicas"]) for rs in [new, *left])
        room = max(0, wanted + surge - total)
        self._resize(new, min(wanted, int(new["spec"]["replicas"]) + room))
        available = sum(int(dig(rs, "status", "availableReplicas", default=0)) for rs in [new, *left])
        spare = available - (wanted - (away or (0 if surge else 1)))
        for rs in left:
            idle = int(rs["spec"]["replicas"]) - int(dig(rs, "status", "availableReplicas", default=0))
            less = min(int(rs["spec"]["replicas"]), max(0, idle) + max(0, spare))
            spare -= max(0, less - max(0, idle))
            self._resize(rs, int(rs["spec"]["replicas"]) - less)

    def _status(self, deployment: Obj, new: str) -> None:
        deployment = self.store.get(_RESOURCE, *key_of(deployment)) or deployment
        sets = self.store.indexed(_SETS, "owner", deployment["metadata"]["uid"])

        def total(field: str, only: str = "") -> int:
            return sum(int(dig(rs, "status", field, default=0)) for rs in sets if only in {"", name_of(rs)})

        wanted, available = int(deployment["spec"]["replicas"]), total("availableReplicas")
        away = share(
            dig(deployment, "spec", "strategy", "rollingUpdate", "maxUnavailable", default=0), wanted, up=False
        )
        enough, done = available >= wanted - away, total("availableReplicas", new) >= wanted
        conditions = _conditions(dig(deployment, "status", "conditions", default=[]), new, enough=enough, done=done)
        status: Obj = {
            "observedGeneration": deployment["metadata"].get("generation", 1),
            "replicas": total("replicas"),
            "updatedReplicas": total("replicas", new),
            "readyReplicas": total("readyReplicas"),
            "availableReplicas": available,
            "unavailableReplicas": max(0, wanted - available),
        }
        shown = {name: value for name, value in status.items() if value}
        self.store.replace(_RESOURCE, {**deployment, "status": {**shown, "conditions": conditions}})
