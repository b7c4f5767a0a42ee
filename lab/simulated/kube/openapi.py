"""An OpenAPI v2 document without schemas, as JSON and in the protobuf form that kubectl asks for.

kubectl skips its own validation of kinds it finds no schema for, and reads from the paths only whether a kind takes
dry-run requests; so the document lists one path with a PATCH for every resource, and no more.
"""

from __future__ import annotations

from .objects import Obj
from .resources import Resource, Resources

# Clients ask for the first name or the second; the server answers with the second, which is a well-formed media type.
PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
ASKED_FOR = ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", PROTOBUF)


def _path(resource: Resource) -> str:
    place = "/namespaces/{namespace}" if resource.namespaced else ""
    return f"{resource.base_path}{place}/{resource.plural}/{{name}}"


def document(resources: Resources, version: str) -> Obj:
    """Return the document as JSON."""
    paths: Obj = {}
    for resource in resources.all():
        kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
        dry_run = {"name": "dryRun", "in": "query", "type": "string"}
        patch = {"parameters": [dry_run], "responses": {}, "x-kubernetes-group-version-kind": kind}
        paths[_path(resource)] = {"patch": patch}
    return {"swagger": "2.0", "info": {"title": "Kubernetes", "version": version}, "paths": paths, "definitions": {}}


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _patch_operation(resource: Resource) -> bytes:
    """Return an Operation message: one query parameter, and the kind as a vendor extension (field numbers: gnostic)."""
    in_query = _field(2, "query") + _field(4, "dryRun") + _field(6, "string")
    parameter = _field(1, _field(2, _field(3, in_query)))  # ParametersItem.parameter.non_body_parameter.query
    kind = f"group: {resource.group!r}\nkind: {resource.kind}\nversion: {resource.version}\n"
    extension = _field(1, "x-kubernetes-group-version-kind") + _field(2, _field(2, kind))  # NamedAny, Any.yaml
    return _field(8, parameter) + _field(13, extension)


def protobuf(resources: Resources, version: str) -> bytes:
    """Return the document in protobuf form (message openapi.v2.Document of gnostic)."""
    paths = b""
    for resource in resources.all():
        item = _field(8, _patch_operation(resource))  # PathItem.patch
        paths += _field(2, _field(1, _path(resource)) + _field(2, item))
    info = _field(1, "Kubernetes") + _field(2, version)
    return _field(1, "2.0") + _field(2, info) + _field(8, paths)
