"""Lists as the Tables that `kubectl get` prints, with the columns of data/columns.yaml."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from lab.simulated import recorded

from .objects import Obj, condition, dig, is_true, parsed_time
from .resources import Resource

NONE = "<none>"
_API_VERSION = "meta.k8s.io/v1"
_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 31_536_000


def _pair(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def human(seconds: int) -> str:
    """Return a span in at most two units, rounded as kubectl does (apimachinery's duration.HumanDuration)."""
    seconds = max(0, seconds)
    minutes, hours, days = seconds // _MINUTE, seconds // _HOUR, seconds // _DAY
    steps = (
        (2 * _MINUTE, f"{seconds}s"),
        (10 * _MINUTE, _pair(minutes, "m", seconds % _MINUTE, "s")),
        (3 * _HOUR, f"{minutes}m"),
        (8 * _HOUR, _pair(hours, "h", minutes % 60, "m")),
        (48 * _HOUR, f"{hours}h"),
        (8 * _DAY, _pair(days, "d", hours % 24, "h")),
        (2 * _YEAR, f"{days}d"),
    )
    return next((text for limit, text in steps if seconds < limit), _pair(seconds // _YEAR, "y", days % 365, "d"))


def _since(text: str | None) -> str:
    """Return how long ago a time stamp of the API was."""
    return human(int((datetime.now(UTC) - parsed_time(text)).total_seconds())) if text else "<unknown>"


def _node_status(node: Obj) -> str:
    ready = condition(node, "Ready")
    state = "Unknown" if ready is None else "Ready" if ready["status"] == "True" else "NotReady"
    return f"{state},SchedulingDisabled" if dig(node, "spec", "unschedulable") else state


def _node_roles(node: Obj) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = sorted(node["metadata"].get("labels") or {})
    return ",".join(key[len(prefix) :] for key in labels if key.startswith(prefix)) or NONE


def _address(node: Obj, kind: str) -> str:
    return next((one["address"] for one in dig(node, "status", "addresses", default=[]) if one["type"] == kind), NONE)


def _container_reason(status: Obj) -> str:
    waiting, ended = dig(status, "state", "waiting", default={}), dig(status, "state", "terminated", default={})
    code = f"ExitCode:{ended['exitCode']}" if "exitCode" in ended else ""
    return str(waiting.get("reason") or ended.get("reason") or code)


def _pod_state(pod: Obj) -> str:
    """Return what STATUS shows: the phase, or the reason of a container that waits or has ended."""
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    reason = str(dig(pod, "status", "reason") or dig(pod, "status", "phase", default="Unknown"))
    statuses = dig(pod, "status", "containerStatuses", default=[])
    for status in reversed(statuses):
        reason = _container_reason(status) or reason
    if reason == "Completed" and any(status.get("ready") and dig(status, "state", "running") for status in statuses):
        return "Running" if is_true(pod, "Ready") else "NotReady"
    return reason


def _pod_ready(pod: Obj) -> str:
    statuses = dig(pod, "status", "containerStatuses", default=[])
    ready = sum(1 for status in statuses if status.get("ready") and dig(status, "state", "running") is not None)
    return f"{ready}/{len(pod['spec']['containers'])}"


def _pod_restarts(pod: Obj, minor: int) -> int | str:
    statuses = dig(pod, "status", "containerStatuses", default=[])
    count = sum(int(status.get("restartCount", 0)) for status in statuses)
    if minor < 22:
        return count
    ends = [end for status in statuses if (end := dig(status, "lastState", "terminated", "finishedAt"))]
    return f"{count} ({_since(max(ends))} ago)" if count and ends else str(count)


def _containers(obj: Obj, field: str) -> str:
    return ",".join(one[field] for one in dig(obj, "spec", "template", "spec", "containers", default=[]))


def _event_object(event: Obj) -> str:
    return f"{str(event['involvedObject'].get('kind', '')).lower()}/{event['involvedObject'].get('name', '')}"


def _event_source(event: Obj) -> str:
    return ", ".join(part for part in (dig(event, "source", "component"), dig(event, "source", "host")) if part)


def _service_port(port: Obj) -> str:
    node = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port['port']}{node}/{port.get('protocol', 'TCP')}"


_MADE: dict[str, Callable[[Obj, int], object]] = {
    "node status": lambda node, _: _node_status(node),
    "node roles": lambda node, _: _node_roles(node),
    "node address": lambda node, _: _address(node, "InternalIP"),
    "external address": lambda node, _: _address(node, "ExternalIP"),
    "pod ready": lambda pod, _: _pod_ready(pod),
    "pod state": lambda pod, _: _pod_state(pod),
    "pod restarts": _pod_restarts,
    "event object": lambda event, _: _event_object(event),
    "event source": lambda event, _: _event_source(event),
    "container names": lambda obj, _: _containers(obj, "name"),
    "container images": lambda obj, _: _containers(obj, "image"),
    "deployment ready": lambda obj, _: f"{dig(obj, 'status', 'readyReplicas', default=0)}/{obj['spec']['replicas']}",
    "service ports": lambda obj, _: ",".join(_service_port(port) for port in obj["spec"].get("ports") or []) or NONE,
}


def _cell(obj: Obj, minor: int, title: str, how: str) -> object:
    if how in _MADE:
        return _MADE[how](obj, minor)
    word, _, path = how.rpartition(" ")
    value = dig(obj, *path.split("."))
    if word == "since":
        return _since(value)
    if word == "pairs":
        return ",".join(f"{key}={one}" for key, one in sorted((value or {}).items())) or NONE
    return value if value is not None else NONE if word == "none-or" else 0 if "#" in title else ""


def _definition(title: str) -> Obj:
    name, kind = title.rstrip("*#"), "integer" if "#" in title else "string"
    shape, priority = "name" if name == "Name" else "", 1 if "*" in title else 0
    return {"name": name, "type": kind, "format": shape, "description": "", "priority": priority}


def table(resource: Resource, objects: Iterable[Obj], list_metadata: Obj, *, minor: int, include: str) -> Obj:
    """Return a Table of objects; `include` says what each row carries: Metadata, Object or None."""
    known = recorded.table("columns.yaml")
    columns: dict[str, str] = known.get(resource.key, known["others"])
    rows = []
    for obj in objects:
        row: Obj = {"cells": [_cell(obj, minor, title, how) for title, how in columns.items()]}
        if include == "Object":
            row["object"] = obj
        elif include != "None":
            head = {"kind": "PartialObjectMetadata", "apiVersion": _API_VERSION}
            row["object"] = {**head, "metadata": obj["metadata"]}
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": _API_VERSION,
        "metadata": list_metadata,
        "columnDefinitions": [_definition(title) for title in columns],
        "rows": rows,
    }
