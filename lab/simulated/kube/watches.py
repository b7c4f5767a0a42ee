"""Watch requests: a stream of changes from a version on, with selectors, bookmarks and expiry."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from aiohttp import web

from .api_errors import ApiError, gone, invalid
from .faults import Fault
from .http_common import JSON_TYPE, Call, Form, shown, wanted_form
from .objects import Obj
from .selectors import field_match, label_match
from .store import ADDED, DELETED, MODIFIED, Change, Entry, Store, Watcher
from .world import World

BOOKMARK_SECONDS = 60.0  # the watch cache sends one about every minute
DEFAULT_TIMEOUT = 1800.0  # the real server ends a watch after 30 to 60 minutes when the client does not say


class Watches:
    """Serves watches from the store's window of changes."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def watch(self, call: Call, fault: Fault | None) -> web.StreamResponse:
        """Stream changes until the client's timeout, the server's end or a fault. Raises ApiError (400, 422)."""
        if call.query("sendInitialEvents"):
            text = "Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
            raise invalid("ListOptions", "meta.k8s.io", "", [("sendInitialEvents", "FieldValueForbidden", text)])
        stream = _Stream(self._world.store, call)
        response = web.StreamResponse(headers={"Content-Type": JSON_TYPE})
        response.enable_chunked_encoding()
        key = call.route.resource.key
        # The watcher is there before the backlog is read, in the same turn of the loop: nothing falls between.
        watcher = self._world.store.add_watcher(key)
        try:
            opening = stream.opening()
            await response.prepare(call.request)
            await response.write(b"".join(opening))
            if not stream.over:
                await self._follow(call, stream, watcher, response, fault)
            await response.write_eof()
        except ConnectionResetError:
            pass  # the client has gone, which is how most watches end
        finally:
            self._world.store.drop_watcher(key, watcher)
        return response

    async def _follow(
        self, call: Call, stream: _Stream, watcher: Watcher, response: web.StreamResponse, fault: Fault | None
    ) -> None:
        clock = asyncio.get_running_loop().time
        limit = call.query("timeoutSeconds")
        end = clock() + (float(limit) if limit.isdigit() and limit != "0" else DEFAULT_TIMEOUT)
        drop_at = clock() + fault.drop_after if fault and fault.drop_after else float("inf")
        bookmark_at = clock() + BOOKMARK_SECONDS
        while True:
            wait = min(end, drop_at, bookmark_at) - clock()
            try:
                change = await asyncio.wait_for(watcher.queue.get(), max(0.0, wait))
            except TimeoutError:
                if clock() >= drop_at and call.request.transport is not None:
                    call.request.transport.abort()
                    return
                if call.flag("allowWatchBookmarks"):
                    await response.write(stream.bookmark())
                if clock() >= end:
                    return
                bookmark_at = clock() + BOOKMARK_SECONDS
                continue
            lines, ended = stream.lines(change, watcher)
            if lines:
                await response.write(b"".join(lines))
            if ended:
                return


class _Stream:
    """What one watch shows of the changes of its resource."""

    def __init__(self, store: Store, call: Call) -> None:
        self._store = store
        self._call = call
        self._form: Form = wanted_form(call.request)
        self._match = self._matcher(call)
        self.over = False

    @staticmethod
    def _matcher(call: Call) -> Callable[[Obj], bool]:
        tests = [label_match(call.query("labelSelector"))]
        tests.append(field_match(call.route.resource.key, call.query("fieldSelector")))
        namespace, name = call.route.namespace, call.route.name
        wanted = [test for test in tests if test is not None]

        def matches(obj: Obj) -> bool:
            metadata = obj["metadata"]
            if namespace and metadata.get("namespace") != namespace:
                return False
            return (not name or metadata["name"] == name) and all(test(obj) for test in wanted)

        return matches

    def opening(self) -> list[bytes]:
        """Return what the watch starts with: the objects as they are, or the changes since its version."""
        resource = self._call.route.resource
        asked = self._call.query("resourceVersion")
        if asked in {"", "0"}:
            entries = self._store.entries(resource.key, self._call.route.namespace)
            return [self._line(ADDED, entry) for entry in entries if self._match(entry.obj)]
        oldest = self._store.oldest(resource.key)
        if not asked.isdigit() or int(asked) < oldest:
            self.over = True
            return [self.error(gone(int(asked) if asked.isdigit() else 0, oldest))]
        return [line for change in self._store.since(resource.key, int(asked)) if (line := self._seen(change))]

    def lines(self, first: Change | None, watcher: Watcher) -> tuple[list[bytes], bool]:
        """Return the lines of all changes queued now, and whether the watch ends after them."""
        found: list[bytes] = []
        change: Change | None = first
        while change is not None:
            if line := self._seen(change):
                found.append(line)
            if watcher.queue.empty():
                return found, False
            change = watcher.queue.get_nowait()
        return found, True

    def _seen(self, change: Change) -> bytes | None:
        """Return the line of a change as a selector shows it: what stops to match was deleted."""
        now = change.kind != DELETED and self._match(change.obj)
        before = change.before is not None and self._match(change.before)
        if now:
            return self._line(MODIFIED if before else ADDED, change.entry)
        return self._line(DELETED, change.entry) if before else None

    def _line(self, kind: str, entry: Entry) -> bytes:
        if self._form.plain:
            body = entry.encoded
        else:
            body = json.dumps(shown(self._call, self._call.route.resource, entry.obj, self._form)).encode()
        return b'{"type":"' + kind.encode() + b'","object":' + body + b"}\n"

    def bookmark(self) -> bytes:
        """Return a BOOKMARK line with the version reached."""
        resource = self._call.route.resource
        obj: Obj = {
            "kind": resource.kind,
            "apiVersion": resource.api_version,
            "metadata": {"resourceVersion": str(self._store.version), "creationTimestamp": None},
        }
        return json.dumps({"type": "BOOKMARK", "object": obj}).encode() + b"\n"

    @staticmethod
    def error(error: ApiError) -> bytes:
        """Return an ERROR line."""
        return json.dumps({"type": "ERROR", "object": error.status()}).encode() + b"\n"
