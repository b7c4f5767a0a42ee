"""Edits of a TOML file that others own too: single values are set, every other byte stays.

Whatever the edit makes is read again and must say exactly what was meant; where it does not, nothing is edited.
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Path = tuple[str, ...]
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"[ \t]*")
_LITERALS = ("'''", '"""')


class NotEditableError(ValueError):
    """The text cannot be edited so that only what is meant changes."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A key and its value: the value's place in the text, and where its line begins."""

    path: Path
    line: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Header:
    """A table's head, and the place behind its line."""

    path: Path
    end: int


def with_settings(text: str, wanted: Mapping[Path, Any]) -> str:
    """Return the text with these values set, by path; raises NotEditableError where that is not safe."""
    try:
        meant = tomllib.loads(text)
        for path, value in wanted.items():
            if _put(meant, path, value):
                text = _with(text, path, value)
        made = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, IndexError) as error:
        raise NotEditableError(f"not TOML: {error}") from error
    if made != meant:
        raise NotEditableError("it is laid out in a way that is not understood")
    return text


def _put(data: dict[str, Any], path: Path, value: Any) -> bool:
    """Set a value; tell whether that changed anything."""
    for part in path[:-1]:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise NotEditableError(f"{part} is no table")
    if path[-1] in data and data[path[-1]] == value and type(data[path[-1]]) is type(value):
        return False
    data[path[-1]] = copy.deepcopy(value)
    return True


def _with(text: str, path: Path, value: Any) -> str:
    """Return the text with one value set: in its place, in its table, or in a new table at the end."""
    found = list(_scan(text))
    for entry in (one for one in found if isinstance(one, _Entry)):
        if entry.path == path:
            return text[: entry.start] + _spell(value) + text[entry.end :]
        if path[: len(entry.path)] == entry.path:  # an inline table holds it
            table = tomllib.loads(f"x = {text[entry.start : entry.end]}")["x"]
            if not isinstance(table, dict):
                raise NotEditableError(f"{'.'.join(entry.path)} is no table")
            _put(table, path[len(entry.path) :], value)
            return text[: entry.start] + _spell(table) + text[entry.end :]
    line = f"{_key(path[-1])} = {_spell(value)}\n"
    at = _end_of_table(text, found, path[:-1])
    if at is None:
        gap = "" if not text or text.endswith("\n\n") else "\n" if text.endswith("\n") else "\n\n"
        return f"{text}{gap}[{'.'.join(_key(part) for part in path[:-1])}]\n{line}"
    gap = "" if at == 0 or text[at - 1] == "\n" else "\n"
    return f"{text[:at]}{gap}{_indent(text, found, path[:-1])}{line}{text[at:]}"


def _end_of_table(text: str, found: list[_Entry | _Header], table: Path) -> int | None:
    """Return the place behind the last line of a table, None where it has no head of its own."""
    at, inside = (0, True) if not table else (None, False)
    for one in found:
        if isinstance(one, _Header):
            inside = one.path == table
            at = one.end if inside else at
        elif inside:
            at = _line_end(text, one.end)
    return at


def _indent(text: str, found: list[_Entry | _Header], table: Path) -> str:
    """Return the blanks before the first key of a table."""
    for one in found:
        if isinstance(one, _Entry) and one.path[:-1] == table:
            match = _BLANK.match(text, one.line)
            return match[0] if match else ""
    return ""


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end + 1


def _scan(text: str) -> Iterator[_Entry | _Header]:
    """Yield the heads and entries of a text that is TOML, in order."""
    at = 0
    table: Path = ()
    while at < len(text):
        line, at = at, _blanks(text, at)
        if at >= len(text) or text[at] in "#\r\n":
            at = _line_end(text, at)
        elif text[at] == "[":
            many = text.startswith("[[", at)
            table, at = _keys(text, at + 1 + many)
            at = _line_end(text, at)
            # An array's tables have no path of their own: nothing is ever set in one of them.
            table = (*table, "[]") if many else table
            yield _Header(table, at)
        else:
            keys, at = _keys(text, at)
            start = _blanks(text, at + 1)
            end = _value_end(text, start)
            yield _Entry((*table, *keys), line, start, end)
            at = _line_end(text, end)


def _blanks(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _keys(text: str, at: int) -> tuple[Path, int]:
    """Return the parts of a dotted key, and the place of the = or ] behind it."""
    parts: list[str] = []
    while True:
        at = _blanks(text, at)
        if text[at] in "\"'":
            end = _string_end(text, at)
            parts.append(tomllib.loads(f"x = {text[at:end]}")["x"])
        else:
            match = _BARE.match(text, at)
            if match is None:
                raise NotEditableError("a key is laid out in a way that is not understood")
            parts.append(match[0])
            end = match.end()
        at = _blanks(text, end)
        if text[at] != ".":
            return tuple(parts), at
        at += 1


def _string_end(text: str, at: int) -> int:
    """Return the place behind a string that begins here."""
    quote = next((three for three in _LITERALS if text.startswith(three, at)), text[at])
    end = at + len(quote)
    while not text.startswith(quote, end):
        end += 2 if quote[0] == '"' and text[end] == "\\" else 1
    end += len(quote)
    while len(quote) == 3 and text.startswith(quote[0], end):  # noqa: PLR2004 - up to two quotes belong to the string
        end += 1
    return end


def _value_end(text: str, at: int) -> int:
    """Return the place behind a value that begins here."""
    depth, last = 0, at
    while at < len(text):
        char = text[at]
        if char in "\"'":
            at = last = _string_end(text, at)
            continue
        if char == "#" or (char in "\r\n" and not depth):
            if not depth:
                break
            at = _line_end(text, at)
            continue
        depth += (char in "[{") - (char in "]}")
        at += 1
        last = at if char not in " \t\r\n" else last
    return last


def _key(part: str) -> str:
    return part if _BARE.fullmatch(part) else json.dumps(part, ensure_ascii=False)


def _spell(value: Any) -> str:
    """Return a value as TOML writes it on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_spell(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_spell(one) for one in value) + "]"
    if isinstance(value, str | bool | int):
        return json.dumps(value, ensure_ascii=False)
    raise NotEditableError(f"a value of the kind {type(value).__name__} is not written here")
