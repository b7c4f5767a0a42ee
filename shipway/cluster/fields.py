"""Every key a cluster file may hold, walked from the model: its path, what it takes, its default and what it is for."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

UNIONS = (Union, types.UnionType)
PLAIN: dict[Any, str] = {
    str: "text",
    int: "number",
    float: "number",
    bool: "true or false",
    IPv4Address: "IPv4 address",
    IPv4Network: "IPv4 network",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One key: `path` has `[]` for each host and `NAME` for a key of one's own."""

    path: str
    takes: str
    default: str
    description: str


def entries(model: type[BaseModel], prefix: str = "") -> Iterator[Entry]:
    """Yield every key of a model and of the sections below it, in order."""
    for name, info in model.model_fields.items():
        path = f"{prefix}{name}"
        yield Entry(path, takes(info.annotation), _default(info), info.description or "")
        for inner, suffix in _inner(info.annotation):
            yield from entries(inner, f"{path}{suffix}.")


def section(model: type[BaseModel], path: tuple[str | int, ...]) -> type[BaseModel] | None:
    """Return the model of the section at a path, or None where the path is not a section's."""
    found: Any = model
    for part in path:
        found = _step(found, part)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def describe(model: type[BaseModel], path: tuple[str | int, ...]) -> str:
    """Return what the key at a path is for; "" where the model has no such key."""
    info = _info(model, path)
    return (info.description or "") if info else ""


def pattern(model: type[BaseModel], path: tuple[str | int, ...]) -> str | None:
    """Return the pattern that the text at a path must match, or None where it has none."""
    info = _info(model, path)
    if info is None:
        return None
    held = [*info.metadata, *_constraints(info.annotation)]
    return next((str(found) for part in held if (found := getattr(part, "pattern", None))), None)


def _info(model: type[BaseModel], path: tuple[str | int, ...]) -> FieldInfo | None:
    """Return the field at a path."""
    held = section(model, path[:-1])
    return held.model_fields.get(str(path[-1])) if held and path else None


def _constraints(kind: Any) -> Iterator[Any]:
    """Yield what constrains the members of a union."""
    if get_origin(kind) is Annotated:
        yield from get_args(kind)[1:]
    elif get_origin(kind) in UNIONS:
        for part in get_args(kind):
            yield from _constraints(part)


def _step(kind: Any, part: str | int) -> Any:
    """Return what stands at one key or index of a kind."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        info = kind.model_fields.get(str(part))
        return None if info is None else _group_by_section(info.annotation)
    origin, args = get_origin(kind), get_args(kind)
    if origin is tuple and isinstance(part, int):
        return _group_by_section(args[0])
    return _group_by_section(args[1]) if origin is dict else None


def _group_by_section(kind: Any) -> Any:
    """Return a kind without its Annotated, and of a union the part that can hold something."""
    if get_origin(kind) is Annotated:
        return _group_by_section(get_args(kind)[0])
    if get_origin(kind) in UNIONS:
        held = [part for part in map(_group_by_section, get_args(kind)) if part is not types.NoneType]
        return next((part for part in held if isinstance(part, type) and issubclass(part, BaseModel)), held[0])
    return kind


def _inner(kind: Any) -> Iterator[tuple[type[BaseModel], str]]:
    """Yield the sections below a key, each with how its path goes on."""
    kind = _group_by_section(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind, ""
    elif get_origin(kind) is tuple:
        yield from ((inner, f"[]{rest}") for inner, rest in _inner(get_args(kind)[0]))
    elif get_origin(kind) is dict:
        yield from ((inner, f".NAME{rest}") for inner, rest in _inner(get_args(kind)[1]))


def takes(kind: Any) -> str:
    """Return in words what a key takes."""
    origin, args = get_origin(kind), get_args(kind)
    words = PLAIN.get(kind, "section")
    if origin is Annotated:
        words = takes(args[0])
    elif origin in UNIONS:
        words = " or ".join(dict.fromkeys(takes(part) for part in args if part is not types.NoneType))
    elif origin is Literal:
        words = " or ".join(f"`{value}`" for value in args)
    elif origin is tuple:
        words = f"list of {takes(args[0])}"
    elif origin is dict:
        words = "mapping" if args[1] is Any else f"mapping to {takes(args[1])}"
    return words


def _default(info: FieldInfo) -> str:
    """Return the default as it would be written; "" where there is none."""
    if info.is_required():
        return ""
    value = info.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ((), {}) or isinstance(value, BaseModel | Mapping):
        return "-"
    if isinstance(value, tuple):
        return json.dumps(value)
    return json.dumps(value) if isinstance(value, bool) else str(value)
