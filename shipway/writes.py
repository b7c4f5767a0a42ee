"""Files on their way to a host: those that are written in one turn of the event loop travel in one exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from shipway.command import Command
from shipway.errors import ConnectionLost, ShipwayError
from shipway.looks import gathered
from shipway.script import Output

Write = tuple[tuple[Command, ...], asyncio.Future[None]]  # what puts a file in place, and who waits for it


class Writes:
    """The files that are asked for on one host. `send` runs commands up to the first that fails; `failed` names it."""

    def __init__(
        self,
        name: str,
        send: Callable[[Sequence[Command]], Awaitable[list[Output]]],
        failed: Callable[[Command, Output], ShipwayError],
    ) -> None:
        self._name, self._send, self._failed = name, send, failed
        self._asked: list[Write] = []
        self._flushes: set[asyncio.Task[None]] = set()

    async def write(self, commands: tuple[Command, ...]) -> None:
        """Put one file in place; raises what kept it from there."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        if not self._asked:
            task = loop.create_task(self._flush())
            self._flushes.add(task)
            task.add_done_callback(self._flushes.discard)
        self._asked.append((commands, done))
        await done

    async def _flush(self) -> None:
        """Write all that was asked for in this turn, in order; one that fails keeps none of the others back."""
        await gathered(self._asked)
        left, self._asked = self._asked, []
        try:
            while left:
                left = await self._written(left)
        except BaseException as error:
            lost = error if isinstance(error, Exception) else ConnectionLost("a change was cancelled", host=self._name)
            for _, done in left:
                if not done.done():
                    done.set_exception(lost)
                    done.exception()  # a writer that was cancelled must not leave a warning
            if not isinstance(error, Exception):
                raise

    async def _written(self, writes: list[Write]) -> list[Write]:
        """Send the files; give those that were not reached because one before them failed."""
        outputs = await self._send([command for commands, _ in writes for command in commands])
        at = 0
        for index, (commands, done) in enumerate(writes):
            mine = outputs[at : at + len(commands)]
            at += len(mine)
            if mine[-1].ok:
                if not done.done():
                    done.set_result(None)
                continue
            if not done.done():
                done.set_exception(self._failed(commands[len(mine) - 1], mine[-1]))
                done.exception()
            return writes[index + 1 :]
        return []
