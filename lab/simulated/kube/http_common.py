"""What the HTTP handlers share: a parsed request, bodies, and answers as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from .api import Options
from .api_errors import bad_request, invalid, unsupported_media
from .auth import User
from .objects import Obj
from .routing import Route

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
