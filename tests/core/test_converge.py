"""Converging, on things in memory: no result is reported by a look that is older than the last change before it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipway.converge import EARLIER_FAILED, converge, look_at_all, wait_until
from shipway.errors import ApiUnavailable, Blocked, DeadlineExceeded, Refused, ShipwayError
from shipway.place import Place
from shipway.step import Check, Drift, Impact, Step, StepResult


@dataclass
class Thing(Place):
    """Facts that are as wanted or not; every look and change is noted."""

    wanted: dict[int, bool]
    looks: list[int] = field(default_factory=list)
    riding: list[list[int]] = field(default_factory=list)
    name: str = "thing"

    @contextmanager
    def changing(self, about: Sequence[object]) -> Iterator[Self]:
        """Note which steps' looks may ride with the change."""
        self.riding.append([step.number for step in about if isinstance(step, Fixed)])
        yield self


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

    async def apply(self, on: Thing) -> None:
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
    """Return steps that may mend and spoil each other; those that are changed together leave each other alone."""
    together = [draw(st.booleans()) for _ in range(STEPS)]
    steps = []
    for number in range(STEPS):
        near = {other for other in range(STEPS) if together[number] and together[other]} | {number}
        mends, spoils = draw(numbers) - near, draw(numbers) - near
        impact = draw(st.sampled_from([Impact.FILES, Impact.SERVICE]))
        steps.append(Fixed(number, mends, spoils, together[number], impact))
    return steps


@given(lists_of_steps(), st.lists(st.booleans(), min_size=STEPS, max_size=STEPS))
def test_every_result_tells_how_it_is_when_it_is_reported(steps: list[Fixed], start: list[bool]) -> None:
    on = Thing(dict(enumerate(start)))
    heard: list[tuple[str, bool]] = []
    results = asyncio.run(
        converge(steps, on, Impact.FILES, lambda result: heard.append((result.outcome, on.wanted[len(heard)])))
    )
    assert [outcome for outcome, _ in heard] == [result.outcome for result in results]
    for outcome, right in heard:
        assert outcome in ("unknown", "failed") or right == (outcome in ("ok", "changed")), heard
    assert all(
        outcome != "drifted" for (outcome, _), step in zip(heard, steps, strict=True) if step.impact is Impact.FILES
    )


@dataclass(frozen=True)
class Answering:
    """A check that answers one after the other, and the last for ever."""

    answers: list[Drift | ShipwayError | None]
    name: str = "it is so"

    async def check(self, on: Thing) -> Drift | None:
        """Answer."""
        on.looks.append(len(self.answers))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, ShipwayError):
            raise answer
        return answer


@dataclass(frozen=True)
class Holding(Fixed):
    """A step that says itself why it may not be applied for now."""

    why: str = ""

    async def hold(self, on: Thing) -> str:
        """Return the reason."""
        del on
        return self.why


@pytest.mark.parametrize(("why", "outcome"), [("pods use it", "drifted"), ("", "changed")])
def test_a_step_that_says_that_it_may_not_be_applied_now_is_not(why: str, outcome: str) -> None:
    on = Thing({0: False})
    assert [result.outcome for result in run([Holding(0, why=why)], on)] == [outcome]
    assert on.wanted == {0: outcome == "changed"}


def test_what_only_looks_is_reported_as_drift_and_nothing_is_applied_for_it() -> None:
    on = Thing({0: False})
    results = run([Answering([Drift("a", "b")]), Fixed(0)], on)
    assert [(one.outcome, one.impact) for one in results] == [
        ("drifted", Impact.NOTHING),
        ("changed", Impact.FILES),
    ]
    assert on.riding == [[0]]


@dataclass(frozen=True)
class Unseen(Answering):
    """A step beside others that cannot be looked at."""

    together: bool = True
    impact: Impact = Impact.FILES

    async def apply(self, on: Thing) -> None:
        """Fail: nobody knows what to change."""
        raise AssertionError(on)


def test_after_a_look_that_failed_nothing_is_changed_not_even_what_would_be_changed_together_with_it() -> None:
    on = Thing({0: False, 1: False})
    steps: list[Check[Thing]] = [Fixed(0, together=True), Unseen([Refused("no")]), Fixed(1, together=True)]
    results = run(steps, on)
    assert [one.outcome for one in results] == ["changed", "failed", "unknown"]
    assert on.wanted == {0: True, 1: False}
    error = results[2].error
    assert error is not None
    assert error.message == EARLIER_FAILED


def test_what_is_more_than_allowed_is_changed_with_none_of_those_beside_it() -> None:
    on = Thing({0: False, 1: False, 2: False})
    steps = [Fixed(n, together=True, impact=Impact.SERVICE if n == 1 else Impact.FILES) for n in range(3)]
    assert [one.outcome for one in run(steps, on)] == ["changed", "drifted", "changed"]
    assert on.riding == [[0, 1], [2]]
    assert on.wanted == {0: True, 1: False, 2: True}


