"""One version of an object, and one change of it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from .objects import Obj


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
