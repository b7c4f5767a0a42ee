"""The fields that the real API fills in, by the server's minor version: data/defaults.yaml, and what must be computed."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from lab.simulated import recorded

from .objects import Obj, copied, dig, name_of
from .quantities import canonical

_RBAC_GROUP = "rbac.authorization.k8s.io"
_FILE_MODE = 0o644  # the default mode of files made from ConfigMaps and Secrets


def fill(obj: Obj, values: dict[str, Any]) -> None:
    """Set each value whose key is missing or null, in place; of a map each of its fields."""
    for key, value in values.items():
        if obj.get(key) is None:
            obj[key] = {} if isinstance(value, dict) else copied(value)
        if isinstance(value, dict):
            fill(obj[key], value)


def _from_table(kind: str, obj: Obj, minor: int = 0) -> None:
    for row in recorded.table("defaults.yaml").get(kind, ()):
        conditions = (dig(obj, *path.split(".")) in values for path, values in row.get("when", {}).items())
        if minor >= row.get("since", 0) and all(conditions):
            fill(obj, row["fill"])


def fill_defaults(resource: str, obj: Obj, minor: int) -> None:
    """Fill in what the real API of this minor version fills in, in place; `resource` is a store key."""
    _from_table(resource, obj, minor)
    if compute := _COMPUTED.get(resource):
        compute(obj, minor)


def _template(obj: Obj, minor: int) -> None:  # noqa: ARG001 - the shape of what computes defaults
    template = obj["spec"].setdefault("template", {})
    fill(template, {"metadata": {}})
    template["metadata"].pop("creationTimestamp", None)
    _pod_spec(template.setdefault("spec", {}), template=True)


def _pod(obj: Obj, minor: int) -> None:  # noqa: ARG001
    _pod_spec(obj.setdefault("spec", {}), template=False)


def _service(obj: Obj, minor: int) -> None:  # noqa: ARG001
    for port in obj["spec"].get("ports") or []:
        fill(port, {"protocol": "TCP", "targetPort": port.get("port")})


def _namespace(obj: Obj, minor: int) -> None:
    if minor >= 21:
        obj["metadata"].setdefault("labels", {}).setdefault("kubernetes.io/metadata.name", name_of(obj))


def _binding(obj: Obj, minor: int) -> None:  # noqa: ARG001
    for subject in obj.get("subjects") or []:
        if subject.get("kind") in {"User", "Group"}:
            fill(subject, {"apiGroup": _RBAC_GROUP})


def _secret(obj: Obj, minor: int) -> None:  # noqa: ARG001
    for key, value in (obj.pop("stringData", None) or {}).items():
        obj.setdefault("data", {})[key] = base64.b64encode(str(value).encode()).decode()


def _definition(obj: Obj, minor: int) -> None:  # noqa: ARG001
    kind = str(obj["spec"]["names"].get("kind", ""))
    fill(obj["spec"]["names"], {"listKind": f"{kind}List", "singular": kind.lower()})


def _event(obj: Obj, minor: int) -> None:  # noqa: ARG001
    fill(obj, {"reportingComponent": dig(obj, "source", "component", default="")})


_COMPUTED: dict[str, Callable[[Obj, int], None]] = {
    "pods": _pod,
    "events": _event,
    "services": _service,
    "namespaces": _namespace,
    "secrets": _secret,
    "deployments.apps": _template,
    "replicasets.apps": _template,
    "daemonsets.apps": _template,
    f"clusterrolebindings.{_RBAC_GROUP}": _binding,
    f"rolebindings.{_RBAC_GROUP}": _binding,
    "customresourcedefinitions.apiextensions.k8s.io": _definition,
}


def _pod_spec(spec: Obj, *, template: bool) -> None:
    """Fill in a pod's spec in place; `template` leaves out what only a Pod itself gets."""
    _from_table("pod spec", spec)
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    if not template:
        fill(spec, {"enableServiceLinks": True})
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        _container(container, host_network=bool(spec.get("hostNetwork")), template=template)
    for volume in spec.get("volumes") or []:
        _volume(volume)


def _pull_policy(image: str) -> str:
    last = image.rsplit("/", 1)[-1]
    tagged = "@" in last or (":" in last and not last.endswith(":latest"))
    return "IfNotPresent" if tagged else "Always"


def _container(container: Obj, *, host_network: bool, template: bool) -> None:
    _from_table("container", container)
    fill(container, {"imagePullPolicy": _pull_policy(str(container.get("image", "")))})
    for port in container.get("ports") or []:
        fill(port, {"protocol": "TCP", **({"hostPort": port.get("containerPort")} if host_network else {})})
    for variable in container.get("env") or []:
        if field := (variable.get("valueFrom") or {}).get("fieldRef"):
            fill(field, {"apiVersion": "v1"})
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe := container.get(name):
            _from_table("probe", probe)
            if http := probe.get("httpGet"):
                _from_table("http probe", http)
    resources = container["resources"]
    _canonical(resources)
    if not template and resources.get("limits"):
        resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}


def _canonical(resources: Obj) -> None:
    for part in ("limits", "requests"):
        if resources.get(part):
            resources[part] = {name: canonical(value) for name, value in resources[part].items()}


def canonical_resources(obj: Obj) -> None:
    """Write the quantities of a pod's, or a template's, containers in their stored form, in place.

    An applied configuration is compared with what is stored, and there `1` is "1".
    """
    for path in (("spec",), ("spec", "template", "spec")):
        for kind in ("containers", "initContainers"):
            for container in dig(obj, *path, kind, default=[]):
                _canonical(container.get("resources") or {})


def _volume(volume: Obj) -> None:
    if (host_path := volume.get("hostPath")) is not None:
        fill(host_path, {"type": ""})
    for kind in ("configMap", "secret", "projected", "downwardAPI"):
        if (source := volume.get(kind)) is not None:
            fill(source, {"defaultMode": _FILE_MODE})
    if not any(key != "name" for key in volume):
        volume["emptyDir"] = {}
