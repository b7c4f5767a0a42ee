"""One version of an object, one change of it, and the queue in which a watch waits for changes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from .objects import Obj

BACKLOG = 20_000  # changes after which a watcher that does not read is cut off


class Entry:
    """One version of one object; its JSON is encoded once, whoever asks. Nobody changes `obj` in place."""

    __slots__ = ("_bare", "obj", "version")

    def __init__(self, obj: Obj, version: int) -> None:
        self.obj = obj
        self.version = version
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


class Watcher:
    """A queue of changes for one watch request; None at its end says that the watch is over."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Change | None] = asyncio.Queue()

    def offer(self, change: Change) -> None:
        """Queue a change, or end the watch of a client that has stopped reading."""
        if self.queue.qsize() > BACKLOG:
            self.end()
            return
        self.queue.put_nowait(change)

    def end(self) -> None:
        """End the watch."""
        self.queue.put_nowait(None)
