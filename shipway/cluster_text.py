"""A cluster file's text read as YAML: its data, the line of every value, and a refusal of what no one should write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from shipway.errors import Refused

LARGEST = 1024 * 1024  # bytes; a thousand hosts with labels take a tenth of it
DEEPEST = 40  # levels; the model has six, kubelet's configuration a few more
MOST_VALUES = 200_000  # aliases may stand for many values: a few lines could ask for billions
CODE = "SHW-120"
PathPart = str | int
Path = tuple[PathPart, ...]
# libyaml reads a thousand hosts in milliseconds; without it PyYAML's own reader takes seconds.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Source:
    """What a file says: plain data, and the line (from 1) that each key or item stands on."""

    where: str
    data: dict[str, Any]
    lines: dict[Path, int] = field(default_factory=dict)
    twice: tuple[tuple[Path, int], ...] = ()

    def line(self, path: Path) -> int | None:
        """Give the line of a value, or None where the file does not hold it."""
        return self.lines.get(path)

    def nearest(self, path: Path) -> int | None:
        """Give the line of a value or of the closest thing around it that the file holds."""
        return next((self.lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.lines), None)


def source(text: str, where: str) -> Source:
    """Read a cluster file's text; raises Refused where it is too large, no YAML or no mapping."""
    size = len(text.encode("utf-8", errors="surrogatepass"))
    if size > LARGEST:
        message = f"{where}: {size} bytes are more than the {LARGEST} a cluster file may have"
        raise Refused(message, code=CODE, fix="Move what is not the cluster's description out of the file.")
    try:
        data, lines, twice = _read(text, where)
    except RecursionError as error:
        raise _too_deep(where) from error
    except (yaml.YAMLError, ValueError) as error:
        raise Refused(f"{where} is not YAML: {_one_line(error)}", code=CODE) from error
    if not isinstance(data, dict):
        found = "empty" if data is None else f"a {type(data).__name__}"
        message = f"{where} is {found}; a cluster file is a mapping with at least `name` and `hosts`"
        raise Refused(message, code=CODE, fix="Start from the two lines `name: demo` and `hosts: [10.0.0.1]`.")
    return Source(where, data, lines, tuple(twice))


def _read(text: str, where: str) -> tuple[Any, dict[Path, int], list[tuple[Path, int]]]:
    """Give the data, the lines and the keys that stand twice."""
    _limit_depth(text, where)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        lines: dict[Path, int] = {}
        twice: list[tuple[Path, int]] = []
        if node is None:
            return None, lines, twice
        for count, (path, line, again) in enumerate(_walk(node, ())):
            if count > MOST_VALUES:
                raise Refused(f"{where} stands for more than {MOST_VALUES} values (aliases of aliases?)", code=CODE)
            if again:
                twice.append((path, line))
            lines.setdefault(path, line)
        return loader.construct_document(node), lines, twice
    finally:
        loader.dispose()


def _limit_depth(text: str, where: str) -> None:
    """Count levels before anything is built from them: building recurses, and C code would crash on 100,000."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            depth += 1
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise _too_deep(where)


def _too_deep(where: str) -> Refused:
    return Refused(f"{where} is nested more than {DEEPEST} levels deep", code=CODE)


def _walk(node: yaml.Node, path: Path) -> Iterator[tuple[Path, int, bool]]:
    """Give the path, line and "stands twice" of everything under a node; an alias of itself ends by its depth."""
    if len(path) > DEEPEST:
        raise RecursionError
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            # `<<` takes another mapping's keys in: it may stand twice and is no key of ours.
            merges = key.tag == "tag:yaml.org,2002:merge"
            inner = path if merges else (*path, name)
            if not merges:
                yield inner, key.start_mark.line + 1, name in seen
                seen.add(name)
            yield from _walk(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, index), item.start_mark.line + 1, False
            yield from _walk(item, (*path, index))


def _one_line(error: Exception) -> str:
    """Give YAML's words in one line, with the line number first."""
    mark = getattr(error, "problem_mark", None)
    problem = " ".join(str(getattr(error, "problem", None) or error).split())[:200]
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem
