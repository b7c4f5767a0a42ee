"""GET of one object and of lists: selectors, pages, Tables."""

from __future__ import annotations

import base64
import json

from aiohttp import web

from .api import Api
from .api_errors import bad_request, expired
from .http_common import JSON_TYPE, Call, Form, json_response, shown, wanted_form
from .objects import Obj, key_of
from .selectors import field_match, label_match
from .store import Entry
from .tables import partial, table
from .world import World


def selected(call: Call, entries: list[Entry]) -> list[Entry]:
    """Return the entries that the query's label and field selectors select. Raises ApiError (400)."""
    for match in (
        label_match(call.query("labelSelector")),
        field_match(call.route.resource.key, call.query("fieldSelector")),
    ):
        if match is not None:
            entries = [entry for entry in entries if match(entry.obj)]
    return entries


class Reading:
    """Answers reads from the store."""

    def __init__(self, world: World, api: Api) -> None:
        self._world = world
        self._api = api

    def get(self, call: Call) -> web.Response:
        """Answer with one object. Raises ApiError (404)."""
        route = call.route
        obj = self._api.get(route.resource, route.namespace, route.name)
        return json_response(shown(call, route.resource, obj, wanted_form(call.request)))

    def collection(self, call: Call) -> web.Response:
        """Answer with a list. Raises ApiError (400, 410)."""
        store, resource = self._world.store, call.route.resource
        entries = selected(call, store.entries(resource.key, call.route.namespace))
        name = call.route.name
        if name:  # a watch on one object falls back here
            entries = [entry for entry in entries if entry.obj["metadata"]["name"] == name]
        metadata: Obj = {"resourceVersion": str(store.version)}
        entries = self._page(call, entries, metadata)
        form = wanted_form(call.request)
        if form.plain:
            return self._plain(call, entries, metadata)
        return json_response(self._shaped(call, [entry.obj for entry in entries], metadata, form))

    def _shaped(self, call: Call, objects: list[Obj], metadata: Obj, form: Form) -> Obj:
        if form.kind == "Table":
            include = call.query("includeObject", "Metadata")
            return table(
                call.route.resource, objects, metadata, api_version=form.api_version, minor=call.minor, include=include
            )
        items = [partial(obj) for obj in objects]
        return {
            "kind": "PartialObjectMetadataList",
            "apiVersion": form.api_version,
            "metadata": metadata,
            "items": items,
        }

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
