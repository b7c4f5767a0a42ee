"""What the API server does to an object before it stores it: refuse, complete, hand out addresses and ports."""

from __future__ import annotations

import ipaddress
import json

from .api_errors import forbidden, invalid, not_found
from .objects import Obj, dig, name_of, namespace_of, random_suffix
from .resources import Resource
from .world import World

NODE_PORTS = range(30000, 32768)
# Built-in priority classes, value and name (pkg/apis/scheduling of the real one).
_CRITICAL = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}


class Admission:
    """The admission plugins of a simulated API server."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._next_port = 0

    def admit(self, resource: Resource, obj: Obj, before: Obj | None) -> None:
        """Complete an object in place on its way into the store. Raises ApiError where it is refused."""
        if before is None and resource.namespaced:
            self._namespace_is_open(resource, obj)
        if resource.key == "pods" and before is None:
            self._pod(obj)
        elif resource.key == "services":
            self._service(obj, before)

    def _namespace_is_open(self, resource: Resource, obj: Obj) -> None:
        name = namespace_of(obj)
        namespace = self._world.store.get("namespaces", "", name)
        if namespace is None:
            raise not_found("namespaces", "", name)
        if namespace["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {name} because it is being terminated"
            raise forbidden(resource.plural, resource.group, name_of(obj), why)

    def _pod(self, pod: Obj) -> None:
        spec = pod["spec"]
        self._runtime_class(pod)
        if not spec.get("serviceAccountName"):
            spec["serviceAccountName"] = spec["serviceAccount"] = "default"
        account = self._world.store.get("serviceaccounts", namespace_of(pod), spec["serviceAccountName"])
        if account is None:
            why = (
                f"error looking up service account {namespace_of(pod)}/{spec['serviceAccountName']}: "
                f'serviceaccount "{spec["serviceAccountName"]}" not found'
            )
            raise forbidden("pods", "", name_of(pod), why)
        self._priority(pod)
        self._tolerations(pod)
        self._token_volume(pod, account)

    def _runtime_class(self, pod: Obj) -> None:
        name = pod["spec"].get("runtimeClassName")
        if not name:
            return
        found = self._world.store.get("runtimeclasses.node.k8s.io", "", name)
        if found is None:
            raise forbidden("pods", "", name_of(pod), f'pod rejected: RuntimeClass "{name}" not found')
        scheduling = found.get("scheduling") or {}
        if scheduling.get("nodeSelector"):
            pod["spec"]["nodeSelector"] = {**(pod["spec"].get("nodeSelector") or {}), **scheduling["nodeSelector"]}
        if scheduling.get("tolerations"):
            pod["spec"]["tolerations"] = [*(pod["spec"].get("tolerations") or []), *scheduling["tolerations"]]

    def _priority(self, pod: Obj) -> None:
        name = pod["spec"].get("priorityClassName")
        value = _CRITICAL.get(name or "", 0)
        if name and name not in _CRITICAL:
            found = self._world.store.get("priorityclasses.scheduling.k8s.io", "", name)
            if found is None:
                raise forbidden("pods", "", name_of(pod), f"no PriorityClass with name {name} was found")
            value = int(found["value"])
        pod["spec"].setdefault("priority", value)
        pod["spec"].setdefault("preemptionPolicy", "PreemptLowerPriority")

    def _tolerations(self, pod: Obj) -> None:
        tolerations = list(pod["spec"].get("tolerations") or [])
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
            covers = [t for t in tolerations if t.get("key") in {key, None} and t.get("effect") in {"NoExecute", None}]
            if not covers:
                new = {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
                tolerations.append(new)
        pod["spec"]["tolerations"] = tolerations

    def _token_volume(self, pod: Obj, account: Obj) -> None:
        wanted = pod["spec"].get("automountServiceAccountToken", account.get("automountServiceAccountToken", True))
        if not wanted or "kubernetes.io/config.mirror" in (pod["metadata"].get("annotations") or {}):
            return
        name = f"kube-api-access-{random_suffix(self._world.dice)}"
        sources = [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        ]
        volume = {"name": name, "projected": {"sources": sources, "defaultMode": 420}}
        pod["spec"]["volumes"] = [*(pod["spec"].get("volumes") or []), volume]
        mount = {"name": name, "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
        for container in pod["spec"]["containers"]:
            container["volumeMounts"] = [*(container.get("volumeMounts") or []), mount]

    def _service(self, service: Obj, before: Obj | None) -> None:
        spec, old = service["spec"], (before or {}).get("spec", {})
        if spec["type"] != "ExternalName":
            address = spec.get("clusterIP") or old.get("clusterIP") or self._free_address()
            spec["clusterIP"] = address
            spec["clusterIPs"] = [address]
        if spec["type"] not in {"NodePort", "LoadBalancer"}:
            return
        mine = {port.get("nodePort") for port in old.get("ports") or []}
        taken = {
            port.get("nodePort")
            for other in self._world.store.objects("services")
            if other["metadata"]["uid"] != service["metadata"].get("uid")
            for port in other["spec"].get("ports") or []
        }
        for at, port in enumerate(spec.get("ports") or []):
            if not port.get("nodePort"):
                reused = dig(old, "ports", at, "nodePort")
                port["nodePort"] = reused or next(n for n in NODE_PORTS if n not in taken and n not in mine)
            self._check_node_port(service, f"spec.ports[{at}].nodePort", int(port["nodePort"]), taken)
            taken.add(port["nodePort"])

    def _check_node_port(self, service: Obj, field: str, port: int, taken: set[int | None]) -> None:
        why = ""
        if port in taken:
            why = "provided port is already allocated"
        elif port not in NODE_PORTS:
            why = "provided port is not in the valid range. The range of valid ports is 30000-32767"
        if why:
            cause = (field, "FieldValueInvalid", f"Invalid value: {json.dumps(port)}: {why}")
            raise invalid("Service", "", name_of(service), [cause])

    def _free_address(self) -> str:
        network = ipaddress.ip_network(self._world.config.service_cidr)
        used = {dig(service, "spec", "clusterIP") for service in self._world.store.objects("services")}
        # 1 is the API's own service and 10 the cluster's DNS, as kubeadm gives them.
        for number in range(11, network.num_addresses - 1):
            address = str(network[number])
            if address not in used:
                return address
        raise invalid("Service", "", "", [("spec.clusterIPs", "InternalError", "Internal error: range is full")])
