"""A report of indented names and values, as a GPU's program prints it; its verdict: ok, sick, or not judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Values = Mapping[tuple[str, ...], str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is made of one GPU's report, and why; what is not told, or told in unknown words, is `not judged`."""

    word: Literal["ok", "sick", "not judged"]
    why: str = ""


def read_sections(text: str) -> dict[str, Values]:
    """Return by heading (a line at the left edge without a value) the values below it, by the names they are under."""
    found: dict[str, dict[tuple[str, ...], str]] = {}
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
            found.setdefault(above[0][1], {})
        elif above:
            found[above[0][1]][*(one for _, one in above[1:]), name] = value
    return {heading: values for heading, values in found.items() if values}
