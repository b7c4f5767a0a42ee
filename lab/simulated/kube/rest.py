"""GET, POST, PUT, PATCH and DELETE on resources: selectors, pages, changes, and the Tables of `kubectl get`."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable

from aiohttp import web

from .api import APPLY_PATCH, Api
from .api_errors import bad_request, expired, not_simulated
from .objects import Obj, key_of, name_of
from .requests import JSON_TYPE, Call, json_response, wants_table
from .selectors import field_match, label_match
from .store import ADDED, DELETED, MODIFIED, Entry
from .tables import table
from .world import World

WATCH_SECONDS = 1800.0  # the real server ends a watch after 30 to 60 minutes when the client does not say
WATCH_TURN = 0.1  # wall seconds between looks
# Kinds whose DELETE answers with the object itself; the others answer with a Status once the object is gone.
_RETURNED = {"pods", "services", "serviceaccounts", "persistentvolumeclaims", "persistentvolumes"}


def _matcher(call: Call) -> Callable[[Obj], bool]:
    """Return the test of the path's namespace and of the query's label and field selectors. Raises ApiError (400)."""
    namespace = call.route.namespace
    label = label_match(call.query("labelSelector"))
    field = field_match(call.route.resource, call.query("fieldSelector"))

    def matches(obj: Obj) -> bool:
        here = not namespace or obj["metadata"].get("namespace") == namespace
        return here and (label is None or label(obj)) and (field is None or field(obj))

    return matches


class Rest:
    """Answers reads from the store, and writes by the API's verbs."""

    def __init__(self, world: World, api: Api) -> None:
        self._world = world
        self._api = api

    def get(self, call: Call) -> web.Response:
        """Answer with one object. Raises ApiError (404)."""
        route = call.route
        obj = self._api.get(route.resource, route.namespace, route.name)
        if wants_table(call.request):
            obj = self._table(call, [obj], {"resourceVersion": obj["metadata"].get("resourceVersion", "")})
        return json_response(obj)

    def collection(self, call: Call) -> web.Response:
        """Answer with a list. Raises ApiError (400, 410)."""
        store, resource = self._world.store, call.route.resource
        matches = _matcher(call)
        entries = [entry for entry in store.entries(resource.key, call.route.namespace) if matches(entry.obj)]
        metadata: Obj = {"resourceVersion": str(store.version)}
        entries = self._page(call, entries, metadata)
        if wants_table(call.request):
            return json_response(self._table(call, [entry.obj for entry in entries], metadata))
        return self._plain(call, entries, metadata)

    async def watch(self, call: Call) -> web.StreamResponse:
        """Stream the changes after a version, looking for them ten times a second. Raises ApiError (400, 410)."""
        store, resource, asked = self._world.store, call.route.resource, call.query("resourceVersion", "0")
        if not asked.isdigit() or 0 < int(asked) < store.oldest(resource.key):
            raise expired(f"too old resource version: {asked} ({store.oldest(resource.key)})")
        matches, version = _matcher(call), int(asked)
        response = web.StreamResponse(headers={"Content-Type": JSON_TYPE})
        await response.prepare(call.request)
        end = asyncio.get_running_loop().time() + float(call.query("timeoutSeconds") or WATCH_SECONDS)
        if version == 0:
            version = store.version
            for entry in store.entries(resource.key):
                if matches(entry.obj):
                    await response.write(self._event(call, ADDED, entry.obj))
        while asyncio.get_running_loop().time() < end:
            for change in store.since(resource.key, version):
                version = change.version
                now = change.kind != DELETED and matches(change.obj)
                before = change.before is not None and matches(change.before)
                if now or before:  # what stops to match a selector was deleted
                    kind = (MODIFIED if before else ADDED) if now else DELETED
                    await response.write(self._event(call, kind, change.obj))
            await asyncio.sleep(WATCH_TURN)
        return response

    def _event(self, call: Call, kind: str, obj: Obj) -> bytes:
        shown = self._table(call, [obj], {}) if wants_table(call.request) else obj
        return json.dumps({"type": kind, "object": shown}).encode() + b"\n"

    def _table(self, call: Call, objects: list[Obj], metadata: Obj) -> Obj:
        include = call.query("includeObject", "Metadata")
        return table(call.route.resource, objects, metadata, minor=call.minor, include=include)

    def _plain(self, call: Call, entries: list[Entry], metadata: Obj) -> web.Response:
        resource = call.route.resource
        head: Obj = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata}
        items = b",".join(entry.encoded if resource.custom else entry.bare for entry in entries)
        body = json.dumps(head, separators=(",", ":"))[:-1].encode() + b',"items":[' + items + b"]}"
        return web.Response(body=body, content_type=JSON_TYPE)

    def _page(self, call: Call, entries: list[Entry], metadata: Obj) -> list[Entry]:
        """Return the page of the query's limit and continue; a token from before a compaction has expired."""
        text, limit = call.query("continue"), call.query("limit", "0")
        if text:
            try:
                token = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
                start, version = tuple(token["start"]), int(token["rv"])
            except (ValueError, KeyError, TypeError) as error:
                raise bad_request(f"continue key is not valid: {error}") from error
            if version < self._world.store.oldest(call.route.resource.key):
                raise expired(
                    "The provided continue parameter is too old to display a consistent list result. You can start a "
                    "new list without the continue parameter."
                )
            entries = [entry for entry in entries if key_of(entry.obj) > start]
        if not limit.isdigit() or not int(limit) or len(entries) <= int(limit):
            return entries
        page = entries[: int(limit)]
        token = {"v": "meta.k8s.io/v1", "rv": self._world.store.version, "start": list(key_of(page[-1].obj))}
        metadata["continue"] = base64.urlsafe_b64encode(json.dumps(token).encode()).decode().rstrip("=")
        metadata["remainingItemCount"] = len(entries) - len(page)
        return page

    async def write(self, call: Call) -> web.Response:
        """Answer a write on a resource or on its status. Raises ApiError."""
        method, route = call.request.method, call.route
        if method == "POST" and not route.name:
            return await self._create(call)
        if method == "PUT" and route.name:
            body = await call.body()
            obj = self._api.update(route.resource, route.namespace, route.name, body, call.options())
            return json_response(obj)
        if method == "PATCH" and route.name:
            return await self._patch(call)
        if method == "DELETE" and route.name and not route.subresource:
            return self._delete(call, await call.body())
        raise not_simulated(f"{method} of {call.request.path} is not simulated")

    async def _create(self, call: Call) -> web.Response:
        resource, body = call.route.resource, await call.body()
        if "get" not in resource.verbs:
            raise not_simulated(f"{resource.kind} is not simulated")
        obj = self._api.create(resource, call.route.namespace, body, call.options())
        return json_response(obj, 201)

    async def _patch(self, call: Call) -> web.Response:
        route, body = call.route, await call.body()
        if call.media_type == APPLY_PATCH:
            obj, new = self._api.apply(route.resource, route.namespace, route.name, body, call.options())
            return json_response(obj, 201 if new else 200)
        obj = self._api.patch(route.resource, (route.namespace, route.name), call.media_type, body, call.options())
        return json_response(obj)

    def _delete(self, call: Call, body: Obj) -> web.Response:
        resource = call.route.resource
        options = dict(body)
        for field in ("gracePeriodSeconds", "propagationPolicy"):
            if call.query(field):
                options[field] = call.query(field)
        dry = call.query("dryRun") == "All" or "All" in (options.get("dryRun") or [])
        last = self._api.delete(resource, call.route.namespace, call.route.name, options, dry_run=dry)
        still_there = self._world.store.get(resource.key, *key_of(last)) is not None
        if resource.key in _RETURNED or (still_there and not dry):
            return json_response(last)
        details = {"name": name_of(last), "kind": resource.plural, "uid": last["metadata"]["uid"]}
        if resource.group:
            details["group"] = resource.group
        return json_response(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        )
