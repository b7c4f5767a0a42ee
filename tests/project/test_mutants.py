"""The mutants take safety rules away, and the page of them is the recorded one."""

from __future__ import annotations

import ast

import pytest

from tests.mutants.operators import mutants
from tests.mutants.page import PAGE, ROOT, page, recorded
from tests.mutants.table import HARMLESS, TESTS, shown_to

SOURCE = """
RULES = (first, second)


class Restarted:
    impact: ClassVar[Impact] = Impact.SERVICE

    async def check(self, on: Host) -> bool:
        if self.joined or on.busy:
            raise Refused("it is in use")
        await self._unused(on)
        return min(on.allowed, Impact.FILES) >= self.least


def refusals(cluster) -> list[str]:
    for rule in cluster.rules:
        if rule.off:
            continue
    return [*names(cluster), *(one for one in cluster.hosts if one.wrong)]
"""
LIST = "[*names(cluster), *(one for one in cluster.hosts if one.wrong)]"
EXPECTED = {
    "Restarted: impact lowered: Impact.SERVICE": "",
    "RULES: row dropped: first": "",
    "RULES: row dropped: second": "",
    "Restarted.check: without `self.joined`: self.joined or on.busy": "if on.busy:",
    "Restarted.check: without `on.busy`: self.joined or on.busy": "if self.joined:",
    'Restarted.check: raise dropped: raise Refused("it is in use")': "if False:\n            raise",
    "Restarted.check: call dropped: await self._unused(on)": "if False:\n        await self._unused(on)",
    "Restarted.check: answer negated: min(on.allowed, Impact.FILES) >= self.least": "return not min(",
    "Restarted.check: bound moved: min(on.allowed, Impact.FILES) >= self.least": "> self.least",
    "Restarted.check: only `on.allowed`: min(on.allowed, Impact.FILES)": "return on.allowed >=",
    "Restarted.check: only `Impact.FILES`: min(on.allowed, Impact.FILES)": "return Impact.FILES >=",
    "refusals: guard off: rule.off": "if False and rule.off:",
    f"refusals: without `*names(cluster)`: {LIST}": "return [*(",
    f"refusals: list emptied: {LIST}": "return []",
    f"refusals: without `*(one for one in cluster.hosts if one.wrong)`: {LIST}": "return [*names(cluster)]",
    "refusals: filter dropped: one.wrong": "if one.wrong or True",
}


def test_each_rule_of_a_module_is_taken_away_once_and_nothing_else_is_changed() -> None:
    found = {one.id: one for one in mutants(SOURCE)}
    assert set(found) == set(EXPECTED)
    whole = ast.unparse(ast.parse(SOURCE)).splitlines()
    for name, text in EXPECTED.items():
        mutated = ast.unparse(found[name].tree)
        assert text in "\n".join(line.removeprefix("    ") for line in mutated.splitlines()), name
        kept = [line for line in whole if line not in mutated.splitlines()]
        assert len(kept) <= 1, name
        compile(found[name].tree, "mutated", "exec")


@pytest.mark.parametrize("file", TESTS)
def test_every_mutated_module_has_mutants_tests_and_reasons_that_still_name_one(file: str) -> None:
    names = {one.id for one in mutants((ROOT / f"{file}.py").read_text(encoding="utf-8"))}
    assert names
    assert set(HARMLESS.get(file, {})) <= names
    for test in shown_to(file):
        assert (ROOT / test).exists()


def test_the_page_is_the_recorded_one_and_explains_every_survivor() -> None:
    results = recorded()
    assert PAGE.read_text(encoding="utf-8") == page(results)
    for one in results:
        assert set(one.survivors) <= set(HARMLESS.get(one.file, {})), one.file
    assert {file for file in HARMLESS if file not in TESTS} == set()
