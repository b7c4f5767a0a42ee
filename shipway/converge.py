"""Converge: look at every step, apply what drifted and is allowed, look again; a plan is allowed nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from shipway.errors import Blocked, DeadlineExceeded, PostconditionFailed, ShipwayError
from shipway.step import Check, Drift, Impact, Step, StepResult, can_change


class Looked(Protocol):
    """What steps act on: it can forget what it knew, so that the next look is a real one."""

    name: str

    def forget(self) -> None:
        """Drop what is known."""

    def changing(self) -> AbstractContextManager[None]:
        """Within it a change is made; afterwards nothing is known that was not seen after that change."""


On = TypeVar("On", bound=Looked)
Look = Drift | ShipwayError | None


async def _look(step: Check[On], on: On) -> Look:
    """Give the drift, or None, or the error that kept from telling."""
    try:
        return await step.check(on)
    except ShipwayError as error:
        return error.at(host=on.name, step=step.name)


async def converge(
    steps: Sequence[Check[On]], on: On, allow: Impact, told: Callable[[StepResult], None] = lambda _: None
) -> list[StepResult]:
    """Bring `on` to what the steps want, as far as `allow` goes; give one result a step, in order.

    All steps are looked at together first. The first step that fails ends it (later ones build on earlier ones): their
    results say `unknown`. `told` hears each result as it is known. Errors are results, not raised.
    """
    results: list[StepResult] = []
    async for result in _results(steps, on, allow):
        told(result)
        results.append(result)
    return results


async def _results(steps: Sequence[Check[On]], on: On, allow: Impact) -> AsyncIterator[StepResult]:
    """Give the results one by one; after a change, what was changed and all later steps are looked at anew at once."""
    looks: list[Look] = list(await asyncio.gather(*(_look(step, on) for step in steps)))
    failed, index = False, 0
    while index < len(steps):
        step = steps[index]
        if failed:
            yield StepResult(step.name, "unknown", _impact(step), error=Blocked("an earlier step failed"))
            index += 1
            continue
        batch, started = _batch(steps[index:], looks[index:], allow), time.monotonic()
        before, errors = looks[index : index + len(batch)], await _applied(batch, looks[index:], on, allow)
        if None in errors.values():
            looks[index:] = await asyncio.gather(*(_look(later, on) for later in steps[index:]))
        for at, one in enumerate(batch):
            seen = before[at]
            if at in errors and isinstance(seen, Drift) and can_change(one):
                took = time.monotonic() - started
                result = _changed(one, on, seen, errors[at] or looks[index + at], took)
            else:
                result = _told(one, looks[index + at], allow)
            failed = failed or result.outcome == "failed"
            yield result
        index += len(batch)


def _batch(steps: Sequence[Check[On]], looks: Sequence[Look], allow: Impact) -> Sequence[Check[On]]:
    """Give the first step, with those after it that can be changed at the same time: files, each one on its own."""
    count = 0
    for step, seen in zip(steps, looks, strict=True):
        alone = not getattr(step, "together", False)
        if isinstance(seen, ShipwayError) or (seen is not None and (alone or _impact(step) > allow)):
            break
        count += 1
    return steps[: count or 1]


async def _applied(
    batch: Sequence[Check[On]], looks: Sequence[Look], on: On, allow: Impact
) -> dict[int, ShipwayError | None]:
    """Apply what drifted of a batch, as far as it is allowed; give, by place, what became of each that was applied."""
    drifted = [
        (at, step, seen)
        for at, (step, seen) in enumerate(zip(batch, looks, strict=False))
        if isinstance(seen, Drift) and can_change(step) and step.impact <= allow
    ]
    if not drifted:
        return {}
    with on.changing():
        errors = await asyncio.gather(*(_apply(step, on, seen) for _, step, seen in drifted))
    return dict(zip((at for at, _, _ in drifted), errors, strict=True))


async def looked_at(
    steps: Sequence[Check[On]], on: On, told: Callable[[StepResult], None] = lambda _: None
) -> list[StepResult]:
    """Give what each step sees, changing nothing; unlike a plan, no failure hides what comes after it."""
    looks = await asyncio.gather(*(_look(step, on) for step in steps))
    results = [_told(step, seen, Impact.NOTHING) for step, seen in zip(steps, looks, strict=True)]
    for result in results:
        told(result)
    return results


def _impact(step: Check[On]) -> Impact:
    return step.impact if can_change(step) else Impact.NOTHING


def _told(step: Check[On], seen: Look, allow: Impact) -> StepResult:
    """Give the result of a step that is not applied."""
    if seen is None:
        return StepResult(step.name, "ok", _impact(step))
    if isinstance(seen, Drift):
        return StepResult(step.name, "drifted", _impact(step), drift=seen)
    unknown = isinstance(seen, Blocked) and allow is Impact.NOTHING
    return StepResult(step.name, "unknown" if unknown else "failed", _impact(step), error=seen)


async def _apply(step: Step[On], on: On, drift: Drift) -> ShipwayError | None:
    """Apply; give the error, if any, with its place filled in."""
    try:
        await step.apply(on, drift)
    except ShipwayError as error:
        return error.at(host=on.name, step=step.name)
    return None


def _changed(step: Step[On], on: On, drift: Drift, again: Look, seconds: float) -> StepResult:
    """Give the result of a step that was applied, by what the second look saw."""
    if again is None:
        return StepResult(step.name, "changed", step.impact, drift, seconds=seconds)
    if isinstance(again, Drift):
        message = f"applied, and yet: {again}"
        again = PostconditionFailed(message, host=on.name, step=step.name)
    return StepResult(step.name, "failed", step.impact, drift, again, seconds)


async def wait_until(
    check: Check[On], on: On, *, seconds: float, every: float = 2.0, told: Callable[[str], None] = lambda _: None
) -> None:
    """Look again and again until the check is as wanted; a permanent error ends it at once.

    Raises DeadlineExceeded after `seconds` with the last thing seen.
    """
    last = "nothing seen yet"
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        on.forget()
        seen = await _look(check, on)
        if seen is None:
            return
        if isinstance(seen, ShipwayError) and not (seen.may_retry or isinstance(seen, Blocked)):
            raise seen
        said = str(seen.have if isinstance(seen, Drift) else seen.message)
        if said != last:
            told(f"{check.name}: {said}")
            last = said
        await asyncio.sleep(every)
    message = f"not so after {seconds:.0f} s; last seen: {last}"
    raise DeadlineExceeded(message, host=on.name, step=check.name)
