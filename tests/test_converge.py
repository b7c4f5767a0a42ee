"""Converging, on things in memory: no result is told by a look that is older than the last change before it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from shipway.converge import converge
from shipway.step import Check, Drift, Impact, Step, StepResult


@dataclass
class Thing:
    """Facts that are as wanted or not; every look and change is noted."""

    wanted: dict[int, bool]
    looks: list[int] = field(default_factory=list)
    riding: list[list[int]] = field(default_factory=list)
    name: str = "thing"

    def forget(self) -> None:
        """Nothing is known."""

    def looking(self, step: object) -> None:
        """Nobody needs to hear it."""

    @contextmanager
    def changing(self, about: Sequence[object]) -> Iterator[None]:
        """Note which steps' looks may ride with the change."""
        self.riding.append([step.number for step in about if isinstance(step, Fixed)])
        yield


@dataclass(frozen=True)
class Fixed:
    """Fact `number` is as wanted; to make it so turns the facts `mends` right and the facts `spoils` wrong."""

    number: int
    mends: frozenset[int] = frozenset()
    spoils: frozenset[int] = frozenset()
    together: bool = False
    impact: Impact = Impact.FILES

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.number} is right"

    async def check(self, on: Thing) -> Drift | None:
        """Look."""
        on.looks.append(self.number)
        return None if on.wanted[self.number] else Drift("wrong", "right")

    async def apply(self, on: Thing, drift: Drift) -> None:  # noqa: ARG002 - there is one way to be wrong
        """Make it right, with what else that does."""
        on.wanted.update(dict.fromkeys(self.spoils, False) | dict.fromkeys(self.mends, True) | {self.number: True})


def run(steps: Sequence[Check[Thing]], on: Thing, allow: Impact = Impact.FILES) -> list[StepResult]:
    return asyncio.run(converge(steps, on, allow))


def test_a_change_is_followed_by_a_look_at_it_and_at_all_up_to_the_next_that_will_be_changed() -> None:
    on = Thing({0: False, 1: True, 2: False, 3: True})
    assert [result.outcome for result in run([Fixed(n) for n in range(4)], on)] == ["changed", "ok", "changed", "ok"]
    assert on.looks == [0, 1, 2, 3, 0, 1, 2, 2, 3]
    assert on.riding == [[0, 1, 2], [2, 3]]


def test_each_step_asks_for_its_permit_when_its_turn_comes_not_when_the_run_began() -> None:
    on = Thing({0: False, 1: False, 2: False})
    asked: list[str] = []

    async def until_one(step: Step[Thing]) -> Impact:
        asked.append(f"{step.name} with {on.wanted[0]}")
        return Impact.NOTHING if on.wanted[0] else Impact.FILES

    results = asyncio.run(converge([Fixed(n) for n in range(3)], on, Impact.FILES, permit=until_one))
    assert [result.outcome for result in results] == ["changed", "drifted", "drifted"]
    assert asked == ["0 is right with False", "1 is right with True", "2 is right with True"]
    assert on.wanted == {0: True, 1: False, 2: False}


def test_a_permit_never_lets_more_happen_than_the_run_allows() -> None:
    on = Thing({0: False})

    async def all_of_it(_: Step[Thing]) -> Impact:
        return Impact.WORKLOADS

    (result,) = asyncio.run(converge([Fixed(0, impact=Impact.SERVICE)], on, Impact.FILES, permit=all_of_it))
    assert (result.outcome, on.wanted) == ("drifted", {0: False})


def test_what_a_change_spoiled_is_put_right_before_what_comes_after_it() -> None:
    on = Thing({0: False, 1: True, 2: True})
    steps = [Fixed(0, spoils=frozenset({1, 2})), Fixed(1), Fixed(2)]
    assert [result.outcome for result in run(steps, on)] == ["changed", "changed", "changed"]


def test_where_a_change_mended_the_next_step_too_all_that_are_left_are_looked_at_anew() -> None:
    on = Thing({0: False, 1: False, 2: True, 3: True})
    steps = [Fixed(0, mends=frozenset({1}), spoils=frozenset({3})), Fixed(1), Fixed(2), Fixed(3)]
    assert [result.outcome for result in run(steps, on)] == ["changed", "ok", "ok", "changed"]


STEPS = 6
numbers = st.frozensets(st.integers(0, STEPS - 1), max_size=3)


@st.composite
def lists_of_steps(draw: st.DrawFn) -> list[Fixed]:
    """Give steps that may mend and spoil each other; those that are changed together leave each other alone."""
    together = [draw(st.booleans()) for _ in range(STEPS)]
    steps = []
    for number in range(STEPS):
        near = {other for other in range(STEPS) if together[number] and together[other]} | {number}
        mends, spoils = draw(numbers) - near, draw(numbers) - near
        impact = draw(st.sampled_from([Impact.FILES, Impact.SERVICE]))
        steps.append(Fixed(number, mends, spoils, together[number], impact))
    return steps


@given(lists_of_steps(), st.lists(st.booleans(), min_size=STEPS, max_size=STEPS))
def test_every_result_tells_how_it_is_when_it_is_told(steps: list[Fixed], start: list[bool]) -> None:
    on = Thing(dict(enumerate(start)))
    told: list[tuple[str, bool]] = []
    results = asyncio.run(
        converge(steps, on, Impact.FILES, lambda result: told.append((result.outcome, on.wanted[len(told)])))
    )
    assert [outcome for outcome, _ in told] == [result.outcome for result in results]
    for outcome, right in told:
        assert outcome in ("unknown", "failed") or right == (outcome in ("ok", "changed")), told
    assert all(
        outcome != "drifted" for (outcome, _), step in zip(told, steps, strict=True) if step.impact is Impact.FILES
    )
