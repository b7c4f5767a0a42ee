"""Lists as the Tables that `kubectl get` prints."""

from __future__ import annotations

from collections.abc import Iterable

from .ages import since
from .columns import PRINTED, Column
from .objects import Obj
from .resources import Resource

_API_VERSION = "meta.k8s.io/v1"
_OTHERS: list[Column] = [("Name", "string", 0), ("Age", "string", 0)]


def _definition(column: Column) -> Obj:
    name, kind, priority = column
    shape = "name" if name == "Name" else ""
    return {"name": name, "type": kind, "format": shape, "description": "", "priority": priority}


def _plain(obj: Obj, minor: int) -> list[object]:  # noqa: ARG001 - the shape of a row's maker
    return [obj["metadata"]["name"], since(obj["metadata"].get("creationTimestamp"))]


def table(resource: Resource, objects: Iterable[Obj], list_metadata: Obj, *, minor: int, include: str) -> Obj:
    """Return a Table of objects; `include` says what each row carries: Metadata, Object or None."""
    columns, cells = PRINTED.get(resource.key, (_OTHERS, _plain))
    rows = []
    for obj in objects:
        row: Obj = {"cells": cells(obj, minor)}
        if include == "Object":
            row["object"] = obj
        elif include != "None":
            row["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": _API_VERSION,
                "metadata": obj["metadata"],
            }
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": _API_VERSION,
        "metadata": list_metadata,
        "columnDefinitions": [_definition(column) for column in columns],
        "rows": rows,
    }
