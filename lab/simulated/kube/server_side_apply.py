"""Server-side apply: who owns which field, conflicts, and what an owner's omission removes."""

from __future__ import annotations

import json
from typing import Any

from .api_errors import ApiError
from .fieldsets import ITEM, Path, from_fields_v1, leaves, readable, to_fields_v1, without
from .list_keys import Shape
from .objects import Obj, copied, timestamp, with_metadata

Managers = list[Obj]


def apply(live: Obj | None, wanted: Obj, manager: str, api_version: str, shape: Shape, *, force: bool) -> Obj:
    """Return the object after `manager` applied `wanted` (which carries no managedFields) to `live`.

    Raises ApiError (409, with a cause for every field) where another manager owns a field with another value.
    """
    fields = leaves(wanted, shape)
    entries: Managers = copied((live or {}).get("metadata", {}).get("managedFields") or [])
    mine = next((e for e in entries if e["manager"] == manager and e["operation"] == "Apply"), None)
    others = [entry for entry in entries if entry is not mine]
    have = leaves(live, shape) if live else {}
    if conflicts := _conflicts(others, fields, have):
        if not force:
            raise _conflict_error(conflicts)
        _take_over(conflicts)
    before = from_fields_v1(mine["fieldsV1"]) if mine else set()
    result = _merge(live or {}, wanted, (), shape)
    held = set().union(*(from_fields_v1(entry["fieldsV1"]) for entry in others)) if others else set()
    for path in sorted(before - set(fields), key=len, reverse=True):
        if path not in held and not any(other[: len(path)] == path for other in held):
            result = without(result, path, shape)
    entry = _entry(manager, "Apply", api_version, set(fields), mine)
    kept = [other for other in others if other["fieldsV1"]]
    return with_metadata(result, managedFields=[entry, *kept])


def track_update(
    before: Obj | None, after: Obj, manager: str, api_version: str, shape: Shape, *, subresource: str = ""
) -> Obj:
    """Return `after` with managedFields that name `manager` as the owner of all that it changed by an update."""
    old = leaves(before, shape) if before else {}
    new = leaves(after, shape)
    changed = {path for path, value in new.items() if path not in old or old[path] != value}
    removed = set(old) - set(new)
    entries: Managers = copied((before or {}).get("metadata", {}).get("managedFields") or [])
    if not changed and not removed:
        return with_metadata(after, managedFields=entries or None)
    mine = None
    for entry in entries:
        owned = from_fields_v1(entry["fieldsV1"]) - removed
        own = (entry["manager"], entry["operation"], entry.get("subresource", "")) == (manager, "Update", subresource)
        if own:
            mine = entry
            changed |= owned
        else:
            entry["fieldsV1"] = to_fields_v1(owned - {path for path in changed if new.get(path) is not ITEM})
    kept = [entry for entry in entries if entry is not mine and entry["fieldsV1"]]
    if changed:
        kept.append(_entry(manager, "Update", api_version, changed, mine, subresource=subresource))
    return with_metadata(after, managedFields=kept)


def _entry(
    manager: str, operation: str, api_version: str, paths: set[Path], old: Obj | None, *, subresource: str = ""
) -> Obj:
    fields = to_fields_v1(paths)
    unchanged = old is not None and old["fieldsV1"] == fields
    entry: Obj = {
        "manager": manager,
        "operation": operation,
        "apiVersion": api_version,
        "time": old["time"] if old is not None and unchanged else timestamp(),
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    if subresource:
        entry["subresource"] = subresource
    return entry


def _conflicts(others: Managers, fields: dict[Path, Any], have: dict[Path, Any]) -> list[tuple[Obj, list[Path]]]:
    found = []
    for entry in others:
        owned = from_fields_v1(entry["fieldsV1"])
        paths = [
            path
            for path, value in fields.items()
            if value is not ITEM and path in owned and have.get(path, ITEM) != value
        ]
        if paths:
            found.append((entry, sorted(paths)))
    return found


def _take_over(conflicts: list[tuple[Obj, list[Path]]]) -> None:
    for entry, paths in conflicts:
        entry["fieldsV1"] = to_fields_v1(from_fields_v1(entry["fieldsV1"]) - set(paths))


def _manager_text(entry: Obj) -> str:
    text = json.dumps(entry["manager"])
    if entry.get("subresource"):
        text += f" with subresource {json.dumps(entry['subresource'])}"
    if entry["operation"] == "Update":
        text += f" using {entry['apiVersion']} at {entry['time']}"
    return text


def _conflict_error(conflicts: list[tuple[Obj, list[Path]]]) -> ApiError:
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {_manager_text(entry)}", "field": readable(path)}
        for entry, paths in conflicts
        for path in paths
    ]
    if len(causes) == 1:
        message = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        parts = []
        for entry, paths in conflicts:
            listing = "\n".join(f"- {readable(path)}" for path in paths)
            parts.append(f"conflicts with {_manager_text(entry)}:\n{listing}")
        message = f"Apply failed with {len(causes)} conflicts: " + "\n".join(parts)
    return ApiError(409, "Conflict", message, {"causes": causes})


def _merge(live: Any, wanted: Any, path: tuple[str, ...], shape: Shape) -> Any:
    if isinstance(wanted, dict) and isinstance(live, dict) and not shape.is_atomic_map(path):
        result = dict(live)
        for key, value in wanted.items():
            if value is not None:
                result[key] = _merge(live.get(key), value, (*path, key), shape)
        return result
    if isinstance(wanted, list) and isinstance(live, list):
        if shape.is_set(path):
            return [*live, *(item for item in wanted if item not in live)]
        if keys := shape.list_keys(path):
            return _merge_items(live, wanted, path, shape, keys)
    return copied(wanted)


def _merge_items(live: list[Obj], wanted: list[Obj], path: tuple[str, ...], shape: Shape, keys: tuple[str, ...]) -> Any:
    places = {shape.key_values(item, keys): at for at, item in enumerate(live)}
    result = list(live)
    for item in wanted:
        at = places.get(shape.key_values(item, keys))
        if at is None:
            result.append(copied(item))
        else:
            result[at] = _merge(live[at], item, path, shape)
    return result
