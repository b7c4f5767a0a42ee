"""The DaemonSet controller: one pod on every node that its pods may run on, replaced when the template changes."""

from __future__ import annotations

from collections.abc import Hashable

from lab.simulated.kube.objects import (
    Obj,
    controller_of,
    copied,
    dig,
    digest_suffix,
    is_true,
    key_of,
    name_of,
)
from lab.simulated.kube.quantities import share
from lab.simulated.kube.store import DELETED, Change, Key
from lab.simulated.kube.world import World, is_finished

from .base import Controller
from .placement import pinned_node, untolerated, wants_node
from .pods.factory import PodFactory

HASH_LABEL = "controller-revision-hash"
_RESOURCE = "daemonsets.apps"
# What the real controller lets every pod of a DaemonSet tolerate.
_NO_EXECUTE = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_NO_SCHEDULE = tuple(
    f"node.kubernetes.io/{kind}" for kind in ("disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")
)


def daemon_tolerations(spec: Obj) -> list[Obj]:
    """Return the tolerations of a DaemonSet's pod: its own and those that the controller adds."""
    keys = [(key, "NoExecute") for key in _NO_EXECUTE] + [(key, "NoSchedule") for key in _NO_SCHEDULE]
    if spec.get("hostNetwork"):
        keys.append(("node.kubernetes.io/network-unavailable", "NoSchedule"))
    added = [{"key": key, "operator": "Exists", "effect": effect} for key, effect in keys]
    return [*(spec.get("tolerations") or []), *added]


