"""The API server over TLS: authentication, authorisation, faults, and one handler for every path."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from .api import Api
from .api_errors import ApiError, PlainNotFoundError, injected
from .auth import Authenticator, Authorizer, User, Wish
from .controllers.kubelet import Kubelets
from .discovery import PROTOBUF, SCHEMALESS, discover
from .faults import FaultHook
from .pki import Authority, KeyPair
from .requests import Call, json_response, named_by, route
from .rest import Rest
from .subresources import Subresources
from .world import World

MAX_BODY = 3 * 1024 * 1024  # bytes; the real server's limit for one request
_HEALTH = ("/healthz", "/livez", "/readyz")


class ApiServer:
    """Serves one simulated cluster's API; it may be stopped and served again, as at a reboot of its host."""

    def __init__(self, world: World, api: Api, kubelets: Kubelets) -> None:
        self._world = world
        self._authenticator = Authenticator(world.store, world.signer)
        self._authorizer = Authorizer(world.store, world.config.minor)
        self._rest = Rest(world, api)
        self._subresources = Subresources(world, api, kubelets)
        self._runner: web.AppRunner | None = None
        self.faults: FaultHook = lambda _method, _path: None
        self.port = 0

    async def serve(self, authority: Authority, pair: KeyPair, host: str, port: int) -> int:
        """Listen on an address; return the port bound. Raises OSError where the port is taken."""
        application = web.Application(client_max_size=MAX_BODY)
        application.router.add_route("*", "/{path:.*}", self._handle)
        # access_log None: a line for each request of a thousand nodes helps nobody, and would show tokens' names.
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        site = web.TCPSite(runner, host, port, ssl_context=authority.server_context(pair), backlog=1024)
        try:
            await site.start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self.port = int(runner.addresses[0][1])
        return self.port

    async def stop(self) -> None:
        """Stop listening and end every connection."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        fault = self.faults(request.method, request.path)
        if fault is not None and fault.delay:
            await asyncio.sleep(fault.delay)
        try:
            if fault is not None and fault.drop and request.transport is not None:
                request.transport.abort()
                return web.Response()  # nobody is there to receive it
            if fault is not None and fault.status:
                raise injected(fault.status, fault.retry_after)
            await asyncio.sleep(self._world.pace.scaled(self._world.latencies.api_request))
            return await self._answer(request)
        except ApiError as error:
            retry = (error.details or {}).get("retryAfterSeconds")
            return json_response(error.status(), error.code, {"Retry-After": str(retry)} if retry else None)
        except PlainNotFoundError:
            return web.Response(text="404 page not found\n", status=404)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        user = self._authenticator.user(certificate, request.headers.get("Authorization", ""))
        path = request.path
        if not path.startswith(("/api/", "/apis/")) or len(path.strip("/").split("/")) < 3:
            return self._plain(request, user)
        plain = discover(path, self._world.resources, self._world.config, request.host)
        if plain is not None:
            self._authorizer.check(user, Wish("get", path))
            return json_response(plain)
        call = Call(request, route(path, self._world.resources), user, self._world.config.minor)
        watching = request.method == "GET" and call.flag("watch")
        selected = named_by(call.query("fieldSelector"))
        self._authorizer.check(user, call.route.wish(request.method, path, watch=watching, selected=selected))
        if call.route.subresource not in {"", "status"}:
            return await self._subresources.serve(call)
        if watching:
            return await self._rest.watch(call)
        if request.method in {"GET", "HEAD"}:
            return self._rest.get(call) if call.route.name else self._rest.collection(call)
        return await self._rest.write(call)

    def _plain(self, request: web.Request, user: User) -> web.Response:
        """Answer what is no resource: health, version, discovery, and for kubectl an OpenAPI document."""
        path = request.path.rstrip("/") or "/"
        self._authorizer.check(user, Wish(request.method.lower(), path))
        if path.startswith(_HEALTH) and (path in _HEALTH or path[1:].split("/")[0] + "/" in path):
            return self._health(request, path)
        if path == "/openapi/v2":
            return web.Response(body=SCHEMALESS, content_type=PROTOBUF)
        found = discover(path, self._world.resources, self._world.config, request.host)
        if found is None:
            raise PlainNotFoundError(path)
        if path == "/version":  # the real server indents this one
            return web.Response(body=json.dumps(found, indent=2).encode(), content_type="application/json")
        return json_response(found)

    def _health(self, request: web.Request, path: str) -> web.Response:
        if "verbose" not in request.query:
            return web.Response(text="ok")
        checks = ["ping", "log", "etcd", "poststarthook/start-apiextensions-controllers"]
        lines = [f"[+]{check} ok" for check in checks]
        return web.Response(text="\n".join([*lines, f"{path.strip('/')} check passed\n"]))
