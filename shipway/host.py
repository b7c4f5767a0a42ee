"""A host session: facts read in bulk over one connection, commands that change, operations that outlive a lost link."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, overload

from shipway.catalogue import failure
from shipway.errors import ConnectionLost, DeadlineExceeded, ShipwayError, Transient
from shipway.facts.fact import Fact, Plan
from shipway.facts.services import UnitState
from shipway.redact import tail
from shipway.script import Output, compose, split

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

LOOK_SECONDS = 90.0
TURNS = 3  # of the event loop: a check may gather two looks that gather facts
OPERATIONS = "/run/shipway"
AT_WORK = ("active", "activating", "deactivating")


class Shell(Protocol):
    """What carries a script to a host as root and brings back its output; `shipway.ssh` has the real one."""

    async def script(self, text: str, *, stdin: bytes = b"", seconds: float) -> tuple[str, str]:
        """Run the script under `sh`; give standard output and error; raises a ShipwayError when the link fails."""

    async def forward(self, address: str, port: int) -> int:
        """Give a local port on loopback that leads to address:port as seen from the host."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command that changes something: words, what to feed it, and its own limit in seconds."""

    words: tuple[str, ...]
    seconds: int = 60

    def bounded(self) -> tuple[str, ...]:
        """Give the words under timeout(1), so that a command never outlives its limit on the host."""
        return ("timeout", "-k", "10", str(self.seconds), *self.words)


