"""Requests: paths read as resource, namespace, name and subresource, what RBAC judges, bodies, and answers as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from .api import Options
from .api_errors import PlainNotFoundError, bad_request, invalid, unsupported_media
from .auth import User, Wish
from .objects import Obj
from .resources import Resource, Resources

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Route:
    """Where a request goes."""

    resource: Resource
    namespace: str
    name: str
    subresource: str

    def wish(self, method: str, path: str, *, watch: bool, selected: str = "") -> Wish:
        """Return what RBAC is asked about this request; a list or watch may have `selected` one object by name."""
        verb = _VERBS.get(method, "")
        if method in {"GET", "HEAD"}:
            verb = "watch" if watch else "get" if self.name else "list"
        elif method == "DELETE" and not self.name:
            verb = "deletecollection"
        resource = self.resource
        # A namespace is judged inside itself, so that its own administrators may read it.
        namespace = self.name if resource.key == "namespaces" else self.namespace
        return Wish(verb, path, resource.group, resource.plural, self.subresource, namespace, self.name or selected)


def named_by(field_selector: str) -> str:
    """Return the one name that a field selector lets through, empty where it names none."""
    for term in field_selector.split(","):
        key, _, value = term.replace("==", "=").partition("=")
        if key == "metadata.name":
            return value
    return ""


def route(path: str, resources: Resources) -> Route:
    """Return the route of a resource's path. Raises PlainNotFoundError where no resource is served."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"] and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise PlainNotFoundError(path)
    namespace = ""
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in {"status", "finalize"}:
        namespace, rest = rest[1], rest[2:]
    resource = resources.at(group, version, rest[0])
    if rest[2:3] == ["proxy"]:
        rest = rest[:3]  # what follows is the other side's path
    if resource is None or len(rest) > 3 or (namespace and not resource.namespaced):
        raise PlainNotFoundError(path)
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if resource.namespaced and name and not namespace:
        raise PlainNotFoundError(path)
    if subresource and subresource not in resource.subresources:
        raise PlainNotFoundError(path)
    return Route(resource, namespace, name, subresource)


JSON_TYPE, APPLY_TYPE = "application/json", "application/apply-patch+yaml"


@dataclass(frozen=True)
class Call:
    """One request on a resource, after authentication and authorisation."""

    request: web.BaseRequest
    route: Route
    user: User
    minor: int

    def query(self, name: str, default: str = "") -> str:
        """Return a query parameter."""
        return str(self.request.query.get(name, default))

    def flag(self, name: str) -> bool:
        """Say whether a query parameter is true."""
        return self.query(name).lower() in {"1", "true"}

    def options(self) -> Options:
        """Return the write options of the query. Raises ApiError (400) for a dryRun that is not All."""
        dry = self.query("dryRun")
        if dry not in {"", "All"}:
            text = f'Unsupported value: "{dry}": supported values: "All"'
            raise invalid("PatchOptions", "meta.k8s.io", "", [("dryRun", "FieldValueNotSupported", text)])
        manager = self.query("fieldManager")
        if not manager and self.media_type != APPLY_TYPE:
            manager = self.request.headers.get("User-Agent", "unknown").split("/", 1)[0]
        return Options(manager, dry == "All", self.flag("force"), self.route.subresource)

    @property
    def media_type(self) -> str:
        """Return the body's media type without its parameters."""
        return self.request.headers.get("Content-Type", JSON_TYPE).split(";")[0].strip()

    async def body(self) -> Any:
        """Return the decoded body, {} where it is empty. Raises ApiError (400, 415)."""
        raw = await self.request.read()
        if not raw:
            return {}
        if self.media_type not in {JSON_TYPE, APPLY_TYPE} and not self.media_type.endswith("+json"):
            raise unsupported_media(self.media_type, [JSON_TYPE])
        try:  # JSON is YAML, and clients that apply send it under that name; any other YAML is not simulated
            return json.loads(raw)
        except ValueError as error:
            raise bad_request(f"couldn't get version/kind; json parse error: {error}") from error


def json_response(body: Obj, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return an answer with a JSON body."""
    return web.Response(
        body=json.dumps(body, separators=(",", ":")).encode(), status=status, content_type=JSON_TYPE, headers=headers
    )


def wants_table(request: web.BaseRequest) -> bool:
    """Say whether the client wants a Table, as `kubectl get` does, by the first form of its Accept header that exists.

    Raises ApiError (406) where there is none.
    """
    accept = request.headers.get("Accept", "*/*")
    for choice in accept.split(","):
        media, *parameters = (part.strip() for part in choice.split(";"))
        values = dict(part.split("=", 1) for part in parameters if "=" in part)
        table_or_plain = values.get("as") is None or (values["as"] == "Table" and values.get("v", "v1") == "v1")
        if table_or_plain and media in {"*/*", "application/*", JSON_TYPE}:
            return "as" in values
    error = bad_request(f"only the following media types are accepted: {JSON_TYPE}")
    error.code, error.reason = 406, "NotAcceptable"
    raise error
