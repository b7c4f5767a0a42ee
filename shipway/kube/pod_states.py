"""What keeps a pod from running, read from its containers first: a phase or the newest event alone deceives.

`status.phase` stays Running while a container crashes again and again, `CrashLoopBackOff` only says how long the
kubelet waits, and the newest event is often "Pulled". The cause stands in the container's state, in how it ended last,
or in the event of the attempt that failed (Kubernetes, "Pod Lifecycle": container states, container restarts).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from shipway.known_failures.catalogue import diagnose
from shipway.known_failures.entry import Known
from shipway.kube.status import condition

STARTING = ("", "ContainerCreating", "PodInitializing")
AGAIN = ("CrashLoopBackOff", "RunContainerError", "CreateContainerError", "StartError")  # their cause stands elsewhere
FAILURES = ("Failed", "BackOff", "Unexpected", "Evicted", "OutOf")


def events_about(pod: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return those of a namespace's events that are about this pod as it is now, as `reason: message`, oldest first.

    Left out is what is over: events of an earlier pod of the same name, and those before all of the pod's containers
    last started. The API keeps events for an hour (kube-apiserver, --event-ttl), so a fault that was mended meanwhile
    still stands there.
    """
    meta, since = pod["metadata"], find_start(pod)
    own = [
        (when, event)
        for event in events
        if (about := event.get("involvedObject") or {}).get("name") == meta["name"]
        and about.get("uid", meta.get("uid")) == meta.get("uid", about.get("uid"))
        and (when := str(event.get("lastTimestamp") or event.get("eventTime") or "")) >= since
    ]
    own.sort(key=lambda one: one[0])
    return [f"{event.get('reason', '')}: {event.get('message', '')}" for _, event in own]


def find_start(pod: Mapping[str, Any]) -> str:
    """Return when the last of a pod's containers started (RFC 3339 in UTC sorts as text); "" while one never has."""
    entries = (pod.get("status") or {}).get("containerStatuses") or ()
    starts = [max(_starts(entry), default="") for entry in entries]
    return max(starts) if starts and all(starts) else ""


def _starts(entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield when a container started, this time and the time before; one that could not has the year 1970 there."""
    for state in (entry.get("state") or {}, entry.get("lastState") or {}):
        for form in ("running", "terminated"):
            yield str((state.get(form) or {}).get("startedAt") or "")


def find_trouble(pod: Mapping[str, Any], events: Sequence[str] = ()) -> str:
    """Return why a pod does not run, as `reason: message`; empty where nothing is wrong, or nothing is said yet.

    `events` are those about the pod as `reason: message`, oldest first.
    """
    status = pod.get("status") or {}
    for entry in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        if said := _container(entry, events):
            return said
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return f"FailedScheduling: {scheduled.get('message', '')}"
    if status.get("reason"):
        return _join(status["reason"], status.get("message"))
    return "" if status.get("phase") == "Running" else _failure(events)


def _container(entry: Mapping[str, Any], events: Sequence[str]) -> str:
    """Return what is wrong with one container; one that ended well, or is only starting, is not."""
    state = entry.get("state") or {}
    now = state.get("waiting") or state.get("terminated") or {}
    ended = state.get("terminated") or (entry.get("lastState") or {}).get("terminated") or {}
    if "running" in state and (entry.get("ready") or not entry.get("restartCount")):
        return ""
    if "terminated" in state and ended.get("exitCode") == 0:
        return ""
    reason = str(now.get("reason", ""))
    if reason in STARTING and not entry.get("restartCount"):
        return ""
    if reason in STARTING:  # between two attempts
        reason = "Restarting"
    if reason not in (*AGAIN, "Restarting"):
        return _join(reason, now.get("message"))
    how = _join(ended.get("reason"), ended.get("message")) or _failure(events) or str(now.get("message", ""))
    code = f"exit code {ended['exitCode']}" if "exitCode" in ended else ""
    times = f"{entry['restartCount']} restarts" if entry.get("restartCount") else ""
    beside = ", ".join(part for part in (times, code) if part)
    return _join(f"{reason} ({beside})" if beside else reason, how)


def _failure(events: Sequence[str]) -> str:
    """Return the newest event that tells of a failure with its cause; "BackOff" only where there is no other."""
    failed = [event for event in events if event.startswith(FAILURES)]
    telling = [event for event in failed if not event.startswith("BackOff")]
    return (telling or failed or [""])[-1]


def _join(reason: object, message: object) -> str:
    return f"{reason or ''}: {message or ''}".strip(": ")


def find_known(pod: Mapping[str, Any], events: Sequence[str] = ()) -> Known | None:
    """Return the catalogue's entry for what keeps a pod from running, where waiting cannot help; else None."""
    known = diagnose("\n".join((find_trouble(pod, events), *(event for event in events if event.startswith(FAILURES)))))
    return known if known and not known.retryable else None
