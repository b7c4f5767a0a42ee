"""Errors of the API as Status objects, worded as the real server words them."""

from __future__ import annotations

from typing import Any

from .objects import Obj


class ApiError(Exception):
    """An answer other than success: an HTTP code, a reason and a message, with the details of a Status."""

    def __init__(self, code: int, reason: str, message: str, details: Obj | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def status(self) -> Obj:
        """Return the Status object that a client receives."""
        body: Obj = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            body["details"] = self.details
        if not self.reason:
            del body["reason"]
        return body


class PlainNotFoundError(Exception):
    """A path that no resource serves: the real server answers with plain text, not with a Status."""


def _details(name: str, group: str, kind: str, **more: Any) -> Obj:
    parts: Obj = {"name": name, "group": group, "kind": kind, **more}
    return {key: value for key, value in parts.items() if value}


def qualified(plural: str, group: str) -> str:
    """Return a resource's name in messages: `pods`, `deployments.apps`."""
    return f"{plural}.{group}" if group else plural


def not_found(plural: str, group: str, name: str) -> ApiError:
    """Return the 404 for one object."""
    text = f'{qualified(plural, group)} "{name}" not found'
    return ApiError(404, "NotFound", text, _details(name, group, plural))


def already_exists(plural: str, group: str, name: str) -> ApiError:
    """Return the 409 for a create whose name is taken."""
    text = f'{qualified(plural, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", text, _details(name, group, plural))


def conflict(plural: str, group: str, name: str, why: str = "") -> ApiError:
    """Return the 409 for a write that was based on an old version."""
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    text = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}'
    return ApiError(409, "Conflict", text, _details(name, group, plural))


def forbidden(plural: str, group: str, name: str, why: str) -> ApiError:
    """Return the 403 for a request on a resource."""
    who = f'{qualified(plural, group)} "{name}"' if name else qualified(plural, group)
    return ApiError(403, "Forbidden", f"{who} is forbidden: {why}", _details(name, group, plural))


def forbidden_path(path: str, user: str, verb: str) -> ApiError:
    """Return the 403 for a path that names no resource."""
    return ApiError(403, "Forbidden", f'forbidden: User "{user}" cannot {verb} path "{path}"', {})


def unauthorized() -> ApiError:
    """Return the 401 for credentials that nobody knows."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def bad_request(message: str) -> ApiError:
    """Return the 400 with a message."""
    return ApiError(400, "BadRequest", message)


def expired(message: str) -> ApiError:
    """Return the 410 for a version or a continue token that is too old."""
    return ApiError(410, "Expired", message)


def unsupported_media(given: str, supported: list[str]) -> ApiError:
    """Return the 415 for a body of a type that this request cannot take."""
    text = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(supported)
    return ApiError(415, "UnsupportedMediaType", text, {"causes": [{"message": f"given: {given}"}]})


def invalid(kind: str, group: str, name: str, causes: list[tuple[str, str, str]]) -> ApiError:
    """Return the 422 for a refused object; each cause is (field, reason, message)."""
    texts = [f"{field}: {message}" for field, _, message in causes]
    listing = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    text = f'{qualified(kind, group)} "{name}" is invalid: {listing}'
    entries = [{"field": field, "reason": reason, "message": message} for field, reason, message in causes]
    return ApiError(422, "Invalid", text, _details(name, group, kind, causes=entries))


def not_simulated(what: str) -> ApiError:
    """Return the 405 of what the real API can and this one cannot; for a watch, kubectl takes it and goes on."""
    return ApiError(405, "MethodNotAllowed", f"SIMULATED cluster: {what}", {})


def injected(status: int, retry_after: int) -> ApiError:
    """Return the answer of an injected fault, with the reason that the real API gives that status."""
    table = {
        409: ("Conflict", "Operation cannot be fulfilled: the object has been modified (SIMULATED fault)"),
        429: ("TooManyRequests", "Too many requests, please try again later. (SIMULATED fault)"),
        500: ("InternalError", "Internal error occurred: etcdserver: request timed out (SIMULATED fault)"),
        503: ("ServiceUnavailable", "the server is currently unable to handle the request (SIMULATED fault)"),
        504: ("Timeout", "Timeout: request did not complete within the allotted timeout (SIMULATED fault)"),
    }
    reason, message = table.get(status, ("", f"SIMULATED fault: HTTP {status}"))
    details: Obj = {"retryAfterSeconds": retry_after} if status in {429, 503} else {}
    return ApiError(status, reason, message, details)
