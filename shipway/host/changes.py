"""What changes a host, and the look at what it brought about, in one exchange (docs/decisions, 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shipway.facts.fact import Fact, Plan
from shipway.host.exchanges import Exchanges, Words
from shipway.host.looks import Looks
from shipway.script import Output

LOOK_SECONDS = 90.0


class Change:
    """One change of a host by its steps: the facts that are looked at after it, and whether that was done."""

    def __init__(self, facts: Sequence[Fact[Any]] = ()) -> None:
        self.facts = facts
        self.seen = False  # what is known of the host was looked at after the last command of this change


class Changes:
    """What changes one host. After each exchange only what was seen after it is known."""

    def __init__(self, exchanges: Exchanges, looks: Looks) -> None:
        self._exchanges, self._looks = exchanges, looks
        self._begun = self._ended = 0

    async def send(
        self, change: Change, commands: Sequence[Words], *, verb: str, seconds: float, stdin: bytes = b""
    ) -> list[Output]:
        """Send what changes the host, and with it the look at the change's facts; return the commands' outputs.

        Nothing is taken as seen where another exchange changed the host at the same time: nobody's look was certainly
        after both.
        """
        plan, alone = Plan(change.facts), self._begun == self._ended
        change.seen = False
        self._begun += 1
        begun = self._begun
        looked: list[Output] = []
        try:
            outputs = await self._exchanges.send(
                commands,
                verb=verb,
                seconds=seconds + LOOK_SECONDS * bool(change.facts),
                stdin=stdin,
                after=plan.commands,
            )
            looked = outputs[len(commands) :]
            return outputs[: len(commands)]
        finally:
            self._ended += 1
            alone = alone and self._begun == begun
            if change.facts and alone and len(looked) == len(plan.commands):
                self._looks.learn(plan, looked)
                change.seen = True
            else:
                self._looks.forget()
