"""The columns of the kinds that people look at, as the real server prints them; all others show Name and Age."""

from __future__ import annotations

from collections.abc import Callable

from .ages import since
from .objects import Obj, condition, dig
from .pod_columns import NONE, pod_cells

Cells = Callable[[Obj, int], list[object]]
Column = tuple[str, str, int]  # name, type, priority (1: shown by -o wide only)


def _columns(text: str) -> list[Column]:
    """Read `Name Status* Count#`: * wide only, # a number, _ a blank."""
    result = []
    for word in text.split():
        name = word.rstrip("*#").replace("_", " ")
        result.append((name, "integer" if "#" in word else "string", 1 if "*" in word else 0))
    return result


def _age(obj: Obj) -> str:
    return since(obj["metadata"].get("creationTimestamp"))


def _pairs(labels: Obj | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE


def _selector(obj: Obj) -> str:
    return _pairs(dig(obj, "spec", "selector", "matchLabels"))


def _containers(obj: Obj) -> list[object]:
    found = dig(obj, "spec", "template", "spec", "containers", default=[])
    return [",".join(c["name"] for c in found), ",".join(c["image"] for c in found)]


def _node(node: Obj, minor: int) -> list[object]:  # noqa: ARG001 - the shape of a row's maker
    ready = condition(node, "Ready")
    words = ["Unknown" if ready is None else "Ready" if ready["status"] == "True" else "NotReady"]
    if dig(node, "spec", "unschedulable"):
        words.append("SchedulingDisabled")
    prefix = "node-role.kubernetes.io/"
    roles = sorted(key[len(prefix) :] for key in node["metadata"].get("labels") or {} if key.startswith(prefix))
    addresses = {a["type"]: a["address"] for a in dig(node, "status", "addresses", default=[])}
    info = dig(node, "status", "nodeInfo", default={})
    shown = [info.get(key, "<unknown>") for key in ("osImage", "kernelVersion", "containerRuntimeVersion")]
    place = [addresses.get("InternalIP", NONE), addresses.get("ExternalIP", NONE)]
    version = info.get("kubeletVersion", "")
    return [node["metadata"]["name"], ",".join(words), ",".join(roles) or NONE, _age(node), version, *place, *shown]


def _event(event: Obj, minor: int) -> list[object]:  # noqa: ARG001
    about = event["involvedObject"]
    source = dig(event, "source", "component", default="")
    host = dig(event, "source", "host", default="")
    first, last = since(event.get("firstTimestamp")), since(event.get("lastTimestamp"))
    what = f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"
    origin = f"{source}, {host}" if host else source
    words = [last, event.get("type", ""), event.get("reason", ""), what, about.get("fieldPath", ""), origin]
    return [*words, event.get("message", "").strip(), first, event.get("count", 1), event["metadata"]["name"]]


def _daemon_set(ds: Obj, minor: int) -> list[object]:  # noqa: ARG001
    fields = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled")
    counts = [dig(ds, "status", field, default=0) for field in (*fields, "numberAvailable")]
    where = _pairs(dig(ds, "spec", "template", "spec", "nodeSelector"))
    return [ds["metadata"]["name"], *counts, where, _age(ds), *_containers(ds), _selector(ds)]


def _deployment(obj: Obj, minor: int) -> list[object]:  # noqa: ARG001
    status = obj.get("status") or {}
    ready = f"{status.get('readyReplicas', 0)}/{dig(obj, 'spec', 'replicas', default=0)}"
    counts = [status.get("updatedReplicas", 0), status.get("availableReplicas", 0)]
    return [obj["metadata"]["name"], ready, *counts, _age(obj), *_containers(obj), _selector(obj)]


def _service(service: Obj, minor: int) -> list[object]:  # noqa: ARG001
    spec = service["spec"]
    ports = []
    for port in spec.get("ports") or []:
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        ports.append(f"{port['port']}{node}/{port.get('protocol', 'TCP')}")
    address = spec.get("clusterIP") or NONE
    words = [spec.get("type", ""), address, NONE, ",".join(ports) or NONE]
    return [service["metadata"]["name"], *words, _age(service), _pairs(spec.get("selector"))]


def _namespace(obj: Obj, minor: int) -> list[object]:  # noqa: ARG001
    return [obj["metadata"]["name"], dig(obj, "status", "phase", default=""), _age(obj)]


PRINTED: dict[str, tuple[list[Column], Cells]] = {
    "nodes": (
        _columns(
            "Name Status Roles Age Version Internal-IP* External-IP* OS-Image* Kernel-Version* Container-Runtime*"
        ),
        _node,
    ),
    "pods": (_columns("Name Ready Status Restarts Age IP* Node* Nominated_Node* Readiness_Gates*"), pod_cells),
    "events": (
        _columns("Last_Seen Type Reason Object Subobject* Source* Message First_Seen* Count#* Name*"),
        _event,
    ),
    "daemonsets.apps": (
        _columns(
            "Name Desired# Current# Ready# Up-to-date# Available# Node_Selector Age Containers* Images* Selector*"
        ),
        _daemon_set,
    ),
    "deployments.apps": (
        _columns("Name Ready Up-to-date# Available# Age Containers* Images* Selector*"),
        _deployment,
    ),
    "services": (_columns("Name Type Cluster-IP External-IP Port(s) Age Selector*"), _service),
    "namespaces": (_columns("Name Status Age"), _namespace),
}
