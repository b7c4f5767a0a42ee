"""What the API says about itself: groups, versions, resources, its version, and a minimal OpenAPI document."""

from __future__ import annotations

from .objects import Obj
from .resources import Resource, Resources
from .world import ClusterConfig

# Subresources whose kind is of another group: what kubectl drain and scale look for.
_SUB_KINDS = {
    "eviction": ("policy", "v1", "Eviction"),
    "scale": ("autoscaling", "v1", "Scale"),
}
# An OpenAPI v2 document without schemas, as `kubectl apply` asks for it: message openapi.v2.Document of gnostic, with
# swagger (field 1) and info (field 2: title, version). kubectl validates no kind that it finds no schema for.
PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
SCHEMALESS = b"\x0a\x032.0" + b"\x12\x0f\x0a\x0aKubernetes\x12\x011"
_SUB_VERBS = {"status": ["get", "patch", "update"], "scale": ["get", "patch", "update"], "log": ["get"]}


def version_info(config: ClusterConfig) -> Obj:
    """Return the answer of /version."""
    major, minor, _ = config.version.lstrip("v").split(".", 2)
    return {
        "major": major,
        "minor": minor,
        "gitVersion": config.version,
        "gitCommit": "SIMULATED",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "go0.0-SIMULATED",
        "compiler": "gc",
        "platform": "linux/amd64",
    }


def api_versions(address: str) -> Obj:
    """Return the answer of /api."""
    servers = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": servers}


def _group(name: str, versions: list[str]) -> Obj:
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def group_list(resources: Resources) -> Obj:
    """Return the answer of /apis."""
    groups = [_group(name, versions) for name, versions in resources.groups().items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(resources: Resources, name: str) -> Obj | None:
    """Return the answer of /apis/NAME, None where nobody serves it."""
    versions = resources.groups().get(name)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)} if name and versions else None


def _resource_entry(resource: Resource) -> Obj:
    entry: Obj = {
        "name": resource.plural,
        "singularName": resource.singular or resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short:
        entry["shortNames"] = list(resource.short)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    return entry


def _subresource_entry(resource: Resource, name: str) -> Obj:
    entry: Obj = {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": _SUB_VERBS.get(name, ["create"]),
    }
    if name in _SUB_KINDS:
        entry["group"], entry["version"], entry["kind"] = _SUB_KINDS[name]
    return entry


def resource_list(resources: Resources, group_name: str, version: str) -> Obj | None:
    """Return the resources of one group and version, None where nobody serves it."""
    entries: list[Obj] = []
    for resource in resources.all():
        if (resource.group, resource.version) == (group_name, version):
            entries.append(_resource_entry(resource))
            entries += [_subresource_entry(resource, name) for name in resource.subresources]
    if not entries:
        return None
    group_version = f"{group_name}/{version}" if group_name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": entries}


def discover(path: str, resources: Resources, config: ClusterConfig, address: str) -> Obj | None:
    """Return the discovery document at a path, None where there is none."""
    match [part for part in path.split("/") if part]:
        case ["version"]:
            found: Obj | None = version_info(config)
        case ["api"]:
            found = api_versions(address)
        case ["apis"]:
            found = group_list(resources)
        case ["api", version]:
            found = resource_list(resources, "", version)
        case ["apis", name]:
            found = group(resources, name)
        case ["apis", name, version]:
            found = resource_list(resources, name, version)
        case _:
            found = None
    return found
