"""Lists as the Tables that kubectl prints."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .ages import since
from .columns import PRINTED
from .objects import Obj, dig
from .resources import Resource

_FILTER = re.compile(r"^\[\?\(@\.(\w+)==['\"](.*)['\"]\)\]$")


def _definitions(resource: Resource) -> list[Obj]:
    if resource.key in PRINTED:
        columns = list(PRINTED[resource.key][0])
    else:
        columns = [("Name", "string", 0), *((name, kind, order) for name, kind, _, order in resource.columns)]
        if not any(path == ".metadata.creationTimestamp" for _, _, path, _ in resource.columns):
            columns.append(("Age", "date" if resource.columns else "string", 0))
    return [
        {
            "name": name,
            "type": kind,
            "format": "name" if name == "Name" else "",
            "description": "",
            "priority": priority,
        }
        for name, kind, priority in columns
    ]


def json_path(obj: Obj, path: str) -> object:
    """Return the value at a CRD column's JSON path: fields and `[?(@.key=="value")]` filters; None if missing."""
    value: object = obj
    for step in re.findall(r"\[\?\([^)]*\)\]|[^.\[]+", path.lstrip(".")):
        if found := _FILTER.match(step):
            items = value if isinstance(value, list) else []
            value = next((item for item in items if str(item.get(found[1])) == found[2]), None)
        elif isinstance(value, dict):
            value = value.get(step)
        else:
            return None
    return value


def _cells(resource: Resource, obj: Obj, minor: int) -> list[object]:
    if resource.key in PRINTED:
        return PRINTED[resource.key][1](obj, minor)
    row: list[object] = [obj["metadata"]["name"]]
    for _, kind, path, _ in resource.columns:
        value = json_path(obj, path)
        row.append(since(str(value)) if kind == "date" and value else value)
    if not any(path == ".metadata.creationTimestamp" for _, _, path, _ in resource.columns):
        row.append(since(dig(obj, "metadata", "creationTimestamp")))
    return row


def partial(obj: Obj) -> Obj:
    """Return an object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def table(
    resource: Resource, objects: Iterable[Obj], list_metadata: Obj, *, api_version: str, minor: int, include: str
) -> Obj:
    """Return a Table of objects; `include` says what each row carries: Metadata, Object or None."""
    rows = []
    for obj in objects:
        row: Obj = {"cells": _cells(resource, obj, minor)}
        if include == "Object":
            row["object"] = obj
        elif include != "None":
            row["object"] = {**partial(obj), "apiVersion": api_version}
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": api_version,
        "metadata": list_metadata,
        "columnDefinitions": _definitions(resource),
        "rows": rows,
    }
