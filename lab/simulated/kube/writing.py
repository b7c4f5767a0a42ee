"""POST, PUT, PATCH and DELETE on resources."""

from __future__ import annotations

from aiohttp import web

from .api import APPLY_PATCH, Api
from .api_errors import method_not_allowed
from .auth import Authenticator, Authorizer
from .http_common import Call, json_response, shown, wanted_form
from .objects import Obj, key_of, name_of
from .reading import selected
from .reviews import access_review, token_review
from .world import World

# Kinds whose DELETE answers with the object itself; the others answer with a Status once the object is gone.
_RETURNED = {"pods", "services", "serviceaccounts", "persistentvolumeclaims", "persistentvolumes"}


class Writing:
    """Answers writes by the API's verbs."""

    def __init__(self, world: World, api: Api, authenticator: Authenticator, authorizer: Authorizer) -> None:
        self._world = world
        self._api = api
        self._authenticator = authenticator
        self._authorizer = authorizer

    async def write(self, call: Call) -> web.Response:
        """Answer a write on a resource or on its status. Raises ApiError."""
        method, route = call.request.method, call.route
        if method == "POST" and not route.name:
            return await self._create(call)
        if method == "PUT" and route.name:
            body = await call.body()
            obj = self._api.update(route.resource, route.namespace, route.name, body, call.options())
            return self._answer(call, obj)
        if method == "PATCH" and route.name:
            return await self._patch(call)
        if method == "DELETE" and not route.subresource:
            body = await call.body()
            return self._delete(call, body) if route.name else self._delete_all(call, body)
        raise method_not_allowed()

    async def _create(self, call: Call) -> web.Response:
        resource, body = call.route.resource, await call.body()
        if resource.plural == "tokenreviews":
            return json_response(token_review(self._authenticator, body), 201)
        if resource.plural == "selfsubjectaccessreviews":
            return json_response(access_review(self._authorizer, call.user, body), 201)
        obj = self._api.create(resource, call.route.namespace, body, call.options())
        return self._answer(call, obj, 201)

    async def _patch(self, call: Call) -> web.Response:
        route, body = call.route, await call.body()
        if call.media_type == APPLY_PATCH:
            obj, new = self._api.apply(route.resource, route.namespace, route.name, body, call.options())
            return self._answer(call, obj, 201 if new else 200)
        obj = self._api.patch(route.resource, (route.namespace, route.name), call.media_type, body, call.options())
        return self._answer(call, obj)

    def _answer(self, call: Call, obj: Obj, status: int = 200) -> web.Response:
        return json_response(shown(call, call.route.resource, obj, wanted_form(call.request)), status)

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

    def _delete_all(self, call: Call, body: Obj) -> web.Response:
        resource = call.route.resource
        entries = selected(call, self._world.store.entries(resource.key, call.route.namespace))
        for entry in entries:
            self._api.delete(resource, *key_of(entry.obj), body, dry_run=call.query("dryRun") == "All")
        metadata = {"resourceVersion": str(self._world.store.version)}
        head: Obj = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata}
        return json_response({**head, "items": [entry.obj for entry in entries]})