class Host:
    """One host for the length of a run: `read` looks (never changes), `do`, `write` and `operate` change."""

    def __init__(self, name: str, shell: Shell) -> None:
        self.name = name
        self.round_trips = 0
        self._shell = shell
        self._known: dict[Fact[Any], asyncio.Future[Any]] = {}
        self._asked: list[tuple[Fact[Any], asyncio.Future[Any]]] = []
        self._flushes: set[asyncio.Task[None]] = set()

    @overload
    async def read(self, a: Fact[A], /) -> A: ...
    @overload
    async def read(self, a: Fact[A], b: Fact[B], /) -> tuple[A, B]: ...
    @overload
    async def read(self, a: Fact[A], b: Fact[B], c: Fact[C], /) -> tuple[A, B, C]: ...
    @overload
    async def read(self, a: Fact[A], b: Fact[B], c: Fact[C], d: Fact[D], /) -> tuple[A, B, C, D]: ...

    async def read(self, *facts: Fact[Any]) -> Any:
        """Give the values of the facts; all facts asked in one turn of the event loop cost one round trip.

        Raises Unreachable, ConnectionLost or DeadlineExceeded.
        """
        values = await self.read_all(facts)
        return values[0] if len(facts) == 1 else tuple(values)

    async def read_all(self, facts: Sequence[Fact[T]]) -> list[T]:
        """Give the values of any number of facts, in their order."""
        loop = asyncio.get_running_loop()
        wanted = []
        for fact in facts:
            if fact not in self._known:
                self._known[fact] = loop.create_future()
                if not self._asked:
                    task = loop.create_task(self._flush())
                    self._flushes.add(task)
                    task.add_done_callback(self._flushes.discard)
                self._asked.append((fact, self._known[fact]))
            wanted.append(asyncio.shield(self._known[fact]))
        return list(await asyncio.gather(*wanted))

    def forget(self) -> None:
        """Drop every fact known so far: the next read looks anew; who asked before still gets an answer."""
        self._known = {}

    async def _flush(self) -> None:
        """Answer all facts asked in this turn with one script."""
        asked: list[tuple[Fact[Any], asyncio.Future[Any]]] = []
        try:
            await self._gather_askers()
            asked, self._asked = self._asked, []
            plan = Plan([fact for fact, _ in asked])
            answers = plan.answers(await self._exchange(plan.commands, verb="r", seconds=LOOK_SECONDS))
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

    async def _gather_askers(self) -> None:
        """Wait some turns of the event loop, until no further check of the stage asks for a fact."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
        seen = 0
        while seen != len(self._asked):
            seen = len(self._asked)
            await asyncio.sleep(0)

    def _fail(self, asked: Sequence[tuple[Fact[Any], asyncio.Future[Any]]], error: BaseException) -> None:
        """Give the error to all who asked; the next read of these facts looks again."""
        failed = error if isinstance(error, Exception) else ConnectionLost("the look was cancelled", host=self.name)
        for fact, future in asked:
            if self._known.get(fact) is future:
                del self._known[fact]
            if not future.done():
                future.set_exception(failed)
                future.exception()  # whoever asked gets it; a reader that was cancelled must not leave a warning

    async def _exchange(
        self, commands: Sequence[Sequence[str]], *, verb: str, seconds: float, stdin: bytes = b""
    ) -> list[Output]:
        """Send one script, give one output a command; a script cut short raises ConnectionLost."""
        text, boundary = compose(commands, verb=verb)
        self.round_trips += 1
        try:
            outputs = split(boundary, *await self._shell.script(text, stdin=stdin, seconds=seconds))
        except ShipwayError as error:
            raise error.at(host=self.name) from error.__cause__
        except ValueError as error:
            raise ConnectionLost(f"the host's answer cannot be read ({error})", host=self.name) from error
        complete = len(outputs) == len(commands) or (verb == "d" and outputs and not outputs[-1].ok)
        if not complete:
            message = f"only {len(outputs)} of {len(commands)} commands answered"
            raise ConnectionLost(message, host=self.name)
        return outputs

    async def do(self, *commands: Command, stdin: bytes = b"") -> list[Output]:
        """Run commands in order, ending at the first that fails; every fact is forgotten.

        Raises CommandFailed (with the catalogue's cause and fix where it knows the output), DeadlineExceeded for a
        command that ran out of its time, ConnectionLost when it is not known what took effect.
        """
        try:
            limit = sum(command.seconds for command in commands) + 30
            words = [command.bounded() for command in commands]
            outputs = await self._exchange(words, verb="d", seconds=limit, stdin=stdin)
        finally:
            self.forget()
        last, command = outputs[-1], commands[len(outputs) - 1]
        if not last.ok:
            raise self._failed(command.words, last, command.seconds)
        return outputs

    def _failed(self, words: Sequence[str], output: Output, seconds: int) -> ShipwayError:
        """Give the error for a command that did not end with 0."""
        what = " ".join(words[:4])
        said = tail(output.stderr) or tail(output.stdout) or "no output"
        if output.status in (124, 137):
            message = f"`{what}` did not end within {seconds} s; last output: {said}"
            return DeadlineExceeded(message, host=self.name)
        return failure(what, output, host=self.name)

    async def write(self, path: str, content: bytes, *, mode: str = "644", owner: str = "root:root") -> None:
        """Put a file in place in one rename, private until it is complete; parent directories are made.

        The content goes through a file that is 0600 from its first byte. Raises as `do`.
        """
        fresh = f"{path}.shipway-new"
        await self.do(
            Command(("install", "-D", "-m", "600", "/dev/null", fresh)),
            Command(("dd", f"of={fresh}", "status=none")),
            Command(("chown", owner, fresh)),
            Command(("chmod", mode, fresh)),
            Command(("mv", "-fT", fresh, path)),
            stdin=content,
        )

    async def operate(self, name: str, words: Sequence[str], *, seconds: int, marker: str = "") -> Output:
        """Run a long command as a transient systemd unit `shipway-NAME`, and give its exit status and joined output.

        The unit lives on when the link breaks or the controller dies, and its name is a lock: where an earlier run's
        unit still works, this waits for its end and raises Transient, so that the caller looks again before it acts.
        A `marker` file is removed by the unit itself when the command succeeds: it tells an interrupted operation.
        Raises DeadlineExceeded after `seconds`.
        """
        unit, log = f"shipway-{name}", f"{OPERATIONS}/{name}.log"
        if marker:
            words = ("sh", "-c", '"$@" && rm -f -- "$0"', marker, *words)
        await self.settled(name, seconds=seconds)
        run = (
            *("systemd-run", "--quiet", "--collect", "--wait", f"--unit={unit}"),
            *("-p", f"RuntimeMaxSec={seconds}", "-p", f"StandardOutput=append:{log}"),
            *("-p", f"StandardError=append:{log}", "-p", "UMask=0077"),
            *("--setenv=LC_ALL=C", "--setenv=DEBIAN_FRONTEND=noninteractive", "--setenv=NEEDRESTART_MODE=l"),
            *("--setenv=HOME=/root", "--", *words),
        )
        prepare = ("install", "-d", "-m", "700", OPERATIONS)
        commands = [prepare, ("rm", "-f", log), run, ("cat", log), ("rm", "-f", log)]
        try:
            outputs = await self._exchange(commands, verb="r", seconds=seconds + 60)
        finally:
            self.forget()
        _, _, ran, said, _ = outputs
        if not ran.ok and "already" in ran.stderr and unit in ran.stderr:
            raise Transient(f"another run started {unit} at the same moment", host=self.name, code="SHW-205")
        return Output(ran.status, said.stdout, ran.stderr)

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
        """Give a local port on loopback that leads through this host to address:port."""
        try:
            return await self._shell.forward(address, port)
        except ShipwayError as error:
            raise error.at(host=self.name) from error.__cause__
