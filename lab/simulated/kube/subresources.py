"""Subresources: a pod's log and eviction, a service account's token, a kubelet's running configuration."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from aiohttp import web

from .api import MERGE_PATCH, Api
from .api_errors import ApiError, invalid, not_simulated
from .controllers.kubelet import Kubelets
from .disruption import guard
from .objects import Obj, dig, timestamp
from .requests import Call, json_response
from .world import World

MIN_TOKEN_SECONDS, DEFAULT_TOKEN_SECONDS = 600, 3600  # the API's own limits for TokenRequest
FOLLOW_TURN = 0.1  # wall seconds between looks at a log that is followed


class Subresources:
    """Answers requests on subresources other than status."""

    def __init__(self, world: World, api: Api, kubelets: Kubelets) -> None:
        self._world = world
        self._api = api
        self._kubelets = kubelets

    async def serve(self, call: Call) -> web.StreamResponse:
        """Answer. Raises ApiError."""
        kind, method = call.route.subresource, call.request.method
        if kind == "log" and method == "GET":
            return await self._log(call)
        if kind == "eviction" and method == "POST":
            return await self._evict(call)
        if kind == "token" and method == "POST":
            return await self._token(call)
        if kind == "proxy" and method == "GET":
            return self._kubelet(call)
        if kind == "scale":
            return await self._scale(call)
        raise not_simulated(f"{method} of {kind} is not simulated")

    async def _log(self, call: Call) -> web.StreamResponse:
        pod = self._api.get(call.route.resource, call.route.namespace, call.route.name)
        if call.flag("previous"):
            raise not_simulated("the log of a container's run before this one is not simulated")
        run, tail = self._kubelets.run_of(pod, call.query("container")), call.query("tailLines")
        seen = max(0, len(run.lines()) - int(tail)) if tail else 0
        if not call.flag("follow"):
            return web.Response(text="".join(f"{line}\n" for line in run.lines()[seen:]))
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(call.request)
        over = False
        while not over:
            over, lines = run.over(), run.lines()
            await response.write("".join(f"{line}\n" for line in lines[seen:]).encode())
            seen = len(lines)
            await asyncio.sleep(FOLLOW_TURN)
        return response

    async def _evict(self, call: Call) -> web.Response:
        body = await call.body()
        options = body.get("deleteOptions") or {}
        route = call.route
        if call.options().dry_run or "All" in (options.get("dryRun") or []):
            self._api.get(route.resource, route.namespace, route.name)
        else:
            guard(self._world.store, self._api.get(route.resource, route.namespace, route.name))
            self._api.delete(route.resource, route.namespace, route.name, options)
        success = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        return json_response(success, 201)

    async def _token(self, call: Call) -> web.Response:
        body, route = await call.body(), call.route
        account = self._api.get(route.resource, route.namespace, route.name)
        seconds = int(dig(body, "spec", "expirationSeconds", default=DEFAULT_TOKEN_SECONDS))
        if seconds < MIN_TOKEN_SECONDS:
            text = f"Invalid value: {seconds}: may not specify a duration less than 10 minutes"
            cause = ("spec.expirationSeconds", "FieldValueInvalid", text)
            raise invalid("TokenRequest", "authentication.k8s.io", route.name, [cause])
        audiences = dig(body, "spec", "audiences", default=[]) or [self._world.signer.issuer]
        token = self._world.signer.for_account(
            route.namespace, route.name, account["metadata"]["uid"], seconds, audiences
        )
        until = timestamp(datetime.now(UTC) + timedelta(seconds=seconds))
        answer: Obj = {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": route.name, "namespace": route.namespace, "creationTimestamp": timestamp()},
            "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": None},
            "status": {"token": token, "expirationTimestamp": until},
        }
        return json_response(answer, 201)

    def _kubelet(self, call: Call) -> web.Response:
        """Ask a node's kubelet for its running configuration; the API server's words where it cannot be reached."""
        name = call.route.name
        self._api.get(call.route.resource, "", name)
        host = self._world.hosts.get(name)
        if host is None or not self._world.alive(name):
            raise ApiError(503, "ServiceUnavailable", f"error trying to reach service: dial tcp {name}:10250: connect")
        if not call.request.path.endswith("/proxy/configz"):
            raise ApiError(404, "NotFound", "404 page not found")
        return json_response({"kubeletconfig": host.kubelet_config})

    async def _scale(self, call: Call) -> web.Response:
        """Answer `kubectl scale`: read, or set the replicas."""
        route, replicas = call.route, dig(await call.body(), "spec", "replicas")
        where = (route.namespace, route.name)
        if replicas is not None:
            changed = {"spec": {"replicas": replicas}}
            self._api.patch(route.resource, where, MERGE_PATCH, changed, call.options())
        obj = self._api.get(route.resource, *where)
        metadata = {key: obj["metadata"].get(key) for key in ("name", "namespace", "uid", "resourceVersion")}
        head: Obj = {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata}
        return json_response({**head, "spec": {"replicas": dig(obj, "spec", "replicas", default=1)}, "status": {}})
