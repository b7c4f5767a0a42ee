"""Files on their way to a host: those that are written in one turn of the event loop travel in one exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from shipway.errors import ConnectionLost, ShipwayError
from shipway.host.command import Command, File, place_files
from shipway.host.looks import gather_turns
from shipway.script import Output

Write = tuple[File, asyncio.Future[None]]  # a file, and who waits for it


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

    async def write(self, file: File) -> None:
        """Put one file in place; raises what kept it from there."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        if not self._asked:
            task = loop.create_task(self._flush())
            self._flushes.add(task)
            task.add_done_callback(self._flushes.discard)
        self._asked.append((file, done))
        await done

    async def _flush(self) -> None:
        """Write all that was asked for in this turn, in order; one that fails keeps none of the others back."""
        await gather_turns(self._asked)
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
        """Send the files; return those that were not reached because another one failed."""
        waiting: dict[str, Write] = {}
        for write in writes:
            waiting.setdefault(write[0].path, write)
        again = [write for write in writes if waiting[write[0].path] is not write]  # one path, one file at a time
        parts = place_files([file for file, _ in waiting.values()])
        outputs = await self._send([command for command, _ in parts])
        for (command, files), output in zip(parts, outputs, strict=False):
            if output.ok and command.words[0] == "mv" and not (done := waiting.pop(files[0].path)[1]).done():
                done.set_result(None)
        if outputs[-1].ok:
            return again
        command, files = parts[len(outputs) - 1]
        failed = [waiting.pop(file.path) for file in files]
        if len(failed) > 1:  # which of them it was shows when each is tried alone
            for write in failed:
                await self._written([write])
        elif not (done := failed[0][1]).done():
            done.set_exception(self._failed(command, outputs[-1]))
            done.exception()
        return [*waiting.values(), *again]
