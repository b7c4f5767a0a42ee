"""Sets of fields as server-side apply knows them, and their FieldsV1 form in managedFields."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from .list_keys import Shape
from .objects import Obj

Path = tuple[str, ...]  # elements "f:spec", 'k:{"name":"c"}', 'v:"x"'
ITEM = object()  # the value of a path that says only that a list holds this item
# What belongs to the object's identity or to the server, and so to no manager.
_NOBODYS = {
    ("f:apiVersion",), ("f:kind",), ("f:metadata", "f:name"), ("f:metadata", "f:namespace"),
    ("f:metadata", "f:uid"), ("f:metadata", "f:resourceVersion"), ("f:metadata", "f:generation"),
    ("f:metadata", "f:creationTimestamp"), ("f:metadata", "f:selfLink"), ("f:metadata", "f:managedFields"),
    ("f:metadata", "f:deletionTimestamp"), ("f:metadata", "f:deletionGracePeriodSeconds"), ("f:metadata",),
    ("f:metadata", "f:generateName"),
}  # fmt: skip


def item_element(item: Obj, keys: tuple[str, ...]) -> str:
    """Return the path element of an item in a keyed list."""
    return "k:" + json.dumps(dict(Shape.key_values(item, keys)), separators=(",", ":"))


def leaves(obj: Obj, shape: Shape) -> dict[Path, Any]:
    """Return every field that a manager can own, with its value (ITEM for the presence of a list's item)."""
    found: dict[Path, Any] = {}
    _walk(obj, (), (), shape, found)
    return {path: value for path, value in found.items() if path not in _NOBODYS and path[:2] not in _NOBODYS}


def _walk(value: Any, path: Path, fields: tuple[str, ...], shape: Shape, found: dict[Path, Any]) -> None:
    if isinstance(value, dict) and value and not shape.is_atomic_map(fields):
        for key, item in value.items():
            if item is not None:
                _walk(item, (*path, f"f:{key}"), (*fields, key), shape, found)
    elif isinstance(value, list) and value and shape.is_set(fields):
        for item in value:
            found[(*path, "v:" + json.dumps(item))] = ITEM
    elif isinstance(value, list) and value and (keys := shape.list_keys(fields)):
        for item in value:
            inside = (*path, item_element(item, keys))
            found[inside] = ITEM
            _walk(item, inside, fields, shape, found)
    elif path:
        found[path] = value


def to_fields_v1(paths: Iterable[Path]) -> Obj:
    """Return the nested FieldsV1 form of a set of paths."""
    root: Obj = {}
    for path in sorted(paths):
        node = root
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    return _without_lone_dots(root)


def _without_lone_dots(node: Obj) -> Obj:
    if set(node) == {"."}:
        return {}
    return {key: value if key == "." else _without_lone_dots(value) for key, value in node.items()}


def from_fields_v1(fields: Obj, prefix: Path = ()) -> set[Path]:
    """Return the set of paths that a FieldsV1 value holds."""
    found: set[Path] = set()
    for key, value in fields.items():
        if key == ".":
            found.add(prefix)
        elif value:
            found |= from_fields_v1(value, (*prefix, key))
        else:
            found.add((*prefix, key))
    return found


def without(obj: Obj, path: Path, shape: Shape) -> Obj:
    """Return the object without the field at a path; maps that become empty by it go too."""
    result = _removed(obj, path, (), shape)
    return result if isinstance(result, dict) else {}


def _removed(value: Any, path: Path, fields: tuple[str, ...], shape: Shape) -> Any:
    element, rest = path[0], path[1:]
    kind, _, text = element.partition(":")
    if kind == "f":
        if not isinstance(value, dict) or text not in value:
            return value
        kept = {key: item for key, item in value.items() if key != text}
        if rest:
            inner = _removed(value[text], rest, (*fields, text), shape)
            if inner not in ({}, []):
                return {**value, text: inner}
        return kept
    if not isinstance(value, list):
        return value
    if kind == "v":
        return [item for item in value if item != json.loads(text)]
    keys = shape.list_keys(fields)
    result = []
    for item in value:
        if item_element(item, keys) != element:
            result.append(item)
        elif rest:  # what an item is known by goes with the item alone
            keyed = len(rest) == 1 and rest[0].removeprefix("f:") in keys
            result.append(item if keyed else _removed(item, rest, fields, shape))
    return result
