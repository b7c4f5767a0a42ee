"""A report of indented names and values, as a GPU's program prints it; its verdict: ok, sick, or not judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Row = tuple[str, ...]
Values = Mapping[Row, str]
TWICE = "told in two ways"  # in place of a value that a report has twice, and not alike


class Rows(Mapping[Row, str]):
    """Values by the names that they are under, in whatever case a driver writes these."""

    def __init__(self) -> None:
        self._told: dict[Row, tuple[Row, str]] = {}

    def add(self, row: Row, value: str) -> None:
        """Keep a value; one that is there already and differs makes both worth nothing."""
        key = _fold(row)
        known = self._told.get(key)
        self._told[key] = (row, value if known is None or known[1] == value else TWICE)

    def __getitem__(self, row: Row) -> str:
        return self._told[_fold(row)][1]

    def __iter__(self) -> Iterator[Row]:
        return (row for row, _ in self._told.values())

    def __len__(self) -> int:
        return len(self._told)


def _fold(row: Row) -> Row:
    return tuple(name.casefold() for name in row)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is made of one GPU's report, and why; what is not told, or told in unknown words, is `not judged`."""

    word: Literal["ok", "sick", "not judged"]
    why: str = ""


def read_sections(text: str) -> dict[str, Values]:
    """Return by heading (a line at the left edge without a value) the values below it, by the names they are under."""
    found: dict[str, Rows] = {}
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        name, colon, value = (part.strip() for part in line.partition(" : "))
        if not name:
            continue
        depth = len(line) - len(line.lstrip())
        while above and above[-1][0] >= depth:
            above.pop()
        if not colon:
            above.append((depth, name))
            found.setdefault(above[0][1], Rows())
        elif above:
            found[above[0][1]].add((*(one for _, one in above[1:]), name), value)
    return {heading: values for heading, values in found.items() if values}
