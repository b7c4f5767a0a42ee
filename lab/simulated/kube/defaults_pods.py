"""The fields that the real API fills in for pods and pod templates."""

from __future__ import annotations

from typing import Any

from .objects import Obj, dig
from .quantities import canonical

_SPEC = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
}
_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_FILE_MODE = 0o644  # the default mode of files made from ConfigMaps and Secrets


def fill(obj: Obj, values: dict[str, Any]) -> None:
    """Set each value whose key is missing or null, in place."""
    for key, value in values.items():
        if obj.get(key) is None:
            obj[key] = value


def default_pod_spec(spec: Obj, *, template: bool) -> None:
    """Fill in a pod's spec in place; `template` leaves out what only a Pod itself gets."""
    fill(spec, dict(_SPEC))
    fill(spec, {"securityContext": {}})
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    if not template:
        fill(spec, {"enableServiceLinks": True})
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        _default_container(container, host_network=bool(spec.get("hostNetwork")), template=template)
    for volume in spec.get("volumes") or []:
        _default_volume(volume)


def _pull_policy(image: str) -> str:
    last = image.rsplit("/", 1)[-1]
    tagged = "@" in last or (":" in last and not last.endswith(":latest"))
    return "IfNotPresent" if tagged else "Always"


def _default_container(container: Obj, *, host_network: bool, template: bool) -> None:
    fill(container, {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"})
    fill(container, {"imagePullPolicy": _pull_policy(str(container.get("image", ""))), "resources": {}})
    for port in container.get("ports") or []:
        fill(port, {"protocol": "TCP"})
        if host_network:
            fill(port, {"hostPort": port.get("containerPort")})
    for variable in container.get("env") or []:
        if field := (variable.get("valueFrom") or {}).get("fieldRef"):
            fill(field, {"apiVersion": "v1"})
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe := container.get(name):
            fill(probe, dict(_PROBE))
            if http := probe.get("httpGet"):
                fill(http, {"path": "/", "scheme": "HTTP"})
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


def _default_volume(volume: Obj) -> None:
    if (host_path := volume.get("hostPath")) is not None:
        fill(host_path, {"type": ""})
    for kind in ("configMap", "secret", "projected", "downwardAPI"):
        if (source := volume.get(kind)) is not None:
            fill(source, {"defaultMode": _FILE_MODE})
    if not any(key != "name" for key in volume):
        volume["emptyDir"] = {}
