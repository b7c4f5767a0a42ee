"""The fields that the real API fills in for every other kind, by the server's minor version."""

from __future__ import annotations

import base64
from collections.abc import Callable

from .defaults_pods import default_pod_spec, fill
from .objects import Obj, dig, name_of

RBAC_GROUP = "rbac.authorization.k8s.io"


def _template(obj: Obj) -> None:
    template = obj["spec"].setdefault("template", {})
    fill(template, {"metadata": {}})
    fill(template["metadata"], {"creationTimestamp": None})
    template["metadata"].pop("creationTimestamp", None)
    default_pod_spec(template.setdefault("spec", {}), template=True)


def _pod(obj: Obj, minor: int) -> None:  # noqa: ARG001 - the shape of a defaulter
    default_pod_spec(obj.setdefault("spec", {}), template=False)
    fill(obj.setdefault("status", {}), {"phase": "Pending"})


def _deployment(obj: Obj, minor: int) -> None:  # noqa: ARG001
    spec = obj.setdefault("spec", {})
    fill(spec, {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600, "strategy": {}})
    fill(spec["strategy"], {"type": "RollingUpdate"})
    if spec["strategy"]["type"] == "RollingUpdate":
        fill(spec["strategy"], {"rollingUpdate": {}})
        fill(spec["strategy"]["rollingUpdate"], {"maxUnavailable": "25%", "maxSurge": "25%"})
    _template(obj)


def _replica_set(obj: Obj, minor: int) -> None:  # noqa: ARG001
    fill(obj.setdefault("spec", {}), {"replicas": 1})
    _template(obj)


def _daemon_set(obj: Obj, minor: int) -> None:
    spec = obj.setdefault("spec", {})
    fill(spec, {"revisionHistoryLimit": 10, "updateStrategy": {}})
    fill(spec["updateStrategy"], {"type": "RollingUpdate"})
    if spec["updateStrategy"]["type"] == "RollingUpdate":
        fill(spec["updateStrategy"], {"rollingUpdate": {}})
        rolling = {"maxUnavailable": 1} if minor < 21 else {"maxUnavailable": 1, "maxSurge": 0}
        fill(spec["updateStrategy"]["rollingUpdate"], rolling)
    _template(obj)


def _service(obj: Obj, minor: int) -> None:
    spec = obj.setdefault("spec", {})
    fill(spec, {"type": "ClusterIP", "sessionAffinity": "None"})
    for port in spec.get("ports") or []:
        fill(port, {"protocol": "TCP", "targetPort": port.get("port")})
    if spec["type"] in {"NodePort", "LoadBalancer"}:
        fill(spec, {"externalTrafficPolicy": "Cluster"})
    if spec["type"] != "ExternalName" and minor >= 21:
        fill(spec, {"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"})
    if spec["type"] != "ExternalName" and minor >= 22:
        fill(spec, {"internalTrafficPolicy": "Cluster"})
    fill(obj, {"status": {"loadBalancer": {}}})


def _namespace(obj: Obj, minor: int) -> None:
    if minor >= 21:
        obj["metadata"].setdefault("labels", {}).setdefault("kubernetes.io/metadata.name", name_of(obj))
    fill(obj.setdefault("spec", {}), {"finalizers": ["kubernetes"]})
    fill(obj.setdefault("status", {}), {"phase": "Active"})


def _binding(obj: Obj, minor: int) -> None:  # noqa: ARG001
    fill(obj.setdefault("roleRef", {}), {"apiGroup": RBAC_GROUP})
    for subject in obj.get("subjects") or []:
        if subject.get("kind") in {"User", "Group"}:
            fill(subject, {"apiGroup": RBAC_GROUP})


def _secret(obj: Obj, minor: int) -> None:  # noqa: ARG001
    fill(obj, {"type": "Opaque"})
    for key, value in (obj.pop("stringData", None) or {}).items():
        obj.setdefault("data", {})[key] = base64.b64encode(str(value).encode()).decode()


def _crd(obj: Obj, minor: int) -> None:  # noqa: ARG001
    spec = obj.setdefault("spec", {})
    fill(spec, {"conversion": {"strategy": "None"}})
    names = spec.setdefault("names", {})
    kind = str(names.get("kind", ""))
    fill(names, {"listKind": f"{kind}List", "singular": kind.lower()})


def _node(obj: Obj, minor: int) -> None:  # noqa: ARG001
    fill(obj, {"spec": {}, "status": {}})


def _event(obj: Obj, minor: int) -> None:  # noqa: ARG001
    fill(obj, {"reportingComponent": dig(obj, "source", "component", default=""), "reportingInstance": ""})


def _priority_class(obj: Obj, minor: int) -> None:  # noqa: ARG001
    fill(obj, {"preemptionPolicy": "PreemptLowerPriority"})


_DEFAULTERS: dict[str, Callable[[Obj, int], None]] = {
    "pods": _pod,
    "nodes": _node,
    "events": _event,
    "services": _service,
    "namespaces": _namespace,
    "secrets": _secret,
    "deployments.apps": _deployment,
    "replicasets.apps": _replica_set,
    "daemonsets.apps": _daemon_set,
    f"clusterrolebindings.{RBAC_GROUP}": _binding,
    f"rolebindings.{RBAC_GROUP}": _binding,
    "customresourcedefinitions.apiextensions.k8s.io": _crd,
    "priorityclasses.scheduling.k8s.io": _priority_class,
}


def fill_defaults(resource: str, obj: Obj, minor: int) -> None:
    """Fill in what the real API of this minor version fills in, in place; `resource` is a store key."""
    defaulter = _DEFAULTERS.get(resource)
    if defaulter:
        defaulter(obj, minor)
