"""Converge: look at every step, apply what drifted and is allowed, look again; a plan is allowed nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from shipway.errors import Blocked, DeadlineExceeded, PostconditionFailed, ShipwayError
from shipway.place import Place
from shipway.step import Check, Drift, Impact, Outcome, Step, StepResult, can_change, id_of, restart_of

On = TypeVar("On", bound=Place)
Look = Drift | ShipwayError | None
FIRST_PAUSE = 0.1  # seconds
LAST_LOOK_SECONDS = 5.0  # many times what a look at a host or the API takes
EARLIER_FAILED = "an earlier step failed"  # why those after it are unknown
Permit = Callable[[Step[Any]], Awaitable[Impact]]


async def _holds(step: Step[On], on: On) -> bool:
    """Tell whether a step says itself, right before it is applied, that it may not be now (`hold`, with the reason)."""
    hold = getattr(step, "hold", None)
    return hold is not None and bool(await hold(on))


async def _look(step: Check[On], on: On) -> Look:
    """Return the drift, or None, or the error that kept from telling."""
    try:
        return await step.check(on.seen_by(step))
    except ShipwayError as error:
        return error.at(host=on.name, step=step.name)


async def _no_less(step: Step[Any]) -> Impact:  # noqa: ARG001 - a permit's signature
    """Let every step do what the run allows."""
    return Impact.WORKLOADS


async def converge(
    steps: Sequence[Check[On]],
    on: On,
    allow: Impact,
    on_result: Callable[[StepResult], None] = lambda _: None,
    permit: Permit = _no_less,
) -> list[StepResult]:
    """Bring `on` to what the steps want, as far as `allow` goes; return one result a step, in order.

    All steps are looked at together first. The first step that fails ends it (later ones build on earlier ones): their
    results say `unknown`. `on_result` is called with each result as soon as it is known. `permit` is asked right before
    a step is applied: what was allowed when the run began may not be any more, for a window closed, or pods started.
    Errors are results, not raised.
    """
    results: list[StepResult] = []
    async for result in _results(steps, on, allow, permit):
        on_result(result)
        results.append(result)
    return results


async def _results(steps: Sequence[Check[On]], on: On, allow: Impact, permit: Permit) -> AsyncIterator[StepResult]:
    """Yield the results one by one, each by a look that is younger than the last change before it.

    After a change, what was changed is looked at anew at once, with all from there to the next step that will be
    changed. Later looks are old from then on (`fresh` says from where): where that step needs no change any more, all
    that are left are looked at anew.
    """
    looks = await _looks(steps, on)
    failed, index, fresh = False, 0, len(steps)
    while index < len(steps):
        step = steps[index]
        if failed:
            yield _result(step, "unknown", error=Blocked(EARLIER_FAILED))
            index += 1
            continue
        if index == fresh:
            looks[index:], fresh = await _looks(steps[index:], on), len(steps)
        batch, started = _batch(steps[index:fresh], looks[index:fresh], allow), time.monotonic()
        end = index + len(batch)
        before, errors = looks[index:end], dict[int, ShipwayError | None]()
        wanted = _choose(batch, before, allow)
        if drifted := [one for one in wanted if one[1].impact <= await permit(one[1]) and not await _holds(one[1], on)]:
            later = _next(steps[end:], looks[end:], allow)
            errors = await _apply_all(drifted, on, [*batch, *later])
            if None in errors.values():
                fresh = end + len(later)
                looks[index:fresh] = await _looks(steps[index:fresh], on)
        for at, one in enumerate(batch):
            seen = before[at]
            if at in errors and isinstance(seen, Drift) and can_change(one):
                took = time.monotonic() - started
                result = _result_of_change(one, on, seen, errors[at] or looks[index + at], took)
            else:
                result = _result_of_look(one, looks[index + at], allow)
            failed = failed or result.outcome == "failed"
            yield result
        index = end


async def _looks(steps: Sequence[Check[On]], on: On) -> list[Look]:
    return list(await asyncio.gather(*(_look(step, on) for step in steps)))


def _next(steps: Sequence[Check[On]], looks: Sequence[Look], allow: Impact) -> Sequence[Check[On]]:
    """Return the steps up to the next that is not as wanted, with those that would be changed together with it."""
    first = next((at for at, seen in enumerate(looks) if seen is not None), len(steps))
    return steps[: first + len(_batch(steps[first:], looks[first:], allow))]


def _batch(steps: Sequence[Check[On]], looks: Sequence[Look], allow: Impact) -> Sequence[Check[On]]:
    """Return the first step, with those after it that can be changed at the same time: files, each one on its own."""
    count = 0
    for step, seen in zip(steps, looks, strict=True):
        alone = not getattr(step, "together", False)
        if alone or isinstance(seen, ShipwayError) or (seen is not None and _impact(step) > allow):
            break  # one that is as wanted now may be spoiled by those before it, unless it is such a file too
        count += 1
    return steps[: count or 1]


def _choose(batch: Sequence[Check[On]], looks: Sequence[Look], allow: Impact) -> list[tuple[int, Step[On], Drift]]:
    """Return what of a batch is to be applied, with its place: what drifted, as far as that is allowed."""
    return [
        (at, step, seen)
        for at, (step, seen) in enumerate(zip(batch, looks, strict=True))
        if isinstance(seen, Drift) and can_change(step) and step.impact <= allow
    ]


async def _apply_all(
    drifted: Sequence[tuple[int, Step[On], Drift]], on: On, about: Sequence[Check[On]]
) -> dict[int, ShipwayError | None]:
    """Apply what drifted; return by place what became of each. `about` are the steps that are looked at afterwards."""
    with on.changing(about) as changed:
        errors = await asyncio.gather(*(_apply(step, changed) for _, step, _ in drifted))
    return dict(zip((at for at, _, _ in drifted), errors, strict=True))


async def look_at_all(
    steps: Sequence[Check[On]], on: On, on_result: Callable[[StepResult], None] = lambda _: None
) -> list[StepResult]:
    """Return what each step sees, changing nothing; unlike a plan, no failure hides what comes after it."""
    looks = await _looks(steps, on)
    results = [_result_of_look(step, seen, Impact.NOTHING) for step, seen in zip(steps, looks, strict=True)]
    for result in results:
        on_result(result)
    return results


def _impact(step: Check[On]) -> Impact:
    return step.impact if can_change(step) else Impact.NOTHING


def _result(
    step: Check[On],
    outcome: Outcome,
    drift: Drift | None = None,
    error: ShipwayError | None = None,
    seconds: float = 0.0,
) -> StepResult:
    return StepResult(step.name, outcome, _impact(step), drift, error, seconds, restart_of(step), id_of(step))


def _result_of_look(step: Check[On], seen: Look, allow: Impact) -> StepResult:
    """Return the result of a step that is not applied."""
    if seen is None:
        return _result(step, "ok")
    if isinstance(seen, Drift):
        return _result(step, "drifted", seen)
    unknown = isinstance(seen, Blocked) and allow is Impact.NOTHING
    return _result(step, "unknown" if unknown else "failed", error=seen)


async def _apply(step: Step[On], on: On) -> ShipwayError | None:
    """Apply; return the error, if any, with its place filled in."""
    try:
        await step.apply(on)
    except ShipwayError as error:
        return error.at(host=on.name, step=step.name)
    return None


def _result_of_change(step: Step[On], on: On, drift: Drift, again: Look, seconds: float) -> StepResult:
    """Return the result of a step that was applied, by what the second look saw."""
    if again is None:
        return _result(step, "changed", drift, seconds=seconds)
    if isinstance(again, Drift):
        message = f"applied, and yet: {again}"
        again = PostconditionFailed(message, host=on.name, step=step.name)
    return _result(step, "failed", drift, again, seconds)


async def wait_until(
    check: Check[On], on: On, *, seconds: float, every: float = 2.0, on_wait: Callable[[str], None] = lambda _: None
) -> None:
    """Look again and again until the check is as wanted; a permanent error ends it at once.

    The first looks follow each other closely, for much is so within a moment; then one comes every so many seconds.
    Raises DeadlineExceeded after `seconds` with the last thing seen. A look that hangs is cut off then as well; one
    that has only just begun is given `LAST_LOOK_SECONDS`.
    """
    last, pause = "nothing seen yet", FIRST_PAUSE
    started = time.monotonic()
    while (left := started + seconds - time.monotonic()) > 0:
        on.forget()
        try:
            async with asyncio.timeout(max(left, LAST_LOOK_SECONDS)) as limit:
                seen = await _look(check, on)
        except TimeoutError:
            if not limit.expired():
                raise
            last = f"{last}; then a look that did not end"
            break
        if seen is None:
            return
        if isinstance(seen, ShipwayError) and not (seen.may_retry or isinstance(seen, Blocked)):
            raise seen
        said = str(seen.have if isinstance(seen, Drift) else seen.message)
        if said != last:
            on_wait(f"waiting until {check.name}: {said}")
            last = said
        await asyncio.sleep(min(pause, every))
        pause *= 2
    message = f"not so after {seconds:.0f} s; last seen: {last}"
    raise DeadlineExceeded(message, host=on.name, step=check.name)
