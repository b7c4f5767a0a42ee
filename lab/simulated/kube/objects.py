"""JSON objects as the Kubernetes API speaks them: copying, reading, time stamps and generated names."""

from __future__ import annotations

import hashlib
import json
import random
import uuid
from datetime import UTC, datetime
from typing import Any

Obj = dict[str, Any]
# The alphabet of generated names (apimachinery's util/rand): no vowels, no 0, 1, 3: no word appears by chance.
SAFE_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


def copied(value: Any) -> Any:
    """Return a deep copy of a JSON value; several times faster than copy.deepcopy, which must expect cycles."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value


def dig(value: Any, *path: str | int, default: Any = None) -> Any:
    """Return what lies at `path`, or `default` where a step of the path is missing or null."""
    for step in path:
        if isinstance(step, int):
            if not isinstance(value, list) or len(value) <= step:
                return default
            value = value[step]
        elif isinstance(value, dict):
            value = value.get(step)
        else:
            return default
        if value is None:
            return default
    return value


def name_of(obj: Obj) -> str:
    """Return metadata.name."""
    return str(obj["metadata"]["name"])


def namespace_of(obj: Obj) -> str:
    """Return metadata.namespace, empty for what is not in a namespace."""
    return str(obj["metadata"].get("namespace", ""))


def key_of(obj: Obj) -> tuple[str, str]:
    """Return (namespace, name), by which a store finds an object of one resource."""
    return namespace_of(obj), name_of(obj)


def with_status(obj: Obj, **fields: Any) -> Obj:
    """Return a new object that shares all but `status`, in which `fields` are replaced."""
    return {**obj, "status": {**(obj.get("status") or {}), **fields}}


def with_metadata(obj: Obj, **fields: Any) -> Obj:
    """Return a new object that shares all but `metadata`, in which `fields` are replaced (None removes)."""
    merged = {**obj["metadata"], **fields}
    return {**obj, "metadata": {key: value for key, value in merged.items() if value is not None}}


def timestamp(at: datetime | None = None) -> str:
    """Return a time (now by default) as the API writes it: UTC, whole seconds, a final Z."""
    return (at or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp(at: datetime | None = None) -> str:
    """Return a time (now by default) as the API writes a MicroTime."""
    return (at or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parsed_time(text: str) -> datetime:
    """Return the moment a time stamp of the API names."""
    return datetime.fromisoformat(text)


def new_uid(dice: random.Random) -> str:
    """Return a version 4 UUID drawn from seeded dice, so that two runs with one seed agree."""
    return str(uuid.UUID(int=dice.getrandbits(128), version=4))


def random_suffix(dice: random.Random, length: int = 5) -> str:
    """Return the random end of a generated name."""
    return "".join(dice.choice(SAFE_LETTERS) for _ in range(length))


def digest_suffix(value: Any, length: int = 10) -> str:
    """Return a name's end that depends on a JSON value alone, as a pod-template-hash does."""
    number = int.from_bytes(hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()[:8], "big")
    letters = []
    for _ in range(length):
        number, rest = divmod(number, len(SAFE_LETTERS))
        letters.append(SAFE_LETTERS[rest])
    return "".join(letters)


def controller_of(obj: Obj) -> Obj | None:
    """Return the owner reference marked as the controller, if there is one."""
    for reference in obj["metadata"].get("ownerReferences") or []:
        if reference.get("controller"):
            return dict(reference)
    return None


def owner_reference(owner: Obj) -> Obj:
    """Return the reference by which a controller marks what it made."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": name_of(owner),
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def condition(obj: Obj, kind: str) -> Obj | None:
    """Return the condition of a type from status.conditions."""
    for entry in dig(obj, "status", "conditions", default=[]):
        if entry.get("type") == kind:
            return dict(entry)
    return None


def is_true(obj: Obj, kind: str) -> bool:
    """Say whether a condition of that type is there and "True"."""
    found = condition(obj, kind)
    return found is not None and found.get("status") == "True"


def set_condition(conditions: list[Obj], kind: str, status: str, reason: str = "", message: str = "") -> list[Obj]:
    """Return new conditions in which one type has this state; its transition time moves only when the status does."""
    now = timestamp()
    new: Obj = {"type": kind, "status": status, "lastTransitionTime": now}
    if reason:
        new["reason"] = reason
    if message:
        new["message"] = message
    result = []
    for old in conditions:
        if old.get("type") != kind:
            result.append(old)
            continue
        if old.get("status") == status:
            new["lastTransitionTime"] = old.get("lastTransitionTime", now)
    position = next((i for i, old in enumerate(conditions) if old.get("type") == kind), len(result))
    result.insert(position, new)
    return result
