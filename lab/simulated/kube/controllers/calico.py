"""The tigera operator: from an Installation named default to a calico-node DaemonSet and TigeraStatus objects.

It works only where a tigera-operator Deployment has an available replica: without its operator the real resource
would do nothing either.
"""

from __future__ import annotations

from collections.abc import Hashable

from lab.simulated import recorded
from lab.simulated.kube.objects import dig, name_of, namespace_of, set_condition, with_status
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
        place = _PLACE if resource == _INSTALLATION else _API_PLACE
        for obj in recorded.documents("calico.yaml"):
            if place in (name_of(obj), namespace_of(obj)):
                self.world.put(obj)
        if resource == _INSTALLATION:
            said = {
                "variant": "Calico",
                "mtu": 1450,
                "computed": wanted.get("spec") or {},
                "calicoVersion": "SIMULATED",
            }
            self.store.replace(resource, with_status(wanted, **said))
        self.enqueue("status")

    def _report(self) -> None:
        """Write the TigeraStatus objects, where the operator's definition of them is served."""
        if self.world.resources.of_kind("operator.tigera.io/v1", "TigeraStatus") is None:
            return
        if self.store.get(_INSTALLATION, "", "default") is not None:
            self._say("calico", self._missing(_PLACE))
        if self.store.get(_API_SERVER, "", "default") is not None:
            self._say("apiserver", self._missing(_API_PLACE))

    def _missing(self, place: str) -> str:
        """Return the words about the first workload that is not whole; empty where all are."""
        for ds in self.store.objects("daemonsets.apps", place):
            wanted = int(dig(ds, "status", "desiredNumberScheduled", default=0))
            away = wanted - int(dig(ds, "status", "numberReady", default=0))
            if away > 0 or not wanted:
                return f'DaemonSet "{place}/{name_of(ds)}" is not available (awaiting {away} nodes)'
        for deployment in self.store.objects("deployments.apps", place):
            away = int(deployment["spec"]["replicas"]) - int(dig(deployment, "status", "availableReplicas", default=0))
            if away > 0:
                return f'Deployment "{place}/{name_of(deployment)}" is not available (awaiting {away} replicas)'
        return "" if self.store.objects("deployments.apps", place) else "Pending"

    def _say(self, name: str, missing: str) -> None:
        head = {"apiVersion": "operator.tigera.io/v1", "kind": "TigeraStatus"}
        known = self.world.put({**head, "metadata": {"name": name}, "spec": {}})
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
