"""Trying again inside a stage: the inner of the two retry layers, for what a second try a moment later may mend.

The outer layer is the stage's Prefect task (tasks.run_stage.RETRIES). There are no others, so what is called through
here is tried at most ATTEMPTS x (1 + RETRIES) = 3 x 3 = 9 times in a run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

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
) -> T:
    """Return what the action gives, tried again while its error says that this can help.

    Waits a random time up to `first`, 2 x `first`, ... `most` seconds between tries, so that many hosts do not come
    back in step; no try starts after `seconds`. Raises the last error as it is.
    """
    trying = AsyncRetrying(
        retry=retry_if_exception(may_pass),
        stop=stop_after_attempt(attempts) | stop_after_delay(seconds),
        wait=wait_random_exponential(multiplier=first, max=most),
        reraise=True,
    )

    async def once() -> T:  # tenacity awaits only what it sees to be a coroutine function, and a lambda is none
        return await action()

    return await trying(once)
