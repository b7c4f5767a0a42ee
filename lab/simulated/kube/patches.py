"""Merge patch (RFC 7386), JSON patch (RFC 6902) and strategic merge patch."""

from __future__ import annotations

from typing import Any

from .api_errors import ApiError, bad_request
from .list_keys import Shape
from .objects import Obj, copied


def merge_patch(target: Any, patch: Any) -> Any:
    """Return `target` with a merge patch applied; neither is changed."""
    if not isinstance(patch, dict):
        return copied(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def _steps(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _child(container: Any, step: str) -> Any:
    try:
        return container[int(step)] if isinstance(container, list) else container[step]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise _refused(f"the path segment {step!r} does not exist") from error


def _refused(why: str) -> ApiError:
    return ApiError(422, "Invalid", f"the server rejected our request due to an error in our request: {why}")


def _set(container: Any, step: str, value: Any, *, insert: bool) -> None:
    if not isinstance(container, list):
        container[step] = value
    elif step == "-":
        container.append(value)
    elif insert:
        container.insert(int(step), value)
    else:
        container[int(step)] = value


def _delete(container: Any, step: str) -> Any:
    value = _child(container, step)
    del container[int(step) if isinstance(container, list) else step]
    return value


def json_patch(target: Obj, operations: list[Obj]) -> Obj:
    """Return `target` with the operations of a JSON patch done. Raises ApiError (422) where one cannot be done."""
    root: Obj = {"": copied(target)}
    for operation in operations:
        steps = ["", *_steps(str(operation.get("path", "")))]
        container: Any = root
        for step in steps[:-1]:
            container = _child(container, step)
        _operate(root, container, steps[-1], operation)
    result: Obj = root[""]
    return result


def _operate(root: Obj, container: Any, last: str, operation: Obj) -> None:
    kind = operation.get("op")
    if kind == "add":
        _set(container, last, copied(operation.get("value")), insert=True)
    elif kind == "replace":
        _child(container, last)
        _set(container, last, copied(operation.get("value")), insert=False)
    elif kind == "remove":
        _delete(container, last)
    elif kind == "test":
        if _child(container, last) != operation.get("value"):
            raise _refused(f"testing value {operation.get('path')} failed")
    elif kind in {"move", "copy"}:
        source = ["", *_steps(str(operation.get("from", "")))]
        holder: Any = root
        for step in source[:-1]:
            holder = _child(holder, step)
        value = _delete(holder, source[-1]) if kind == "move" else copied(_child(holder, source[-1]))
        _set(container, last, value, insert=True)
    else:
        raise bad_request(f"unknown JSON patch operation {kind!r}")


def strategic_merge(target: Any, patch: Obj, shape: Shape, path: tuple[str, ...] = ()) -> Any:
    """Return `target` with a strategic merge patch applied: lists merge by their keys, directives start with $."""
    directive = patch.get("$patch")
    if directive == "replace":
        return copied({key: value for key, value in patch.items() if key != "$patch"})
    result = dict(target) if isinstance(target, dict) else {}
    if retain := patch.get("$retainKeys"):
        result = {key: value for key, value in result.items() if key in retain}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.split("/", 1)[1]
            result[field] = [item for item in result.get(field) or [] if item not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = strategic_merge(result.get(key), value, shape, (*path, key))
        elif isinstance(value, list):
            result[key] = _merge_list(result.get(key) or [], value, shape, (*path, key))
        else:
            result[key] = value
    return _drop_directives(result)


def _merge_list(old: list[Any], patch: list[Any], shape: Shape, path: tuple[str, ...]) -> list[Any]:
    if shape.is_set(path):
        return [*old, *(item for item in patch if item not in old)]
    keys = shape.list_keys(path)[:1]  # a strategic merge knows one key a list, the first
    if not keys:
        return list(copied(patch))
    if any(isinstance(item, dict) and item == {"$patch": "replace"} for item in patch):
        return [copied(item) for item in patch if item != {"$patch": "replace"}]
    result = list(old)
    for item in patch:
        wanted = shape.key_values(item, keys)
        at = next((i for i, have in enumerate(result) if shape.key_values(have, keys) == wanted), None)
        if item.get("$patch") == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(strategic_merge({}, item, shape, path))
        else:
            result[at] = strategic_merge(result[at], item, shape, path)
    return result


def _drop_directives(value: Obj) -> Obj:
    return {key: item for key, item in value.items() if not key.startswith("$")}
