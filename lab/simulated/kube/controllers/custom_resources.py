"""CustomResourceDefinitions: established after a moment, their resources served, and all of it gone with them."""

from __future__ import annotations

from collections.abc import Hashable

from lab.simulated.kube.objects import Obj, dig, key_of, name_of, set_condition, with_status
from lab.simulated.kube.resources import ALL_VERBS, Resource
from lab.simulated.kube.store import DELETED, Change
from lab.simulated.kube.world import World

from .base import Controller

_RESOURCE = "customresourcedefinitions.apiextensions.k8s.io"


class CustomResources(Controller):
    """Works on one definition at a time."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.store.listen([_RESOURCE], self._changed)

    def _changed(self, change: Change) -> None:
        if change.kind == DELETED:
            self._gone(change.obj)
        elif change.before is None or change.before["spec"] != change.obj["spec"]:
            self.enqueue(name_of(change.obj), self.latencies.crd_established)

    def _gone(self, definition: Obj) -> None:
        key = name_of(definition)
        for obj in self.store.objects(key):
            self.store.remove(key, *key_of(obj))
        self.world.resources.remove(key)

    def reconcile(self, key: Hashable) -> None:
        """Serve a definition's versions and say so in its status."""
        definition = self.store.get(_RESOURCE, "", str(key))
        if definition is None:
            return
        self._serve(definition)
        conditions = dig(definition, "status", "conditions", default=[])
        conditions = set_condition(conditions, "NamesAccepted", "True", "NoConflicts", "no conflicts found")
        text = "the initial names have been accepted"
        conditions = set_condition(conditions, "Established", "True", "InitialNamesAccepted", text)
        stored = [version["name"] for version in definition["spec"]["versions"] if version.get("storage")]
        names = definition["spec"]["names"]
        self.store.replace(
            _RESOURCE, with_status(definition, conditions=conditions, acceptedNames=names, storedVersions=stored)
        )

    def _serve(self, definition: Obj) -> None:
        spec, names = definition["spec"], definition["spec"]["names"]
        self.world.resources.remove(name_of(definition))
        for version in spec["versions"]:
            if not version.get("served", True):
                continue
            self.world.resources.add(
                Resource(
                    group=spec["group"],
                    version=version["name"],
                    plural=names["plural"],
                    kind=names["kind"],
                    namespaced=spec.get("scope") == "Namespaced",
                    short=tuple(names.get("shortNames") or ()),
                    subresources=tuple(version.get("subresources") or ()),
                    verbs=ALL_VERBS,
                    categories=tuple(names.get("categories") or ()),
                    singular=str(names.get("singular", "")),
                    custom=True,
                )
            )
