"""Reads of a Kubernetes API, shared by all who ask within a look, or before the read of another look has begun."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from shipway.errors import ApiUnavailable
from shipway.kube.errors import PASSING
from shipway.kube.paths import Object
from shipway.place import Place
from shipway.redact import tail

CALL_SECONDS = 30.0
JSON = "application/json"
Read = asyncio.Task[tuple[int, str]]


class Reads(Place):
    """What is known of the API until `forget`; one GET of a path at a time, whoever looks.

    A thousand hosts that look at all nodes would ask for a thousand lists, and each would hold its first page while its
    next waits for a connection: memory that grows with the square of the hosts.
    """

    def __init__(self) -> None:
        self._known: dict[str, Read] = {}
        self._queued: dict[str, Read] = {}  # not begun: a look that is asked for now may still ride with it
        self._under_way: set[Read] = set()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._pages: WeakKeyDictionary[Read, tuple[Object, list[Object]]] = WeakKeyDictionary()

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        media: str = JSON,
        seconds: float = CALL_SECONDS,
    ) -> tuple[int, str]:
        """Send one request; return HTTP code and text, whatever the code."""
        raise NotImplementedError(method, path, body, media, seconds)

    def forget(self) -> None:
        """Drop every answer known so far: the next look is a real one."""
        self._known = {}

    async def stop_reading(self) -> None:
        """Cancel the reads that nobody waits for any more."""
        self._known, self._queued = {}, {}
        for one in self._under_way:
            one.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def raw(self, path: str, *, seconds: float = CALL_SECONDS) -> tuple[int, str]:
        """Return HTTP code and text of a GET, whatever the code: /readyz?verbose answers 500 with the reason."""
        return (await self._answered(path, seconds)).result()

    async def _answered(self, path: str, seconds: float = CALL_SECONDS) -> Read:
        """Return the read of a path once its answer is there; raises what the read raised."""
        if path not in self._known:
            self._known[path] = self._queued.get(path) or self._queue(path, seconds)
        one = self._known[path]
        keep = False
        try:
            answer = await asyncio.shield(one)
            keep = answer[0] not in PASSING
        finally:
            if not keep and self._known.get(path) is one:  # a failure is no knowledge: the next to ask asks anew
                del self._known[path]
        return one

    def _queue(self, path: str, seconds: float) -> Read:
        """Return a new read, which begins when no other of the same path is under way."""
        one = asyncio.get_running_loop().create_task(self._in_turn(path, seconds))
        self._queued[path] = one
        self._under_way.add(one)
        one.add_done_callback(self._ended)
        return one

    async def _in_turn(self, path: str, seconds: float) -> tuple[int, str]:
        """Read when no other read of the path is under way; from then on it serves no later look."""
        async with self._turns.setdefault(path, asyncio.Lock()):
            self._queued.pop(path, None)
            return await self.send("GET", path, seconds=seconds)

    def _ended(self, one: Read) -> None:
        """Let go of a read; its error belongs to whoever asked, also when they no longer wait."""
        self._under_way.discard(one)
        if not one.cancelled():
            one.exception()

    def _page(self, one: Read, what: str, head: Object) -> tuple[Object, list[Object]]:
        """Return the page of a read and its items, parsed once for all: a thousand nodes are megabytes of JSON."""
        if one not in self._pages:
            page = parse_object(one.result()[1], what)
            self._pages[one] = page, [{**head, **item} for item in page.get("items") or ()]
        return self._pages[one]


def parse_object(text: str, what: str) -> Object:
    """Return the object of a successful answer; raises ApiUnavailable where something else answered in its place."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ApiUnavailable(f"{what}: what answered is not the Kubernetes API: {tail(text, 2) or 'no text'}")
    return found
