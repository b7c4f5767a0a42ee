"""Merge patch (RFC 7386), and strategic merge patch without its directives."""

from __future__ import annotations

from typing import Any

from .api_errors import not_simulated
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


def strategic_merge(target: Any, patch: Obj, shape: Shape, path: tuple[str, ...] = ()) -> Any:
    """Return `target` with a strategic merge patch applied: lists merge by their keys. Raises ApiError (405).

    The order of lists stays as it is, whatever a patch says of it; other directives are not simulated.
    """
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$setElementOrder/"):
            continue
        if key.startswith("$"):
            raise not_simulated(f"{key} in a strategic merge patch is not simulated")
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = strategic_merge(result.get(key), value, shape, (*path, key))
        elif isinstance(value, list):
            result[key] = _merge_list(result.get(key) or [], value, shape, (*path, key))
        else:
            result[key] = value
    return result


def _merge_list(old: list[Any], patch: list[Any], shape: Shape, path: tuple[str, ...]) -> list[Any]:
    if shape.is_set(path):
        return [*old, *(item for item in patch if item not in old)]
    keys = shape.list_keys(path)[:1]  # a strategic merge knows one key a list, the first
    if not keys:
        return list(copied(patch))
    places = {shape.key_values(item, keys): at for at, item in enumerate(old)}
    result = list(old)
    for item in patch:
        at = places.get(shape.key_values(item, keys), len(result))
        result[at : at + 1] = [strategic_merge(old[at] if at < len(old) else {}, item, shape, path)]
    return result
