"""The object store: versions, the last changes, indexes, and listeners that hear of every change in order."""

from __future__ import annotations

import asyncio
import json
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .latencies import Pace
from .objects import Obj, key_of, new_uid, random_suffix, timestamp

Key = tuple[str, str]
ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"
TURN = 0.01  # wall seconds of telling listeners after which the event loop may answer others
WINDOW = 4096  # changes of one resource that are known; an older list or watch has expired


class Entry:
    """One version of one object; its JSON is encoded once, whoever asks. Nobody changes `obj` in place."""

    __slots__ = ("_bare", "obj")

    def __init__(self, obj: Obj) -> None:
        self.obj = obj
        self._bare: bytes | None = None

    @property
    def bare(self) -> bytes:
        """Return the object as JSON without kind and apiVersion, as lists of built-in kinds carry their items."""
        if self._bare is None:
            fields = {key: value for key, value in self.obj.items() if key not in {"kind", "apiVersion"}}
            self._bare = json.dumps(fields, separators=(",", ":")).encode()
        return self._bare

    @property
    def encoded(self) -> bytes:
        """Return the object as JSON."""
        head = json.dumps({"kind": self.obj["kind"], "apiVersion": self.obj["apiVersion"]}, separators=(",", ":"))
        return head[:-1].encode() + b"," + self.bare[1:]


@dataclass(frozen=True)
class Change:
    """What happened to one object: ADDED, MODIFIED or DELETED, its new (or last) state and the one before."""

    kind: str
    resource: str
    entry: Entry
    before: Obj | None

    @property
    def obj(self) -> Obj:
        """Return the object's new (for DELETED: last) state."""
        return self.entry.obj

    @property
    def version(self) -> int:
        """Return the version that the change made."""
        return int(self.obj["metadata"]["resourceVersion"])


Listener = Callable[[Change], None]


class _Index:
    """Keys of one resource by some value of the object, with a stamp that moves when a value's set changes."""

    def __init__(self, value_of: Callable[[Obj], str]) -> None:
        self.value_of = value_of
        self.keys: dict[str, dict[Key, None]] = {}
        self.stamps: dict[str, int] = {}

    def update(self, before: Obj | None, after: Obj | None) -> None:
        """Follow one change."""
        if before is not None and (value := self.value_of(before)):
            self.keys.get(value, {}).pop(key_of(before), None)
            self.stamps[value] = self.stamps.get(value, 0) + 1
        if after is not None and (value := self.value_of(after)):
            self.keys.setdefault(value, {})[key_of(after)] = None
            self.stamps[value] = self.stamps.get(value, 0) + 1


