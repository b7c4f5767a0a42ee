"""Faults of a cluster file: where each stands, what is wrong in plain words, and all of them in one refusal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from shipway.cluster.fields import describe, entries, pattern, section
from shipway.cluster.text import CODE, Path, Source
from shipway.cluster.types import WORDS
from shipway.errors import Refused

SHOWN = 60  # characters of a value that a fault shows
FORMS = ("mapping", "text")  # the tags by which the model tells apart what a key takes
MOST_SHOWN = 100  # faults that are spelled out: a reader corrects no more at once


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: its place, what, and the other places it was reported from."""

    path: Path
    message: str
    also: tuple[Path, ...] = ()


def spell_path(path: Path) -> str:
    """Return hosts[1].gpus of ("hosts", 1, "gpus")."""
    text = ""
    for part in path:
        plain = isinstance(part, str) and re.fullmatch(r"[A-Za-z0-9_./-]{1,64}", part)
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if plain else f".{_show(part)}"
    return text.removeprefix(".") or "file"


def refusal(source: Source, base: Mapping[str, Any], faults: Iterable[Fault]) -> Refused:
    """Return one error with all faults: the first line says file and count, then one fault a line, by line number."""
    rows = list(dict.fromkeys(sorted(_row(source, base, fault) for fault in faults)))
    count = f"{len(rows)} fault{'s' if len(rows) > 1 else ''}"
    lines = [f"{source.where}: {count}, nothing was changed", *(f"  {text}" for _, text in rows[:MOST_SHOWN])]
    if len(rows) > MOST_SHOWN:
        lines.append(f"  … and {len(rows) - MOST_SHOWN} more")
    return Refused("\n".join(lines), code=CODE, fix="Correct what is named in the cluster file, then run again.")


def _row(source: Source, base: Mapping[str, Any], fault: Fault) -> tuple[int, str]:
    """Return the line number to sort by and the text; a profile's value is reported beside the user's keys about it."""
    about = (fault.path, *fault.also)
    given = [path for path in about if source.line(path)]
    line = source.line(given[0]) if given else next((near for path in about if (near := source.nearest(path))), None)
    place = f"line {line}: " if line else ""
    owner = "" if source.line(fault.path) or not holds(base, fault.path) else " (from the profile)"
    return line or 0, f"{place}{spell_path(fault.path)}{owner}: {fault.message}"


def holds(data: Any, path: Path) -> bool:
    """Tell whether there is a value at the path."""
    for part in path:
        item = isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)
        if not item and not (isinstance(data, Mapping) and part in data):
            return False
        data = data[part]
    return True


def pydantic_faults(error: ValidationError, model: type[BaseModel], data: Any) -> list[Fault]:
    """Return the faults of a validation in words; the branches of a union that all failed are one fault."""
    found: dict[Path, list[str]] = {}
    for item in error.errors():
        path = _place(item["loc"], data, item["type"])
        if item["type"] == "too_short" and item["input"]:
            continue  # Pydantic counts only the items that are right: their own faults are reported
        found.setdefault(path, []).append(_words(dict(item), path, model))
    return [Fault(path, _join(messages)) for path, messages in found.items()]


def _place(loc: Sequence[str | int], data: Any, kind: str) -> Path:
    """Return the path in the data: Pydantic's own parts (`int`, `[key]`, `literal[...]`) are left out."""
    path: list[str | int] = []
    value = data
    for index, part in enumerate(loc):
        mapping = isinstance(value, Mapping) and part in value
        item = isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)
        if part in FORMS and not mapping:
            continue  # the branch of a union that the value's form chose
        if not (mapping or item):
            if kind == "missing" and index == len(loc) - 1:
                path.append(part)
            break
        path.append(part)
        value = value[part]
    return tuple(path)


def _join(messages: list[str]) -> str:
    """Return one sentence; `must be A` and `must be B` are `must be A or B`."""
    unique = list(dict.fromkeys(messages))
    cut = [text.removeprefix("must be ") for text in unique]
    if len(unique) > 1 and all(text.startswith("must be ") for text in unique):
        return "must be " + " or ".join([text.split("; it is ")[0] for text in cut[:-1]] + [cut[-1]])
    return "; ".join(unique)


def _words(item: Mapping[str, Any], path: Path, model: type[BaseModel]) -> str:
    """Return one Pydantic error in the words of this project."""
    kind, context = str(item["type"]), item.get("ctx", {})
    if kind == "missing":
        return f"is missing: {describe(model, path) or 'it is needed'}".removesuffix(".")
    if kind == "extra_forbidden":
        return _unknown(path, model)
    if kind == "string_pattern_mismatch":
        words = f"must be {WORDS.get(str(context.get('pattern')), 'of another form')}"
    elif kind == "string_type":
        form = WORDS.get(pattern(model, path) or "")
        words = "must be text (put it in quotes)" + (f": {form}" if form else "")
    elif kind.startswith("model_") and path[:1] == ("hosts",) and len(path) == 2:  # noqa: PLR2004 - a host itself
        words = "must be an address, or a mapping such as {name: gpu1, address: 10.0.0.1}"
    elif kind == "literal_error":
        words = f"must be {context.get('expected')}".replace("'", "`")
    else:
        known = next((text for start, text in KINDS.items() if kind.startswith(start)), None)
        words = known.format(**context) if known else str(item["msg"]).removeprefix("Value error, ")
    return words + _is(item.get("input"))


KINDS = {
    "string_too_long": "must be at most {max_length} characters long",
    "int_": "must be a whole number without quotes",
    "float_": "must be a number without quotes",
    "finite_number": "must be a finite number",
    "bool_": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_": "must be a mapping",
    "too_short": "must not be empty",
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be {le} or less",
    "ip_v4_address": "must be an IPv4 address",
    "ip_v4_network": "must be an IPv4 network",
}


def _is(value: Any) -> str:
    """Return what was found, as YAML has it: who wrote `no` did not write False."""
    if value is None:
        return "; it is empty"
    if isinstance(value, bool):
        return f"; it is {str(value).lower()} (YAML reads yes, no, on and off as true or false)"
    return f"; it is {_show(value)}" if isinstance(value, str | int | float) else ""


def _show(value: Any) -> str:
    """Return a value on one line, cut short and without a password: a hostile one may hold newlines or megabytes."""
    text = ascii(re.sub(r"//.*@", "//…@", value)[: SHOWN + 1] if isinstance(value, str) else value)
    text = text.replace("\\u2026", "…")
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _unknown(path: Path, model: type[BaseModel]) -> str:
    """Say that a key is unknown and which one was meant: one of the same section, or the same word elsewhere."""
    key = str(path[-1])
    here = section(model, path[:-1])
    known = list(here.model_fields) if here else []
    close = get_close_matches(key, known, n=1, cutoff=0.6)
    if close:
        return f"is no key of this section; did you mean {close[0]}?"
    same = [entry.path for entry in entries(model) if entry.path.rsplit(".", 1)[-1] == key]
    elsewhere = sorted(same, key=lambda text: (text.count("."), "[]" in text))
    if elsewhere:
        return f"is no key of this section; did you mean {' or '.join(elsewhere[:2])}?"
    return f"is no key of this section; known: {', '.join(known)}"