class DaemonSets(Controller):
    """Works on (set, node) for what happens to one node, and on a whole set when the set itself changes."""

    def __init__(self, world: World, factory: PodFactory) -> None:
        super().__init__(world)
        self._factory = factory
        self.store.add_index("pods", "daemon", self._place_of)
        self.store.listen([_RESOURCE], self._set_changed)
        self.store.listen(["nodes"], self._node_changed)
        self.store.listen(["pods"], self._pod_changed)

    def _set_changed(self, change: Change) -> None:
        if change.kind != DELETED and (change.before is None or change.before["spec"] != change.obj["spec"]):
            self.enqueue((key_of(change.obj), ""))

    def _node_changed(self, change: Change) -> None:
        before, after = change.before or {}, change.obj
        same_labels = dig(before, "metadata", "labels") == after["metadata"].get("labels")
        if change.kind != DELETED and same_labels and before.get("spec") == after["spec"]:
            return
        for ds in self.store.objects(_RESOURCE):
            self.enqueue((key_of(ds), name_of(after)))

    def _pod_changed(self, change: Change) -> None:
        owner = controller_of(change.obj)
        if owner is None or owner["kind"] != "DaemonSet":
            return
        key: Key = (change.obj["metadata"]["namespace"], owner["name"])
        if change.kind == DELETED or is_finished(change.obj):
            self.enqueue((key, self._node_of(change.obj)))
        self._count_soon(key)

    def _place_of(self, pod: Obj) -> str:
        """Return what pods are indexed by: the set's uid and the node."""
        owner = controller_of(pod)
        return f"{owner['uid']}/{self._node_of(pod)}" if owner is not None and owner["kind"] == "DaemonSet" else ""

    @staticmethod
    def _node_of(pod: Obj) -> str:
        return str(dig(pod, "spec", "nodeName") or pinned_node(pod) or "")

    def _count_soon(self, key: Key) -> None:
        self.enqueue((key, None), things=self.store.count("nodes"))

    def reconcile(self, key: Hashable) -> None:
        """Bring one node's pod of a set in order, or all of them (""), or the set's status (None)."""
        assert isinstance(key, tuple)  # noqa: S101 - for the type checker
        place, node = key
        ds = self.store.get(_RESOURCE, *place)
        if ds is None or ds["metadata"].get("deletionTimestamp"):
            return
        if node is None:
            self._status(ds)
            self._roll(ds)
            return
        names = [node] if node else [name_of(obj) for obj in self.store.objects("nodes")]
        for name in names:
            self._one(ds, name, self.store.indexed("pods", "daemon", f"{ds['metadata']['uid']}/{name}"))
        self._count_soon(place)

    def _one(self, ds: Obj, name: str, pods: list[Obj]) -> None:
        node = self.store.get("nodes", "", name)
        if node is None:
            return
        should_run, should_stay = self._wanted(ds, node)
        for pod in pods:
            if is_finished(pod) or not should_stay:
                self._factory.delete(pod)
        living = [pod for pod in pods if not is_finished(pod)]
        if should_run and not living:
            self._create(ds, name)

    def _wanted(self, ds: Obj, node: Obj) -> tuple[bool, bool]:
        """Say whether a pod should run on a node, and whether one that is there may stay."""
        spec = ds["spec"]["template"]["spec"]
        if not wants_node(spec, node):
            return False, False
        taint = untolerated(node, daemon_tolerations(spec))
        return taint is None, taint is None or taint["effect"] == "NoSchedule"

    def _create(self, ds: Obj, node: str) -> None:
        template = copied(ds["spec"]["template"])
        spec = template["spec"]
        spec["tolerations"] = daemon_tolerations(spec)
        field = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [field]}
        labels = {**template["metadata"].get("labels", {}), HASH_LABEL: self._hash(ds), "pod-template-generation": "1"}
        metadata = {
            "name": self.store.unused_name("pods", key_of(ds)[0], f"{name_of(ds)}-"),
            "generateName": f"{name_of(ds)}-",
            "labels": labels,
            "annotations": template["metadata"].get("annotations"),
        }
        self._factory.create(ds, metadata, spec)

    @staticmethod
    def _hash(ds: Obj) -> str:
        return digest_suffix(ds["spec"]["template"], 10)

    def _status(self, ds: Obj) -> None:
        nodes = [node for node in self.store.objects("nodes") if self._wanted(ds, node)[0]]
        wanted = {name_of(node) for node in nodes}
        pods = [pod for pod in self.store.indexed("pods", "owner", ds["metadata"]["uid"]) if not is_finished(pod)]
        placed = [pod for pod in pods if pod["spec"].get("nodeName") in wanted]
        ready = sum(1 for pod in placed if is_true(pod, "Ready"))
        now = self._hash(ds)
        counts = {
            "currentNumberScheduled": len(placed),
            "desiredNumberScheduled": len(wanted),
            "numberMisscheduled": len([pod for pod in pods if dig(pod, "spec", "nodeName") and pod not in placed]),
            "numberReady": ready,
            "numberAvailable": ready,
            "numberUnavailable": len(wanted) - ready,
            "updatedNumberScheduled": sum(1 for pod in placed if pod["metadata"]["labels"].get(HASH_LABEL) == now),
            "observedGeneration": ds["metadata"].get("generation", 1),
        }
        optional = {"numberAvailable", "numberUnavailable", "updatedNumberScheduled"}
        shown = {name: count for name, count in counts.items() if count or name not in optional}
        self.store.replace(_RESOURCE, {**ds, "status": shown} if shown != ds.get("status") else ds)

    def _roll(self, ds: Obj) -> None:
        """Delete as many pods of an old template as the update strategy lets be away at once."""
        if dig(ds, "spec", "updateStrategy", "type") == "OnDelete":
            return
        pods = self.store.indexed("pods", "owner", ds["metadata"]["uid"])
        old = [pod for pod in pods if pod["metadata"]["labels"].get(HASH_LABEL) != self._hash(ds)]
        if not old:
            return
        limit = dig(ds, "spec", "updateStrategy", "rollingUpdate", "maxUnavailable", default=1)
        away = sum(1 for pod in pods if not is_true(pod, "Ready") or pod["metadata"].get("deletionTimestamp"))
        broken = [pod for pod in old if not is_true(pod, "Ready")]
        whole = [pod for pod in old if is_true(pod, "Ready")]
        for pod in [*broken, *whole[: max(0, share(limit, len(pods), up=True) - away)]]:
            if not pod["metadata"].get("deletionTimestamp"):
                self._factory.delete(pod)
