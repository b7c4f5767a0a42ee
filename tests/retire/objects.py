"""A Kubernetes API that is a list of objects: enough for checks that ask for them, and for deletions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shipway.kube.errors import kind_missing
from shipway.place import Place

Object = dict[str, Any]


def meta(name: str, namespace: str = "", **more: Any) -> Object:
    """Return metadata."""
    return {
        "name": name,
        "resourceVersion": "1",
        **({"namespace": namespace} if namespace else {}),
        "uid": f"uid-of-{name}",
        **more,
    }


def node(name: str, *, ready: bool = True, closed: bool = False, role: str = "", taints: Any = ()) -> Object:
    """Return a node."""
    labels = {f"node-role.kubernetes.io/{role}": ""} if role else {}
    spec = {**({"unschedulable": True} if closed else {}), "taints": list(taints)}
    conditions = [{"type": "Ready", "status": "True" if ready else "Unknown", "message": "Kubelet stopped posting"}]
    return {"kind": "Node", "metadata": meta(name, labels=labels), "spec": spec, "status": {"conditions": conditions}}


def pod(name: str, on: str, *, owner: str = "ReplicaSet", namespace: str = "default", **spec: Any) -> Object:
    """Return a running pod."""
    owners = [{"apiVersion": "apps/v1", "kind": owner, "name": f"{name}-owner", "controller": True}] if owner else []
    return {
        "kind": "Pod",
        "metadata": meta(name, namespace, ownerReferences=owners, labels=spec.pop("labels", {})),
        "spec": {"nodeName": on, "containers": [{"name": "c", **spec.pop("container", {})}], **spec},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": spec.pop("ready", "True")}]},
    }


class Objects(Place):
    """Answers by kind; `missing` are kinds that it does not serve."""

    name = "cluster"

    def __init__(self, *objects: Object, missing: tuple[str, ...] = (), version: str = "v1.31.7") -> None:
        self.objects, self.missing, self._version = list(objects), missing, version
        self.deleted: list[str] = []

    async def version(self) -> str:
        """Return the server's version."""
        return self._version

    async def list_(
        self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[Object]:
        """Return the objects of a kind."""
        if kind in self.missing:
            raise kind_missing(api_version, kind)
        wanted = dict(one.split("=") for one in labels.split(",") if "=" in one)
        place = fields.partition("spec.nodeName=")[2]
        return [
            one
            for one in self.objects
            if one["kind"] == kind
            and namespace in ("", one["metadata"].get("namespace", ""))
            and wanted.items() <= _labels(one).items()
            and place in ("", (one.get("spec") or {}).get("nodeName"))
        ]

    async def get(
        self, api_version: str, kind: str, name: str, namespace: str = "", *, fresh: bool = False
    ) -> Object | None:
        """Return one object."""
        del fresh
        found = await self.list_(api_version, kind, namespace)
        return next((one for one in found if one["metadata"]["name"] == name), None)

    async def patch(self, api_version: str, kind: str, name: str, changes: Object, namespace: str = "") -> Object:
        """Merge what a cordon writes."""
        found = await self.get(api_version, kind, name, namespace)
        assert found is not None
        found["spec"] |= changes["spec"]
        found["metadata"].setdefault("annotations", {}).update(changes["metadata"]["annotations"])
        return found

    async def delete(self, api_version: str, kind: str, name: str, namespace: str = "", *, uid: str = "") -> bool:
        """Take an object away."""
        found = await self.get(api_version, kind, name, namespace)
        assert found is not None
        assert uid in ("", found["metadata"]["uid"])
        self.deleted.append(f"{kind}/{name}")
        self.objects.remove(found)
        return True


def _labels(one: Mapping[str, Any]) -> Mapping[str, str]:
    found: Mapping[str, str] = one["metadata"].get("labels") or {}
    return found
