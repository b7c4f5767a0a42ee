"""A cluster file's text read as YAML: its data, the line of every value, and a refusal of what no one should write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from shipway.errors import Refused
from shipway.foreign.yaml import Loader, has_leading_zero

LARGEST = 1024 * 1024  # bytes; a thousand hosts with labels take a tenth of it
DEEPEST = 40  # levels; the model has six, kubelet's configuration a few more
MOST_VALUES = 200_000  # aliases may stand for many values: a few lines could ask for billions
CODE = "SHW-120"
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
SYNTAX = "Correct that place in the cluster file (an editor with YAML support shows it), then run again."
# YAML's own words, and plainer ones.
PLAINER = {
    "found another document": "a second document begins here (---): a cluster file is one",
    "could not determine a constructor": "a tag (!...) stands here: a cluster file holds plain values",
    "did not find expected ',' or": "the list or mapping before this place is not closed, or a comma is missing",
    "did not find expected key": "a key is expected here: look at the indentation, and at quotes left open",
    "mapping values are not allowed": "a colon stands where no key can be: look at the line above and the indentation",
    "could not find expected ':'": "a key without a colon and a blank after it",
}
PathPart = str | int
Path = tuple[PathPart, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """What a file says: plain data, and the line (from 1) that each key or item stands on."""

    where: str
    data: dict[str, Any]
    lines: dict[Path, int] = field(default_factory=dict)
    twice: tuple[tuple[Path, int], ...] = ()

    def line(self, path: Path) -> int | None:
        """Return the line of a value, or None where the file does not hold it."""
        return self.lines.get(path)

    def nearest(self, path: Path) -> int | None:
        """Return the line of a value or of the closest thing around it that the file holds."""
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
        raise Refused(f"{where} is not YAML: {_one_line(error, text)}", code=CODE, fix=SYNTAX) from error
    if not isinstance(data, dict):
        found = "empty" if data is None else "a list" if isinstance(data, list) else "a single value"
        message = f"{where} is {found}; a cluster file is a mapping with at least `name` and `hosts`"
        raise Refused(message, code=CODE, fix="Start from the two lines `name: demo` and `hosts: [10.0.0.1]`.")
    return Source(where, data, lines, tuple(twice))


def _read(text: str, where: str) -> tuple[Any, dict[Path, int], list[tuple[Path, int]]]:
    """Return the data, the lines and the keys that stand twice."""
    _limit_depth(text, where)
    loader = Loader(text)
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
        _plain_numbers(node)
        return loader.construct_document(node), lines, twice
    finally:
        loader.dispose()


def _limit_depth(text: str, where: str) -> None:
    """Count levels before anything is built from them: building recurses, and C code would crash on 100,000."""
    depth = 0
    for event in yaml.parse(text, Loader=Loader):
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            depth += 1
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise _too_deep(where)


def _too_deep(where: str) -> Refused:
    return Refused(f"{where} is nested more than {DEEPEST} levels deep", code=CODE)


def _walk(node: yaml.Node, path: Path) -> Iterator[tuple[Path, int, bool]]:
    """Yield the path, line and "stands twice" of everything under a node; an alias of itself ends by its depth."""
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


def _plain_numbers(root: yaml.Node) -> None:
    """Refuse a number with a zero in front: `port: 022` is 18 to every reader of YAML, and 22 to whoever wrote it."""
    found: list[yaml.Node] = [root]
    seen: set[int] = set()
    while found:
        one = found.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, yaml.MappingNode):
            found += [part for pair in one.value for part in pair]
        elif isinstance(one, yaml.SequenceNode):
            found += one.value
        elif isinstance(one, yaml.ScalarNode) and one.tag in NUMBERS and not one.style and has_leading_zero(one.value):
            said, plain = one.value[:40], one.value.lstrip("+-0_")[:40] or "0"
            message = f"{said} has a zero in front, octal to YAML: write {plain}, or 0o{plain} where octal is meant"
            raise yaml.MarkedYAMLError(problem=message, problem_mark=one.start_mark)


def _one_line(error: Exception, text: str) -> str:
    """Return what is wrong in one line, with the line number first; YAML's own words where there are none of ours."""
    mark = getattr(error, "problem_mark", None)
    problem = " ".join(str(getattr(error, "problem", None) or error).split())[:200]
    if mark is None:
        return problem
    line = [*text.splitlines(), "", ""][mark.line]
    if "\t" in line[: mark.column + 1]:
        problem = "a tab cannot indent: use blanks"
    said = next((ours for theirs, ours in PLAINER.items() if theirs in problem), problem)
    return f"line {mark.line + 1}, column {mark.column + 1}: {said}"
