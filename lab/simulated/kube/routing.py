"""Paths of the API read as resource, namespace, name and subresource, and requests as what RBAC judges."""

from __future__ import annotations

from dataclasses import dataclass

from .api_errors import PlainNotFoundError
from .auth import Wish
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
