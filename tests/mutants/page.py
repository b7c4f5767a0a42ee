"""docs/mutants.md: how many mutants each module has, and why those that no test sees are harmless."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.mutants.table import HARMLESS, TESTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "mutants.md"
RECORDED = Path(__file__).with_name("results.jsonl")
HEAD = """# Mutants: would a test see it if a safety rule were gone?

Made by `make mutants`; `make mutants ARGS=--only=drain` runs those of the modules named so and writes their rows again.
In a copy of the tree each rule is taken away once: a refusal is not raised, a guard never holds, a clause or a row of a
table is missing, a bound is moved, a limit is lifted, a list of refusals is empty, a call is left out, or the impact of
a step is lower. One of the tests that run this line must fail then, or not end in four times their usual time. Those
tests are named in `tests/mutants/table.py`; arithmetic, texts and the scripts in them are not mutated. A row tells of
its day: of a module that has changed since, it says nothing of what is new.

| module | tests | mutants | seen by a test | of these by time | survivors | seconds | run on |
|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a module's mutants."""

    file: str
    mutants: int
    late: int  # tests that did not end: seen as well
    survivors: tuple[str, ...]
    seconds: int
    day: str
    left_out: tuple[str, ...] = ()  # tests that failed without any mutant, where it ran

    def line(self) -> str:
        """Return it as a line of the recorded results."""
        return json.dumps(asdict(self), ensure_ascii=False)


def recorded() -> list[Result]:
    """Return the newest result of each module; none where none was recorded."""
    if not RECORDED.exists():
        return []
    lines = RECORDED.read_text(encoding="utf-8").splitlines()
    return [
        Result(**{name: tuple(value) if isinstance(value, list) else value for name, value in one.items()})
        for one in map(json.loads, lines)
    ]


def page(results: Sequence[Result]) -> str:
    """Return the page."""
    rows = [
        f"| `{one.file}.py` | {', '.join(TESTS[one.file])} | {one.mutants} | {one.mutants - len(one.survivors)} | "
        f"{one.late} | {len(one.survivors)} | {one.seconds} | {one.day} |\n"
        for one in results
    ]
    total, left = sum(one.mutants for one in results), sum(len(one.survivors) for one in results)
    late, seconds = sum(one.late for one in results), sum(one.seconds for one in results)
    rows.append(f"| **all** | | {total} | {total - left} | {late} | {left} | {seconds} | |\n")
    if missing := [file for file in TESTS if file not in {one.file for one in results}]:
        rows.append("\nNot run yet: " + ", ".join(f"`{file}.py`" for file in missing) + ".\n")
    if lost := sorted({test for one in results for test in one.left_out}):
        rows.append(
            "\nLeft out, for they fail without any mutant where it ran: "
            + ", ".join(f"`{test}`" for test in lost)
            + ".\n"
        )
    lines = ["\n## Survivors, and why each is harmless\n\n"]
    for one in results:
        if one.survivors:
            lines.append(f"`{one.file}.py`\n\n")
            lines += [f"- `{name}`: {_why(one.file, name)}\n" for name in one.survivors]
            lines.append("\n")
    return HEAD + "".join(rows) + ("".join(lines).rstrip("\n") + "\n" if left else "")


def _why(file: str, name: str) -> str:
    return HARMLESS.get(file, {}).get(name, "**NOT EXPLAINED**")
