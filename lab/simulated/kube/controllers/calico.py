"""The tigera operator: from an Installation named default to a calico-node DaemonSet and TigeraStatus objects.

It works only where a tigera-operator Deployment has an available replica: without its operator the real resource
would do nothing either.
"""

from __future__ import annotations

from collections.abc import Hashable

from lab.simulated.kube.defaults import fill_defaults
from lab.simulated.kube.objects import Obj, dig, set_condition, with_status
from lab.simulated.kube.store import DELETED, Change
from lab.simulated.kube.world import World

from .base import Controller

OPERATOR = ("deployments.apps", "tigera-operator", "tigera-operator")
_INSTALLATION, _API_SERVER = "installations.operator.tigera.io", "apiservers.operator.tigera.io"
_STATUS = "tigerastatuses.operator.tigera.io"
_PLACE, _API_PLACE = "calico-system", "calico-apiserver"


class Calico(Controller):
    """What the operator of Calico makes and says."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.store.listen([_INSTALLATION, _API_SERVER], self._asked)
        self.store.listen(["deployments.apps"], self._deployment_changed)
        self.store.listen(["daemonsets.apps"], self._daemon_set_changed)

    def _asked(self, change: Change) -> None:
        if change.kind == DELETED:
            return
        if change.before is None or change.before.get("spec") != change.obj.get("spec"):
            self.enqueue(change.resource, self.latencies.calico_operator)

    def _deployment_changed(self, change: Change) -> None:
        place = change.obj["metadata"]["namespace"]
        before, after = change.before or {}, change.obj
        if dig(before, "status", "availableReplicas") == dig(after, "status", "availableReplicas"):
            return
        if place == OPERATOR[1]:
            self.enqueue(_INSTALLATION, self.latencies.calico_operator)
            self.enqueue(_API_SERVER, self.latencies.calico_operator)
        elif place in {_PLACE, _API_PLACE}:
            self.enqueue("status")

    def _daemon_set_changed(self, change: Change) -> None:
        if change.obj["metadata"]["namespace"] == _PLACE:
            self.enqueue("status")

    def reconcile(self, key: Hashable) -> None:
        """Make what the Installation or the APIServer asks for, or report on it."""
        if key == "status":
            self._report()
            return
        operator = self.store.get(*OPERATOR)
        resource = str(key)
        wanted = self.store.get(resource, "", "default")
        if wanted is None or not dig(operator, "status", "availableReplicas", default=0):
            return
        if resource == _INSTALLATION:
            self._namespace(_PLACE)
            self._install(wanted)
        else:
            self._namespace(_API_PLACE)
            self._deployment(_API_PLACE, "calico-apiserver", "apiserver", 2)
        self.enqueue("status")

    def _namespace(self, name: str) -> None:
        if self.store.get("namespaces", "", name) is None:
            obj: Obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            fill_defaults("namespaces", obj, self.world.config.minor)
            self.store.create("namespaces", obj)

    def _install(self, installation: Obj) -> None:
        mounts = [{"name": "cni-net-dir", "hostPath": {"path": "/etc/cni/net.d", "type": ""}}]
        self._account("calico-node")
        self._workload("DaemonSet", _PLACE, "calico-node", "node", pod={"volumes": mounts}, spec={})
        self._account("calico-typha")
        self._deployment(_PLACE, "calico-typha", "typha", 1, {"hostNetwork": True})
        self._account("calico-kube-controllers")
        self._deployment(_PLACE, "calico-kube-controllers", "kube-controllers", 1)
        spec = installation.get("spec") or {}
        self.store.replace(
            _INSTALLATION,
            with_status(installation, variant="Calico", mtu=1450, computed=spec, calicoVersion="SIMULATED"),
        )

    def _account(self, name: str, place: str = _PLACE) -> None:
        if self.store.get("serviceaccounts", place, name) is None:
            metadata = {"name": name, "namespace": place}
            self.store.create("serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})

    def _deployment(self, place: str, name: str, image: str, replicas: int, extra: Obj | None = None) -> None:
        self._account(name, place)
        self._workload("Deployment", place, name, image, pod=extra or {}, spec={"replicas": replicas})

    def _workload(self, kind: str, place: str, name: str, image: str, *, pod: Obj, spec: Obj) -> None:
        resource = f"{kind.lower()}s.apps"
        if self.store.get(resource, place, name) is not None:
            return
        labels = {"k8s-app": name}
        container = {"name": name, "image": f"docker.io/calico/{image}:SIMULATED"}
        host_network = kind == "DaemonSet" or bool(pod.get("hostNetwork"))
        template_spec: Obj = {
            **pod,
            "serviceAccountName": name,
            "containers": [container],
            "tolerations": [{"operator": "Exists"}],
            "priorityClassName": "system-node-critical",
        }
        if host_network:
            template_spec["hostNetwork"] = True
        template = {"metadata": {"labels": labels}, "spec": template_spec}
        obj: Obj = {
            "apiVersion": "apps/v1",
            "kind": kind,
            "metadata": {"name": name, "namespace": place, "labels": labels, "generation": 1},
            "spec": {**spec, "selector": {"matchLabels": labels}, "template": template},
        }
        fill_defaults(resource, obj, self.world.config.minor)
        self.store.create(resource, obj)

    def _report(self) -> None:
        """Write the TigeraStatus objects, where the operator's definition of them is served."""
        if self.world.resources.of_kind("operator.tigera.io/v1", "TigeraStatus") is None:
            return
        if self.store.get(_INSTALLATION, "", "default") is not None:
            self._say("calico", self._missing(_PLACE))
        if self.store.get(_API_SERVER, "", "default") is not None:
            self._say("apiserver", self._missing(_API_PLACE))

    def _missing(self, place: str) -> str:
        for ds in self.store.objects("daemonsets.apps", place):
            wanted = int(dig(ds, "status", "desiredNumberScheduled", default=0))
            ready = int(dig(ds, "status", "numberReady", default=0))
            if ready < wanted or not wanted:
                name = ds["metadata"]["name"]
                return f'DaemonSet "{place}/{name}" is not available (awaiting {wanted - ready} nodes)'
        for deployment in self.store.objects("deployments.apps", place):
            wanted = int(deployment["spec"]["replicas"])
            ready = int(dig(deployment, "status", "availableReplicas", default=0))
            if ready < wanted:
                name = deployment["metadata"]["name"]
                return f'Deployment "{place}/{name}" is not available (awaiting {wanted - ready} replicas)'
        return "" if self.store.objects("deployments.apps", place) else "Pending"

    def _say(self, name: str, missing: str) -> None:
        known = self.store.get(_STATUS, "", name)
        if known is None:
            metadata = {"name": name}
            known = self.store.create(
                _STATUS,
                {"apiVersion": "operator.tigera.io/v1", "kind": "TigeraStatus", "metadata": metadata, "spec": {}},
            )
        conditions = dig(known, "status", "conditions", default=[])
        states = (
            ("Available", not missing, "AllObjectsAvailable" if not missing else "ResourceNotReady"),
            ("Progressing", bool(missing), "ResourceNotReady" if missing else "AllObjectsAvailable"),
            ("Degraded", False, "AllObjectsAvailable"),
        )
        for kind, state, reason in states:
            text = missing or "All objects available"
            conditions = set_condition(conditions, kind, str(state), reason, text)
        self.store.replace(_STATUS, with_status(known, conditions=conditions))
