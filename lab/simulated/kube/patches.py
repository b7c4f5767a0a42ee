"""Merge patch (RFC 7386), strategic merge patch without its directives, and the merge of an applied configuration."""

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


def merge(target: Any, change: Any, shape: Shape, path: tuple[str, ...] = (), *, strategic: bool = False) -> Any:
    """Return `target` with an applied configuration, or a `strategic` patch, put over it: lists merge by their keys.

    In a strategic patch null removes, and maps that have one owner as a whole are merged too; the order of lists stays
    as it is, whatever it says of it, and other directives are not simulated: raises ApiError (405).
    """
    if isinstance(change, dict) and (strategic or (isinstance(target, dict) and not shape.is_atomic_map(path))):
        result = dict(target) if isinstance(target, dict) else {}
        for key, value in change.items():
            if strategic and key.startswith("$"):
                if not key.startswith("$setElementOrder/"):
                    raise not_simulated(f"{key} in a strategic merge patch is not simulated")
            elif value is not None:
                result[key] = merge(result.get(key), value, shape, (*path, key), strategic=strategic)
            elif strategic:
                result.pop(key, None)
        return result
    if isinstance(change, list) and isinstance(target, list):
        if shape.is_set(path):
            return [*target, *(item for item in change if item not in target)]
        if keys := shape.list_keys(path):
            return _merge_items(target, change, shape, path, keys, strategic=strategic)
    return copied(change)


def _merge_items(
    old: list[Obj], change: list[Obj], shape: Shape, path: tuple[str, ...], keys: tuple[str, ...], *, strategic: bool
) -> list[Obj]:
    places = {shape.key_values(item, keys): at for at, item in enumerate(old)}
    result = list(old)
    for item in change:
        at = places.get(shape.key_values(item, keys), len(result))
        result[at : at + 1] = [merge(old[at] if at < len(old) else {}, item, shape, path, strategic=strategic)]
    return result
