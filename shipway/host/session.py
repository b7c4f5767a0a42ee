"""A host session: facts read in bulk over one connection, commands that change, operations that outlive a lost link.

What a change brought about is looked at in the exchange that brings it about: see `Host.changing`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any, Self, TypeVar, overload

from shipway.errors import DeadlineExceeded, ShipwayError, Transient
from shipway.facts.fact import Fact, Words
from shipway.facts.services import UnitState
from shipway.host.changes import LOOK_SECONDS, Change, Changes
from shipway.host.command import Command, File
from shipway.host.exchanges import Exchanges, Shell
from shipway.host.looks import Looks, Noted
from shipway.host.operation import OPERATIONS, read_end, start_unit
from shipway.host.writes import Writes
from shipway.known_failures.catalogue import failure
from shipway.place import Place
from shipway.redact import tail
from shipway.script import Output

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

__all__ = ["AT_WORK", "LOOK_SECONDS", "OPERATIONS", "Command", "Host", "Shell"]
AT_WORK = ("active", "activating", "deactivating")


class Host(Place):
    """One host for the length of a run: `read` looks (never changes), `do`, `write` and `operate` change.

    What `seen_by` and `changing` return is the same host for one look or one change, over the same connection.
    """

    def __init__(self, name: str, shell: Shell) -> None:
        self.name = name
        self._exchanges = Exchanges(name, shell)
        self._looks = Looks(name, self._look)
        self._changes = Changes(self._exchanges, self._looks)
        self.noted: Noted = {}  # what was read through this one
        self.serve(Change())

    def serve(self, change: Change) -> None:
        """Send from here on what belongs to this change."""
        self._change = change
        self._writes = Writes(self.name, self._sent, self._failed)  # a change's files travel with what it looks at

    @property
    def round_trips(self) -> int:
        """How many exchanges there were with this host."""
        return self._exchanges.count

    @property
    def shell(self) -> Shell:
        """What carries the scripts."""
        return self._exchanges.shell

    @overload
    async def read(self, a: Fact[A], /) -> A: ...
    @overload
    async def read(self, a: Fact[A], b: Fact[B], /) -> tuple[A, B]: ...
    @overload
    async def read(self, a: Fact[A], b: Fact[B], c: Fact[C], /) -> tuple[A, B, C]: ...
    @overload
    async def read(self, a: Fact[A], b: Fact[B], c: Fact[C], d: Fact[D], /) -> tuple[A, B, C, D]: ...

    async def read(self, *facts: Fact[Any]) -> Any:
        """Return the values of the facts; all facts asked in one turn of the event loop cost one round trip.

        Raises Unreachable, ConnectionLost or DeadlineExceeded.
        """
        values = await self.read_all(facts)
        return values[0] if len(facts) == 1 else tuple(values)

    async def read_all(self, facts: Sequence[Fact[T]]) -> list[T]:
        """Return the values of any number of facts, in their order."""
        return await self._looks.read_all(facts, self.noted)

    def forget(self) -> None:
        """Drop every fact known so far: the next read looks anew; who asked before still gets an answer."""
        self._looks.forget()

    def seen_by(self, step: object) -> Self:
        """Return this host for one look of a step; what is read through it rides with the change: see `changing`."""
        seen = copy(self)
        seen.noted = self._looks.noted(step)
        return seen

    @contextlib.contextmanager
    def changing(self, about: Sequence[object]) -> Iterator[Self]:
        """Yield this host for one change, which also looks again at what the last looks of these steps read.

        That costs no exchange of its own. Afterwards only what was seen after the last command is known.
        """
        changed = copy(self)
        changed.serve(change := Change(self._looks.looked_at(about)))
        try:
            yield changed
        finally:
            if not change.seen:
                self._looks.forget()

    async def _look(self, commands: Sequence[Words]) -> list[Output]:
        return await self._exchanges.send(commands, verb="r", seconds=LOOK_SECONDS)

    async def do(self, *commands: Command) -> list[Output]:
        """Run commands in order, ending at the first that fails; every fact from before is forgotten.

        Raises CommandFailed (with the catalogue's cause and fix where it knows the output), DeadlineExceeded for a
        command that ran out of its time, ConnectionLost when it is not known what took effect.
        """
        outputs = await self._sent(commands)
        last, command = outputs[-1], commands[len(outputs) - 1]
        if not last.ok:
            raise self._failed(command, last)
        return outputs

    async def _sent(self, commands: Sequence[Command]) -> list[Output]:
        """Run commands up to the first that fails; return the outputs of those that ran."""
        limit = sum(command.seconds for command in commands) + 30
        words, feed = [command.bounded() for command in commands], b"".join(command.feed for command in commands)
        return await self._changes.send(self._change, words, verb="d", seconds=limit, stdin=feed)

    def _failed(self, command: Command, output: Output) -> ShipwayError:
        """Return the error for a command that did not end with 0."""
        what = " ".join(command.words[:4])
        said = tail(output.stderr) or tail(output.stdout) or "no output"
        if output.status in (124, 137):
            message = f"`{what}` did not end within {command.seconds} s; last output: {said}"
            return DeadlineExceeded(message, host=self.name)
        return failure(what, output, host=self.name)

    async def write(self, path: str, content: bytes, *, mode: str = "644", owner: str = "root:root") -> None:
        """Put a file in place in one rename, private until it is complete; parent directories are made.

        Files that are written in the same turn of the event loop travel in one exchange, in the order they were asked
        for; one that fails keeps none of the others from its place. Raises as `do`.
        """
        await self._writes.write(File(path, content, mode, owner))

    async def operate(self, name: str, words: Sequence[str], *, seconds: int, marker: str = "") -> Output:
        """Run a long command as a transient systemd unit `shipway-NAME`, and return its exit status and joined output.

        The unit lives on when the link breaks or the controller dies, and its name is a lock: where an earlier run's
        unit still works, this waits for its end and raises Transient, so that the caller looks again before it acts.
        A `marker` file is removed by the unit itself when the command succeeds: it tells an interrupted operation.
        Raises DeadlineExceeded after `seconds`, and Stopped where it was ended from outside.
        """
        unit = f"shipway-{name}"
        if marker:
            words = ("sh", "-c", '"$@" && rm -f -- "$0"', marker, *words)
        await self.settled(name, seconds=seconds)
        sent = start_unit(unit, words, seconds)
        outputs = await self._changes.send(self._change, sent, verb="r", seconds=seconds + 60)
        return read_end(unit, outputs, host=self.name)

    async def settled(self, *names: str, seconds: int) -> None:
        """Wait until no earlier run's operation of these names is at work; ask it before deciding what is half done.

        Raises Transient (SHW-205) where one was, so that the caller looks again; DeadlineExceeded after `seconds`.
        """
        units, seen = [UnitState(f"shipway-{name}.service") for name in names], ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while busy := [unit.unit for unit, now in await self._states(units) if now in AT_WORK]:
                    seen = busy[0].removesuffix(".service")
                    self.forget()
                    await asyncio.sleep(2)
            if not seen:
                return
            message = f"{seen} of an earlier run was still at work; it has ended, so look again"
            raise Transient(message, host=self.name, code="SHW-205", fix="Nothing to do: the step looks again.")
        message = f"{seen} of an earlier run is still at work after {seconds} s"
        raise DeadlineExceeded(
            message, host=self.name, fix=f"See `systemctl status {seen}` and its journal on the host."
        )

    async def _states(self, units: Sequence[UnitState]) -> list[tuple[UnitState, str]]:
        return [(unit, state.active) for unit, state in zip(units, await self.read_all(units), strict=True)]

    async def succeed(self, name: str, words: Sequence[str], *, seconds: int) -> Output:
        """`operate`, and raise CommandFailed unless the exit status is 0."""
        output = await self.operate(name, words, seconds=seconds)
        if not output.ok:
            raise failure(" ".join(words[:3]), output, host=self.name)
        return output

    async def forward(self, address: str, port: int) -> int:
        """Return a local port on loopback that leads through this host to address:port."""
        try:
            return await self.shell.forward(address, port)
        except ShipwayError as error:
            raise error.at(host=self.name) from error.__cause__
