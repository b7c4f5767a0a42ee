"""What Kubernetes objects say about themselves: conditions, readiness, and how two states differ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

# What the server itself writes, at every write or on its own: never a reason to apply.
SERVERS_OWN = frozenset({"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"})
COUNTED = "deprecated.daemonset.template.generation"  # an annotation that only counts changes
# The other conditions of a node by which Kubernetes keeps pods away from it; True is bad here.
PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")
SHORTER = (
    (re.compile(r"cni (?:plugin|config) (?:not|un)\s*initiali[sz]ed", re.IGNORECASE), "CNI not initialised"),
    (re.compile(r"NetworkPluginNotReady|network plugin is not ready", re.IGNORECASE), "CNI not initialised"),
)


def condition(obj: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return the status condition of that type; an empty mapping where there is none."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((entry for entry in conditions if entry.get("type") == kind), {})


def is_true(obj: Mapping[str, Any], kind: str) -> bool:
    """Say whether a status condition is True."""
    return condition(obj, kind).get("status") == "True"


def why_not_ready(node: Mapping[str, Any] | None) -> str:
    """Return in few words why a node is not Ready; empty where it is."""
    if node is None:
        return "not registered"
    if is_true(node, "Ready"):
        return ""
    said = str(condition(node, "Ready").get("message") or "no status yet")
    return next((short for pattern, short in SHORTER if pattern.search(said)), said[:160])


def why_pressed(node: Mapping[str, Any] | None) -> str:
    """Return what a node's own kubelet is short of, each as `DiskPressure: its words`; empty where of nothing.

    Such a node stays Ready. It takes no new pods, and ends some that run where it is not its network that it lacks
    (Kubernetes' node-pressure eviction).
    """
    found = [condition(node or {}, kind) for kind in PRESSURES if is_true(node or {}, kind)]
    return "; ".join(f"{one['type']}: {one.get('message') or 'it does not say more'}" for one in found)


def posted_at(node: Mapping[str, Any]) -> float:
    """Return when a node's kubelet last posted its status, in seconds since 1970 by the node's clock; 0 where never."""
    try:
        return datetime.fromisoformat(str(condition(node, "Ready").get("lastHeartbeatTime"))).timestamp()
    except ValueError:
        return 0.0


def differences(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the places (`spec.template.spec.containers[0].image`) where an object would change; never the values.

    `wanted` is the answer of a dry run, so that the server's own defaults are in both.
    """
    # In a custom resource every list is one value for server-side apply, and its operator writes defaults into the
    # entries (Calico's into ipPools): what it added there is not ours to take away. Kubernetes' own lists have keys.
    group = str(wanted.get("apiVersion", "")).rpartition("/")[0]
    adopted = "." in group and not group.endswith(".k8s.io")
    places: list[str] = []
    for key in sorted({*live, *wanted} - {"status", "metadata"}):
        places += _differ(live.get(key), wanted.get(key), key, adopted=adopted, inside=False)
    before, after = _meta(live), _meta(wanted)
    return places + list(_differ(before, after, "metadata", adopted=False, inside=False))


def _meta(obj: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object's metadata without what the server alone writes."""
    meta = {key: value for key, value in (obj.get("metadata") or {}).items() if key not in SERVERS_OWN}
    if COUNTED in (meta.get("annotations") or {}):
        meta["annotations"] = {key: value for key, value in meta["annotations"].items() if key != COUNTED}
    return meta


def _differ(live: Any, wanted: Any, place: str, *, adopted: bool, inside: bool) -> Iterator[str]:
    """Yield the places below `place`; `inside` a list whose entries somebody else may add fields to."""
    if isinstance(live, Mapping) and isinstance(wanted, Mapping):
        for key in sorted(wanted if inside else {*live, *wanted}):
            yield from _differ(live.get(key), wanted.get(key), f"{place}.{key}", adopted=adopted, inside=inside)
    elif isinstance(live, list) and isinstance(wanted, list) and len(live) == len(wanted):
        for index, (one, other) in enumerate(zip(live, wanted, strict=True)):
            yield from _differ(one, other, f"{place}[{index}]", adopted=adopted, inside=adopted)
    elif live != wanted:
        yield place


def called(meta: Mapping[str, Any]) -> str:
    """Return namespace/name of an object, or its name alone."""
    return "/".join(str(meta[key]) for key in ("namespace", "name") if meta.get(key))


def made_at(meta: Mapping[str, Any]) -> datetime:
    """Return when an object was made; what says nothing of it (ComponentStatus) is no newer than anything."""
    return datetime.fromisoformat(str(meta.get("creationTimestamp") or "1970-01-01T00:00:00+00:00"))
