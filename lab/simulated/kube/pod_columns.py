"""The one-word state of a pod, and its other columns, as kubectl shows them."""

from __future__ import annotations

from .ages import since
from .objects import Obj, condition, dig

NONE = "<none>"


def _container_reason(status: Obj) -> str:
    waiting, ended = dig(status, "state", "waiting"), dig(status, "state", "terminated")
    if waiting and waiting.get("reason"):
        return str(waiting["reason"])
    if ended is None:
        return ""
    if ended.get("reason"):
        return str(ended["reason"])
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode')}"


def pod_state(pod: Obj) -> str:
    """Return what STATUS shows: the phase, or the reason of a container that waits or has ended."""
    reason = str(dig(pod, "status", "reason") or dig(pod, "status", "phase", default="Unknown"))
    scheduled = condition(pod, "PodScheduled")
    if scheduled and scheduled.get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    running = False
    for status in reversed(dig(pod, "status", "containerStatuses", default=[])):
        reason = _container_reason(status) or reason
        running = running or (bool(status.get("ready")) and dig(status, "state", "running") is not None)
    if reason == "Completed" and running:
        reason = "Running" if _ready(pod) else "NotReady"
    if pod["metadata"].get("deletionTimestamp"):
        return "Unknown" if dig(pod, "status", "reason") == "NodeLost" else "Terminating"
    return reason


def _ready(pod: Obj) -> bool:
    found = condition(pod, "Ready")
    return found is not None and found["status"] == "True"


def _restarts(pod: Obj, minor: int) -> int | str:
    statuses = dig(pod, "status", "containerStatuses", default=[])
    count = sum(int(status.get("restartCount", 0)) for status in statuses)
    if minor < 22:
        return count
    ends = [end for status in statuses if (end := dig(status, "lastState", "terminated", "finishedAt"))]
    return f"{count} ({since(max(ends))} ago)" if count and ends else str(count)


def pod_cells(pod: Obj, minor: int) -> list[object]:
    """Return the cells of a pod's row."""
    statuses = dig(pod, "status", "containerStatuses", default=[])
    ready = sum(1 for status in statuses if status.get("ready") and dig(status, "state", "running") is not None)
    return [
        pod["metadata"]["name"],
        f"{ready}/{len(pod['spec']['containers'])}",
        pod_state(pod),
        _restarts(pod, minor),
        since(pod["metadata"].get("creationTimestamp")),
        dig(pod, "status", "podIP", default=NONE),
        dig(pod, "spec", "nodeName", default=NONE),
        dig(pod, "status", "nominatedNodeName", default=NONE),
        NONE,
    ]