class Store:
    """All objects of a simulated cluster, by resource key (`deployments.apps`), then by (namespace, name)."""

    def __init__(self, pace: Pace, dice: random.Random) -> None:
        self._pace = pace
        self._dice = dice
        self.version = 1
        self._tables: dict[str, dict[Key, Entry]] = {}
        self._history: dict[str, deque[Change]] = {}
        self._indexes: dict[tuple[str, str], _Index] = {}
        self._listeners: dict[str, list[Listener]] = {}
        self._unsent: deque[Change] = deque()
        self._telling = False

    def entry(self, resource: str, namespace: str, name: str) -> Entry | None:
        """Return an object's entry."""
        return self._tables.get(resource, {}).get((namespace, name))

    def get(self, resource: str, namespace: str, name: str) -> Obj | None:
        """Return an object; it must not be changed in place."""
        found = self.entry(resource, namespace, name)
        return found.obj if found else None

    def entries(self, resource: str, namespace: str = "") -> list[Entry]:
        """Return the entries of a resource in one namespace (empty: in all), sorted by key."""
        table = self._tables.get(resource, {})
        keys = sorted(key for key in table if not namespace or key[0] == namespace)
        return [table[key] for key in keys]

    def objects(self, resource: str, namespace: str = "") -> list[Obj]:
        """Return the objects of a resource in one namespace (empty: in all), unsorted."""
        table = self._tables.get(resource, {})
        return [entry.obj for key, entry in table.items() if not namespace or key[0] == namespace]

    def count(self, resource: str) -> int:
        """Return the number of objects of a resource."""
        return len(self._tables.get(resource, ()))

    def resources(self) -> list[str]:
        """Return the keys of the resources that hold something."""
        return [key for key, table in self._tables.items() if table]

    def create(self, resource: str, obj: Obj) -> Obj:
        """Store a new object with uid, time and version. Raises KeyError where the key is taken."""
        key = key_of(obj)
        table = self._tables.setdefault(resource, {})
        if key in table:
            raise KeyError(key)
        metadata = {"uid": new_uid(self._dice), "creationTimestamp": timestamp(), **obj["metadata"]}
        return self._put(ADDED, resource, {**obj, "metadata": metadata}, None)

    def unused_name(self, resource: str, namespace: str, prefix: str) -> str:
        """Return a generated name that no object has: a controller whose name is taken tries another one at once."""
        while self.entry(resource, namespace, name := prefix + random_suffix(self._dice)):
            pass
        return name

    def replace(self, resource: str, obj: Obj) -> Obj:
        """Store a new state of an object that is there. Raises KeyError where it is not."""
        before = self._tables[resource][key_of(obj)].obj
        if before is obj or _same(before, obj):
            return before
        return self._put(MODIFIED, resource, obj, before)

    def remove(self, resource: str, namespace: str, name: str) -> Obj | None:
        """Remove an object; return its last state, or None where it was not there."""
        entry = self._tables.get(resource, {}).pop((namespace, name), None)
        if entry is None:
            return None
        self.version += 1
        last = {**entry.obj, "metadata": {**entry.obj["metadata"], "resourceVersion": str(self.version)}}
        self._record(Change(DELETED, resource, Entry(last), entry.obj))
        return last

    def _put(self, kind: str, resource: str, obj: Obj, before: Obj | None) -> Obj:
        self.version += 1
        stored = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        entry = Entry(stored)
        self._tables[resource][key_of(stored)] = entry
        self._record(Change(kind, resource, entry, before))
        return stored

    def _record(self, change: Change) -> None:
        after = None if change.kind == DELETED else change.obj
        for (resource, _), index in self._indexes.items():
            if resource == change.resource:
                index.update(change.before, after)
        self._history.setdefault(change.resource, deque(maxlen=WINDOW)).append(change)
        self._unsent.append(change)
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        """Tell listeners what happened, a batch at a time so that the event loop can answer requests in between."""
        clock = asyncio.get_running_loop().time
        until = clock() + TURN
        while self._unsent and clock() < until:
            change = self._unsent.popleft()
            for listener in self._listeners.get(change.resource, ()):
                self._pace.guarded(listener, change)
        if self._unsent:
            asyncio.get_running_loop().call_soon(self._tell)
        else:
            self._telling = False

    def listen(self, resources: Iterable[str], listener: Listener) -> None:
        """Call `listener` with every later change of these resources, in order, soon after it happened."""
        for resource in resources:
            self._listeners.setdefault(resource, []).append(listener)

    def add_index(self, resource: str, name: str, value_of: Callable[[Obj], str]) -> None:
        """Index a resource by what `value_of` gives (empty: not in it); always up to date."""
        index = _Index(value_of)
        for obj in self.objects(resource):
            index.update(None, obj)
        self._indexes[resource, name] = index

    def indexed(self, resource: str, name: str, value: str) -> list[Obj]:
        """Return the objects with this value in an index."""
        table = self._tables.get(resource, {})
        return [table[key].obj for key in self._indexes[resource, name].keys.get(value, ())]

    def stamp(self, resource: str, name: str, value: str) -> int:
        """Return a number that moves whenever an object with this value changes."""
        return self._indexes[resource, name].stamps.get(value, 0)

    def oldest(self, resource: str) -> int:
        """Return the version since which every change of a resource is still known."""
        history = self._history.get(resource)
        return history[0].version if history and len(history) == WINDOW else 0

    def since(self, resource: str, version: int) -> list[Change]:
        """Return the known changes after a version."""
        return [change for change in self._history.get(resource, ()) if change.version > version]


def _same(before: Obj, after: Obj) -> bool:
    """Say whether two states are equal but for their version: such a write changes nothing, as with etcd."""
    if before.keys() != after.keys():
        return False
    if any(before[key] != after[key] for key in before if key != "metadata"):
        return False
    old, new = dict(before["metadata"]), dict(after["metadata"])
    old.pop("resourceVersion", None)
    new.pop("resourceVersion", None)
    return bool(old == new)
