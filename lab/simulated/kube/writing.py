"""POST, PUT, PATCH and DELETE on resources."""

from __future__ import annotations

from aiohttp import web

from .api import APPLY_PATCH, Api
from .api_errors import not_simulated
from .http_common import Call, json_response
from .objects import Obj, key_of, name_of
from .world import World

# Kinds whose DELETE answers with the object itself; the others answer with a Status once the object is gone.
_RETURNED = {"pods", "services", "serviceaccounts", "persistentvolumeclaims", "persistentvolumes"}


class Writing:
    """Answers writes by the API's verbs."""

    def __init__(self, world: World, api: Api) -> None:
        self._world = world
        self._api = api

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
