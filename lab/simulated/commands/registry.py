"""The programs of a simulated host: functions on word lists, what they are given, and how one runs another."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lab.simulated.clock import Clock
from lab.simulated.files import NoSpace

if TYPE_CHECKING:
    from lab.simulated.host import SimulatedHost

log = logging.getLogger("lab.simulated")
Write = Callable[[bytes], None]


class Input:
    """A script's standard input: each command takes so many bytes of it, or all that is left."""

    def __init__(self, read: Callable[[int], Awaitable[bytes]] | None = None) -> None:
        self._read = read
        self._left = b""

    async def read(self, size: int | None = None) -> bytes:
        """Return all that is left, or `size` bytes of it; waits for no byte more than that."""
        while (size is None or len(self._left) < size) and await self._more():
            pass
        cut = len(self._left) if size is None else size
        given, self._left = self._left[:cut], self._left[cut:]
        return given

    async def line(self) -> bytes:
        """Return the next line with its end; without it where the input ended before."""
        while b"\n" not in self._left and await self._more():
            pass
        head, end, self._left = self._left.partition(b"\n")
        return head + end

    async def _more(self) -> bool:
        """Take some bytes; say whether there were any."""
        got = await self._read(65536) if self._read is not None else b""
        self._left += got
        return bool(got)


@dataclass
class Shell:
    """What the commands of one script leave to those after them."""

    umask: int = 0o022


@dataclass(frozen=True)
class Call:
    """One run of a program: its words, on which host, as which user, and where its output goes."""

    host: SimulatedHost
    words: tuple[str, ...]
    out: Write
    err: Write
    clock: Clock
    user: str = "root"
    stdin: Input = field(default_factory=Input)
    env: tuple[tuple[str, str], ...] = ()
    via: str = "sh"
    shell: Shell = field(default_factory=Shell)

    @property
    def args(self) -> tuple[str, ...]:
        """The words after the program."""
        return self.words[1:]

    @property
    def root(self) -> bool:
        """Whether it runs as root."""
        return self.user == "root"

    def say(self, text: str) -> int:
        """Print to standard output; gives 0."""
        self.out(text.encode())
        return 0

    def warn(self, text: str, status: int = 1) -> int:
        """Print a line to standard error; gives the status."""
        self.err(f"{text}\n".encode())
        return status

    def not_simulated(self) -> int:
        """Refuse what the real program can and this one cannot, aloud: on the lab's standard error too; gives 127."""
        line = " ".join(self.words)[:300]
        log.error("SIMULATED host %s: command not simulated: %s", self.host.name, line)
        self.host.not_simulated.append(line)
        return self.warn(f"SIMULATED host {self.host.name}: not simulated: {line}", 127)

    async def took(self, seconds: float) -> None:
        """Let the time pass that this takes on a real host."""
        await self.clock.took(seconds)

    def like(self, words: Sequence[str], **other: object) -> Call:
        """Return a call of another program in the same place."""
        return replace(self, words=tuple(words), **other)  # type: ignore[arg-type]


# How a program says that the disk is full; Go's programs in Go's words.
_FULL = {
    "dd": "dd: error writing '{path}': No space left on device",
    "cp": "cp: error writing '{path}': No space left on device",
    "install": "install: error writing '{path}': No space left on device",
    "kubeadm": "error execution phase: write {path}: no space left on device",
    "nvidia-ctk": 'level=error msg="unable to flush config: write {path}: no space left on device"',
    "curl": "curl: (23) Failure writing output to destination",
}
Program = Callable[[Call], Awaitable[int]]
PROGRAMS: dict[str, Program] = {}
# Programs that come with a package (any of these names); all others are part of every host.
NEEDS: dict[str, tuple[str, ...]] = {}
BUILT_IN: set[str] = set()  # what a shell does itself, and no other program finds


def program(*names: str, needs: Sequence[str] = (), built_in: bool = False) -> Callable[[Program], Program]:
    """Register a function as the program of these names.

    `needs`: packages of which one must be installed; `built_in`: it is the shell's own, and there is no such program.
    """

    def register(function: Program) -> Program:
        for name in names:
            PROGRAMS[name] = function
            if needs:
                NEEDS[name] = tuple(needs)
            if built_in:
                BUILT_IN.add(name)
        return function

    return register


async def run(call: Call) -> int:
    """Run a program; one that is not there answers as the shell does: 127."""
    path = call.words[0]
    folder, _, name = path.rpartition("/")
    function = (
        PROGRAMS.get(name)
        if folder in ("", "/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/lib/apt")
        else None
    )
    if function is None:
        line = " ".join(call.words)[:300]
        log.error("SIMULATED host %s: command not simulated: %s", call.host.name, line)
        call.host.not_simulated.append(line)
    if function is None or not call.host.has_program(name) or (name in BUILT_IN and call.via != "sh"):
        return call.warn(absent(call, path), 127)
    try:
        return await function(call)
    except NoSpace as error:
        return call.warn(_FULL.get(name, "{name}: {path}: No space left on device").format(name=name, path=error.path))


def absent(call: Call, path: str) -> str:
    """Return the message of a program that is not there, by who was to start it."""
    if call.via == "timeout":
        return f"timeout: failed to run command '{path}': No such file or directory"
    if call.via == "env":
        return f"env: '{path}': No such file or directory"
    if call.via == "sudo":
        return f"sudo: {path}: command not found"
    return f"sh: 1: {path}: not found"
