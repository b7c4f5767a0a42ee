"""Simulated time: what a command takes on a real host, scaled, and limits that run out as timeout(1)'s do."""

from __future__ import annotations

import asyncio
import math


class RanOut(Exception):
    """A limit of simulated time was reached; `clock` is the one that ran out."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(f"{clock.limit:g} s are over")
        self.clock = clock


class Clock:
    """A stopwatch in seconds of a real host; one wall second is 1/scale of them, and 0 waits for nothing."""

    def __init__(self, scale: float, limit: float = math.inf, outer: Clock | None = None) -> None:
        self.scale = scale
        self.limit = limit
        self.spent = 0.0
        self.outer = outer

    def within(self, limit: float) -> Clock:
        """Return a clock that runs out after `limit` seconds, or earlier with the clock around it."""
        return Clock(self.scale, limit, self)

    def _chain(self) -> list[Clock]:
        clocks: list[Clock] = []
        clock: Clock | None = self
        while clock is not None:
            clocks.append(clock)
            clock = clock.outer
        return clocks

    async def took(self, seconds: float, *, wall: bool = False) -> None:
        """Let `seconds` pass (`wall`: unscaled); raises RanOut at the limit. Endless time waits without end."""
        chain = self._chain()
        tightest = min(chain, key=lambda clock: clock.limit - clock.spent)
        left = max(0.0, tightest.limit - tightest.spent)
        passed = min(seconds, left)
        if math.isinf(passed):
            await asyncio.Event().wait()
        for clock in chain:
            clock.spent += passed
        scale = 1.0 if wall else self.scale
        if passed * scale > 0:
            await asyncio.sleep(passed * scale)
        if seconds > left:
            raise RanOut(tightest)
