"""Trying again inside a stage: the inner of the two retry layers, for what a second try a moment later may mend.

The outer layer is the stage's Prefect task (tasks.run_stage.RETRIES), so what is called through `patiently` with its
defaults is tried at most ATTEMPTS x (1 + RETRIES) = 3 x 3 = 9 times in a run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_fixed,
    wait_random_exponential,
)
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from shipway.errors import ShipwayError

T = TypeVar("T")

ATTEMPTS = 3


def may_pass(error: BaseException) -> bool:
    """Say whether trying again can help: the error itself tells."""
    return isinstance(error, ShipwayError) and error.may_retry


async def patiently(
    action: Callable[[], Awaitable[T]],
    *,
    attempts: int = ATTEMPTS,
    first: float = 0.5,
    most: float = 8.0,
    seconds: float = 60.0,
    when: Callable[[BaseException], bool] = may_pass,
) -> T:
    """Return what the action returns, tried again while `when` says of its error that this can help.

    Waits a random time up to `first`, 2 x `first`, ... `most` seconds between tries, so that many hosts do not come
    back in step; no try starts after `seconds`. Raises the last error as it is.
    """
    wait = wait_random_exponential(multiplier=first, max=most)
    return await _try(action, wait, stop_after_attempt(attempts) | stop_after_delay(seconds), when)


async def steadily(
    action: Callable[[], Awaitable[T]], *, every: float, seconds: float, when: Callable[[BaseException], bool]
) -> T:
    """Return what the action returns, tried again every so many seconds while `when` says that this can help.

    No try starts after `seconds`. Raises the last error as it is.
    """
    return await _try(action, wait_fixed(every), stop_after_delay(seconds), when)


async def _try(
    action: Callable[[], Awaitable[T]], wait: wait_base, stop: stop_base, when: Callable[[BaseException], bool]
) -> T:
    trying = AsyncRetrying(retry=retry_if_exception(when), stop=stop, wait=wait, reraise=True)

    async def once() -> T:  # tenacity awaits only what it sees to be a coroutine function, and a lambda is none
        return await action()

    return await trying(once)
