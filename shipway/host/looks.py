"""What is known of a host: equal facts share an answer, all asked in one turn of the event loop share an exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from shipway.errors import ConnectionLost
from shipway.facts.fact import Fact, Plan, Words
from shipway.script import Output

T = TypeVar("T")
Future = asyncio.Future[Any]
Noted = dict[Fact[Any], None]  # facts, in the order they were read
TURNS = 3  # of the event loop: a check may gather two looks that gather facts


async def gather_turns(asked: Sequence[object]) -> None:
    """Wait some turns of the event loop, until nobody adds to what is asked."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
    seen = 0
    while seen != len(asked):
        seen = len(asked)
        await asyncio.sleep(0)


class Looks:
    """The facts known of one host, and those that were asked and are on their way.

    `ask` carries commands that only look to the host and gives one output a command; it raises a ShipwayError.
    """

    def __init__(self, name: str, ask: Callable[[Sequence[Words]], Awaitable[list[Output]]]) -> None:
        self._name, self._ask = name, ask
        self._noted: dict[int, Noted] = {}  # what each step's last look read, by the step's identity
        self._known: dict[Fact[Any], Future] = {}
        self._asked: list[tuple[Fact[Any], Future]] = []
        self._flushes: set[asyncio.Task[None]] = set()

    async def read_all(self, facts: Sequence[Fact[T]], noted: Noted) -> list[T]:
        """Return the values of the facts, in their order, and note them; raises what kept from reading them."""
        loop = asyncio.get_running_loop()
        wanted = []
        for fact in facts:
            noted[fact] = None
            if fact not in self._known:
                self._known[fact] = loop.create_future()
                if not self._asked:
                    task = loop.create_task(self._flush())
                    self._flushes.add(task)
                    task.add_done_callback(self._flushes.discard)
                self._asked.append((fact, self._known[fact]))
            wanted.append(self._known[fact])
        # One after the other: they come together anyway, and gather() costs as much as all else here.
        return [one.result() if one.done() else await asyncio.shield(one) for one in wanted]

    def noted(self, step: object) -> Noted:
        """Return the place where a new look of a step notes what it reads; what its last look read is dropped."""
        self._noted[id(step)] = {}
        return self._noted[id(step)]

    def looked_at(self, steps: Sequence[object]) -> list[Fact[Any]]:
        """Return the facts that the last looks of these steps read, each once."""
        return list({fact: None for step in steps for fact in self._noted.get(id(step), ())})

    def forget(self) -> None:
        """Drop every fact known so far: the next read looks anew; who asked before still gets an answer."""
        self._known = {}

    def learn(self, plan: Plan, outputs: Sequence[Output]) -> None:
        """Know only these facts from now on. What cannot be read is not known: whoever asks for it gets the reason."""
        self.forget()
        try:
            answers = plan.answers(outputs)
        except Exception:  # noqa: BLE001 - said to whoever reads that fact, by the look that they then cause
            return
        for fact, value in answers.items():
            self._known[fact] = asyncio.get_running_loop().create_future()
            self._known[fact].set_result(value)

    async def _flush(self) -> None:
        """Answer all facts asked in this turn with one exchange."""
        asked: list[tuple[Fact[Any], Future]] = []
        try:
            await gather_turns(self._asked)
            asked, self._asked = self._asked, []
            plan = Plan([fact for fact, _ in asked])
            answers = plan.answers(await self._ask(plan.commands))
        except BaseException as error:
            if not asked:
                asked, self._asked = self._asked, []
            self._fail(asked, error)
            if not isinstance(error, Exception):
                raise
            return
        for fact, future in asked:
            if not future.done():
                future.set_result(answers[fact])

    def _fail(self, asked: Sequence[tuple[Fact[Any], Future]], error: BaseException) -> None:
        """Raise the error for all who asked; the next read of these facts looks again."""
        failed = error if isinstance(error, Exception) else ConnectionLost("the look was cancelled", host=self._name)
        for fact, future in asked:
            if self._known.get(fact) is future:
                del self._known[fact]
            if not future.done():
                future.set_exception(failed)
                future.exception()  # whoever asked gets it; a reader that was cancelled must not leave a warning
