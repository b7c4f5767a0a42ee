"""Where an object lives in the Kubernetes API: its path, made from apiVersion, kind and what discovery says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from shipway.kube.errors import kind_missing

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as the API serves it: the folder of its group and version, its plural, whether it lives in namespaces."""

    root: str
    plural: str
    namespaced: bool

    def path(self, name: str = "", namespace: str = "", *, under: str = "") -> str:
        """Return the path of one object, of a list (no name), or of a subresource (`under`)."""
        parts = [self.root]
        if self.namespaced and (namespace or name):
            parts.append(f"namespaces/{quote(namespace or 'default', safe='')}")
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, under) if part]
        return "/".join(parts)


def root_of(api_version: str) -> str:
    """Return the folder of a group and version: `v1` is the old one without a group."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def resource_in(found: Mapping[str, Any], api_version: str, kind: str) -> Resource:
    """Return the kind from a discovery answer (APIResourceList); raises KindMissing when it is not listed."""
    for entry in found.get("resources", ()):
        if entry.get("kind") == kind and "/" not in entry.get("name", "/"):  # with a slash it is a subresource
            return Resource(root_of(api_version), entry["name"], bool(entry.get("namespaced")))
    raise kind_missing(api_version, kind)


def title(obj: Mapping[str, Any]) -> str:
    """Return an object's name for people: kind/namespace/name, or kind/name."""
    meta = obj.get("metadata") or {}
    parts = (str(obj.get("kind", "?")), meta.get("namespace", ""), str(meta.get("name", "?")))
    return "/".join(part for part in parts if part)


def with_protocols(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an object whose ports all name their protocol, TCP where nothing is said.

    It is part of a port's key in server-side apply, and older servers (seen with 1.20) refuse a port without it.
    """
    return _ports_named(obj) if obj.get("apiVersion") in ("v1", "apps/v1", "batch/v1", "batch/v1beta1") else obj


def _ports_named(part: Any) -> Any:
    """Return a part of an object with the protocol in every entry of every list `ports`."""
    if isinstance(part, list):
        return [_ports_named(entry) for entry in part]
    if not isinstance(part, Mapping):
        return part
    named = {key: _ports_named(value) for key, value in part.items()}
    if isinstance(named.get("ports"), list):
        named["ports"] = [{"protocol": "TCP", **port} if isinstance(port, dict) else port for port in named["ports"]]
    return named
