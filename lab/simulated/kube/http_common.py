"""What the HTTP handlers share: a parsed request, bodies, and answers as JSON or as Tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml
from aiohttp import web

from .api import Options
from .api_errors import bad_request, invalid, unsupported_media
from .auth import User
from .objects import Obj
from .resources import Resource
from .routing import Route
from .tables import partial, table

JSON_TYPE = "application/json"


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
        if not manager and self.media_type != "application/apply-patch+yaml":
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
        if self.media_type in {"application/yaml", "application/apply-patch+yaml"}:
            # JSON is YAML; the JSON reader is a hundred times faster, and most clients send JSON under this name.
            try:
                return json.loads(raw)
            except ValueError:
                return _yaml(raw)
        if self.media_type != JSON_TYPE and not self.media_type.endswith("+json"):
            raise unsupported_media(self.media_type, [JSON_TYPE, "application/yaml"])
        try:
            return json.loads(raw)
        except ValueError as error:
            raise bad_request(f"couldn't get version/kind; json parse error: {error}") from error


def _yaml(raw: bytes) -> Any:
    try:
        return yaml.load(raw, Loader=_JsonLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise bad_request(f"error converting YAML to JSON: {error}") from error


class _JsonLoader(yaml.SafeLoader):
    """YAML read as JSON: a time stamp stays the text it is."""


_JsonLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def json_response(body: Obj, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return an answer with a JSON body."""
    return web.Response(
        body=json.dumps(body, separators=(",", ":")).encode(), status=status, content_type=JSON_TYPE, headers=headers
    )


@dataclass(frozen=True)
class Form:
    """In which form the client wants objects: as they are, as a Table, or their metadata alone."""

    kind: str  # "", "Table", "PartialObjectMetadata", "PartialObjectMetadataList"
    api_version: str

    @property
    def plain(self) -> bool:
        """Say whether objects are wanted as they are."""
        return not self.kind


def wanted_form(request: web.BaseRequest) -> Form:
    """Return the first form of the Accept header that this server can produce. Raises ApiError (406) for none."""
    accept = request.headers.get("Accept", "*/*")
    for choice in accept.split(","):
        media, *parameters = (part.strip() for part in choice.split(";"))
        values = dict(part.split("=", 1) for part in parameters if "=" in part)
        known = values.get("as") in {None, "Table", "PartialObjectMetadata", "PartialObjectMetadataList"}
        if known and media in {"*/*", "application/*", JSON_TYPE}:
            group, version = values.get("g", "meta.k8s.io"), values.get("v", "v1")
            return Form(values.get("as") or "", f"{group}/{version}")
    error = bad_request(f"only the following media types are accepted: {JSON_TYPE}")
    error.code, error.reason = 406, "NotAcceptable"
    raise error


def shown(call: Call, resource: Resource, obj: Obj, form: Form) -> Obj:
    """Return one object in the form that the client wants."""
    if form.kind == "Table":
        version = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        include = call.query("includeObject", "Metadata")
        return table(resource, [obj], version, api_version=form.api_version, minor=call.minor, include=include)
    return obj if form.plain else partial(obj)
