"""Server-side apply with force: who owns which field, and what an owner's omission removes."""

from __future__ import annotations

from .fieldsets import ITEM, Path, from_fields_v1, leaves, to_fields_v1, without
from .list_keys import Shape
from .objects import Obj, copied, timestamp, with_metadata
from .patches import merge


def _entries(obj: Obj | None) -> list[Obj]:
    entries: list[Obj] = copied((obj or {}).get("metadata", {}).get("managedFields") or [])
    return entries


def _is(entry: Obj, manager: str, operation: str, subresource: str = "") -> bool:
    return (entry["manager"], entry["operation"], entry.get("subresource", "")) == (manager, operation, subresource)


def apply(live: Obj | None, wanted: Obj, manager: str, api_version: str, shape: Shape) -> Obj:
    """Return the object after `manager` applied `wanted` (which carries no managedFields) to `live`, with force."""
    fields = set(leaves(wanted, shape))
    before: set[Path] = set()
    held: set[Path] = set()
    for entry in _entries(live):
        (before if _is(entry, manager, "Apply") else held).update(from_fields_v1(entry["fieldsV1"]))
    result = merge(live or {}, wanted, shape)
    for path in sorted(before - fields, key=len, reverse=True):
        if path not in held and not any(other[: len(path)] == path for other in held):
            result = without(result, path, shape)
    return _owned(live, result, _entry(manager, "Apply", api_version, fields), shape)


def track_update(
    before: Obj | None, after: Obj, manager: str, api_version: str, shape: Shape, *, subresource: str = ""
) -> Obj:
    """Return `after` with managedFields that name `manager` as the owner of all that it changed by an update."""
    mine = [
        from_fields_v1(entry["fieldsV1"]) for entry in _entries(before) if _is(entry, manager, "Update", subresource)
    ]
    old, new = leaves(before or {}, shape), leaves(after, shape)
    changed = {path for path, value in new.items() if path not in old or old[path] != value}
    if not changed and not set(old) - set(new):
        return with_metadata(after, managedFields=_entries(before) or None)
    fields = changed.union(*mine) & set(new)
    return _owned(before, after, _entry(manager, "Update", api_version, fields, subresource), shape)


def _entry(manager: str, operation: str, api_version: str, paths: set[Path], subresource: str = "") -> Obj:
    entry: Obj = {
        "manager": manager,
        "operation": operation,
        "apiVersion": api_version,
        "time": timestamp(),
        "fieldsType": "FieldsV1",
        "fieldsV1": to_fields_v1(paths),
    }
    return {**entry, "subresource": subresource} if subresource else entry


def _owned(before: Obj | None, after: Obj, mine: Obj, shape: Shape) -> Obj:
    """Return `after` with an entry in its managedFields, and without what others owned of what is another value now."""
    old, new = leaves(before or {}, shape), leaves(after, shape)
    lost = {path for path in old if path not in new}
    lost |= {path for path, value in new.items() if value is not ITEM and old.get(path, ITEM) != value}
    others = []
    for entry in _entries(before):
        if _is(entry, mine["manager"], mine["operation"], mine.get("subresource", "")):
            mine = {**mine, "time": entry["time"]} if entry["fieldsV1"] == mine["fieldsV1"] else mine
        elif fields := to_fields_v1(from_fields_v1(entry["fieldsV1"]) - lost):
            others.append({**entry, "fieldsV1": fields})
    return with_metadata(after, managedFields=[*others, *([mine] if mine["fieldsV1"] else [])])