def test_what_is_more_than_allowed_and_as_wanted_keeps_none_of_those_beside_it_waiting() -> None:
    on = Thing({0: False, 1: True, 2: False})
    steps = [Fixed(n, together=True, impact=Impact.SERVICE if n == 1 else Impact.FILES) for n in range(3)]
    assert [one.outcome for one in run(steps, on)] == ["changed", "ok", "changed"]
    assert on.riding == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("allow", "error", "outcome"),
    [
        (Impact.NOTHING, Blocked("not yet"), "unknown"),
        (Impact.FILES, Blocked("not yet"), "failed"),
        (Impact.NOTHING, Refused("never"), "failed"),
        (Impact.FILES, Refused("never"), "failed"),
    ],
)
def test_only_a_plan_takes_what_cannot_be_reported_yet_for_unknown(
    allow: Impact, error: ShipwayError, outcome: str
) -> None:
    assert [one.outcome for one in run([Answering([error])], Thing({}), allow)] == [outcome]


def test_looking_changes_nothing_hides_nothing_behind_a_failure_and_tells_all() -> None:
    on, heard = Thing({0: False}), list[StepResult]()
    steps: list[Check[Thing]] = [Answering([Refused("no")]), Fixed(0)]
    results = asyncio.run(look_at_all(steps, on, heard.append))
    assert [one.outcome for one in results] == ["failed", "drifted"]
    assert (heard, on.wanted) == (results, {0: False})


WAITED = Drift("0 of 1", "1 of 1")


def wait(check: Answering, on: Thing, seconds: float = 5.0, every: float = 0.0) -> list[str]:
    said: list[str] = []
    asyncio.run(wait_until(check, on, seconds=seconds, every=every, on_wait=said.append))
    return said


def test_a_wait_ends_with_the_first_look_that_is_as_wanted_and_says_each_thing_seen_once() -> None:
    answers = [WAITED, WAITED, Blocked("not yet"), ApiUnavailable("gone"), None, WAITED]
    assert wait(Answering(answers), Thing({})) == [
        "waiting until it is so: 0 of 1",
        "waiting until it is so: not yet",
        "waiting until it is so: gone",
    ]


def test_what_does_not_pass_ends_a_wait_at_once() -> None:
    with pytest.raises(Refused, match="never"):
        wait(Answering([WAITED, Refused("never"), None]), Thing({}))


def test_a_wait_has_an_end_and_says_what_was_seen_last() -> None:
    with pytest.raises(DeadlineExceeded, match="last seen: 0 of 1"):
        wait(Answering([WAITED]), Thing({}), seconds=0.05)


def test_a_wait_pauses_between_its_looks_and_each_look_is_a_new_one() -> None:
    class Forgetful(Thing):
        def forget(self) -> None:
            """Note it."""
            self.looks.append(-1)

    on = Forgetful({})
    with pytest.raises(DeadlineExceeded):
        wait(Answering([WAITED]), on, seconds=0.05, every=0.2)
    assert on.looks == [-1, 1]


@pytest.mark.parametrize(("every", "expected"), [(1.0, [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]), (0.05, [0.05] * 6)])
def test_a_wait_looks_again_at_once_and_then_ever_more_rarely_and_never_pauses_longer_than_it_was_told(
    monkeypatch: pytest.MonkeyPatch, every: float, expected: list[float]
) -> None:
    """What was so after a moment had cost a whole pause."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("shipway.converge.asyncio.sleep", sleep)
    wait(Answering([WAITED] * 6 + [None]), Thing({}), every=every)
    assert pauses == expected


class Hanging:
    """A look that shows something once, and then never comes back."""

    name = "it is so"

    def __init__(self) -> None:
        self.looks = 0

    async def check(self, on: Thing) -> Drift | None:  # noqa: ARG002 - a check's signature
        """Return once, then hang."""
        self.looks += 1
        if self.looks > 1:
            await asyncio.Event().wait()
        return Drift("not yet", "so")


async def test_the_deadline_of_a_wait_bounds_its_look_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """An API that took the request and never answered kept a wait of seconds until its stage was cut off."""
    monkeypatch.setattr("shipway.converge.LAST_LOOK_SECONDS", 0.1)
    async with asyncio.timeout(10):
        with pytest.raises(DeadlineExceeded, match="last seen: not yet; then a look that did not end"):
            await wait_until(Hanging(), Thing({}), seconds=0.2, every=0.01)


class Slow(Hanging):
    """A look that takes its time, and then sees what is wanted."""

    async def check(self, on: Thing) -> Drift | None:  # noqa: ARG002 - a check's signature
        """Return late."""
        await asyncio.sleep(0.3)


async def test_a_look_that_began_just_before_the_deadline_may_end() -> None:
    await wait_until(Slow(), Thing({}), seconds=0.1)


async def test_a_look_that_takes_longer_than_the_last_one_may_is_not_cut_off_before_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shipway.converge.LAST_LOOK_SECONDS", 0.05)
    await wait_until(Slow(), Thing({}), seconds=30)


async def test_a_timeout_of_the_look_itself_is_no_end_of_the_wait() -> None:
    class Late(Hanging):
        async def check(self, on: Thing) -> Drift | None:  # noqa: ARG002 - a check's signature
            """Raise what a program's own fault raises."""
            raise TimeoutError("a fault of the program")

    with pytest.raises(TimeoutError, match="a fault of the program"):
        await wait_until(Late(), Thing({}), seconds=5, every=0.01)
