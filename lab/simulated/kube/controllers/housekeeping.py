"""What follows from other things: the end of namespaces and orphans, accounts and their tokens, endpoints."""

from __future__ import annotations

import base64
from collections.abc import Hashable

from lab.simulated.kube.admission import matches_service
from lab.simulated.kube.deletion import Deletion
from lab.simulated.kube.objects import Obj, dig, is_true, key_of, labels_of, name_of, namespace_of, random_suffix
from lab.simulated.kube.store import ADDED, DELETED, Change
from lab.simulated.kube.world import World

from .base import Controller

_TOKEN_TYPE = "kubernetes.io/service-account-token"  # noqa: S105 - the name of a type
_ACCOUNT = "kubernetes.io/service-account.name"


def _b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


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


class Accounts(Controller):
    """Fills Secrets of service account tokens; before 1.24 every account gets one by itself."""

    def __init__(self, world: World, ca: bytes) -> None:
        super().__init__(world)
        self._ca = ca
        self.store.listen(["serviceaccounts", "secrets"], self._changed)

    def _changed(self, change: Change) -> None:
        obj = change.obj
        if change.kind == DELETED:
            self._drop_tokens(change)
        elif change.resource == "secrets":
            if obj.get("type") == _TOKEN_TYPE and "token" not in (obj.get("data") or {}):
                self.enqueue(("secrets", key_of(obj)))
        elif self.world.config.minor < 24 and not obj.get("secrets"):
            self.enqueue(("serviceaccounts", key_of(obj)))

    def _drop_tokens(self, change: Change) -> None:
        account = change.obj
        if change.resource != "serviceaccounts":
            return
        for secret in self.store.objects("secrets", namespace_of(account)):
            mine = (secret["metadata"].get("annotations") or {}).get(_ACCOUNT) == name_of(account)
            if mine and secret.get("type") == _TOKEN_TYPE:
                self.store.remove("secrets", *key_of(secret))

    def reconcile(self, key: Hashable) -> None:
        """Fill one Secret, or make one account's."""
        assert isinstance(key, tuple)  # noqa: S101 - for the type checker
        resource, place = key
        obj = self.store.get(resource, *place)
        if obj is None:
            return
        if resource == "serviceaccounts":
            if not obj.get("secrets"):
                self._make(obj)
            return
        namespace = namespace_of(obj)
        account = self.store.get(
            "serviceaccounts", namespace, dig(obj, "metadata", "annotations", _ACCOUNT, default="")
        )
        if account is not None:
            self.store.replace("secrets", {**obj, "data": {**(obj.get("data") or {}), **self._data(account)}})

    def _data(self, account: Obj) -> dict[str, str]:
        place, uid = namespace_of(account), account["metadata"]["uid"]
        token = self.world.signer.for_account(place, name_of(account), uid, None)
        return {"ca.crt": _b64(self._ca), "namespace": _b64(place), "token": _b64(token)}

    def _make(self, account: Obj) -> None:
        name = f"{name_of(account)}-token-{random_suffix(self.world.dice)}"
        metadata = {"name": name, "namespace": namespace_of(account), "annotations": {_ACCOUNT: name_of(account)}}
        head = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": _TOKEN_TYPE}
        self.store.create("secrets", {**head, "data": self._data(account)})
        self.store.replace("serviceaccounts", {**account, "secrets": [{"name": name}]})


class Endpoints(Controller):
    """Keeps the Endpoints of every Service with a selector: the addresses of its ready pods."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.store.listen(["services"], self._service_changed)
        self.store.listen(["pods"], self._pod_changed)

    def _service_changed(self, change: Change) -> None:
        if change.kind == DELETED:
            self.store.remove("endpoints", *key_of(change.obj))
        elif change.obj["spec"].get("selector"):
            self.enqueue(key_of(change.obj))

    def _pod_changed(self, change: Change) -> None:
        before, after = change.before, change.obj
        if before is not None and change.kind != DELETED and is_true(before, "Ready") == is_true(after, "Ready"):
            return
        labels = labels_of(after)
        for service in self.store.objects("services", namespace_of(after)):
            if matches_service(service, labels):
                self.enqueue(key_of(service))

    def reconcile(self, key: Hashable) -> None:
        """Write one service's endpoints."""
        assert isinstance(key, tuple)  # noqa: S101 - for the type checker
        service = self.store.get("services", *key)
        if service is None:
            return
        pods = [pod for pod in self.store.objects("pods", key[0]) if matches_service(service, labels_of(pod))]
        subset = self._subset(service, pods)
        obj = {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": key[1], "namespace": key[0], "labels": labels_of(service)},
            "subsets": [subset] if len(subset) > 1 else [],
        }
        known = self.store.get("endpoints", *key)
        if known is None:
            self.store.create("endpoints", obj)
        else:
            self.store.replace("endpoints", {**known, "subsets": obj["subsets"]})

    def _subset(self, service: Obj, pods: list[Obj]) -> Obj:
        ports = []
        for port in service["spec"].get("ports") or []:
            number = port["targetPort"] if isinstance(port.get("targetPort"), int) else port["port"]
            name = {"name": port["name"]} if port.get("name") else {}
            ports.append({"port": number, "protocol": port.get("protocol", "TCP"), **name})
        subset: Obj = {"ports": ports}
        placed = [pod for pod in pods if dig(pod, "status", "podIP")]
        for field, wanted in (("addresses", True), ("notReadyAddresses", False)):
            found = [self._address(pod) for pod in placed if is_true(pod, "Ready") is wanted]
            if found:
                subset[field] = sorted(found, key=lambda address: str(address["ip"]))
        return subset

    @staticmethod
    def _address(pod: Obj) -> Obj:
        target = {"kind": "Pod", "namespace": namespace_of(pod), "name": name_of(pod), "uid": pod["metadata"]["uid"]}
        return {"ip": pod["status"]["podIP"], "nodeName": pod["spec"].get("nodeName"), "targetRef": target}
