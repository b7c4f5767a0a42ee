"""A host that is a dictionary of files and one of packages, with a package manager in front of them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from shipway.facts.fact import Fact
from shipway.facts.files import FileInfo, FileState, FileText, Listing
from shipway.host.session import Command
from shipway.known_failures.catalogue import failure
from shipway.ownership.evidence import PODS
from shipway.place import Place
from shipway.script import Output

Words = tuple[str, ...]


@dataclass
class Installed:
    """A package that is on the machine."""

    version: str
    held: bool = False
    sound: bool = True


@dataclass
class Machine(Place):
    """Answers facts and commands; a subclass has the programs of its package manager in `program`.

    `busy` is how often another package manager still holds the lock; `removes` names what goes where a package comes;
    `served` is what an address answers.
    """

    release: str
    packages: dict[str, Installed] = field(default_factory=dict)
    offered: dict[str, list[str]] = field(default_factory=dict)  # newest first
    files: dict[str, bytes] = field(default_factory=dict)
    removes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    served: dict[str, bytes] = field(default_factory=dict)
    security: tuple[str, ...] = ()  # of which packages the newest is a security update
    changed: dict[str, int] = field(default_factory=dict)  # when packages were installed
    needs: dict[str, str] = field(default_factory=dict)  # packages whose newest one needs a newer other one
    worker: str = ""  # the package manager that is at work now
    fetched: set[str] = field(default_factory=set)  # what lies there and is not installed
    busy: int = 0
    strict: bool = True  # a program that nobody expected is a fault of the test
    name: str = "te1"
    ran: list[Words] = field(default_factory=list)
    read_paths: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.files["/etc/os-release"] = self.release.encode()

    def program(self, words: Words) -> Output:
        """Run a program of the package manager; a change raises BlockingIOError where the lock is held."""
        raise NotImplementedError

    def unknown(self, words: Words) -> Output:
        """Answer what a program that is not there does, where that may be."""
        assert not self.strict, words
        return Output(127, "", "not found")

    def locked(self) -> None:
        """Count down how long the lock is held."""
        if self.busy:
            self.busy -= 1
            raise BlockingIOError

    LOCK_SAID: ClassVar[str] = ""  # what its package manager says then

    def run(self, words: Sequence[str]) -> Output:
        """Run one command and keep it, without the limit around it."""
        words = tuple(words)
        if words[:2] == ("timeout", "-k"):
            words = words[4:]
        self.ran.append(words)
        match words:
            case ("uname", "-m"):
                return Output(0, "x86_64\n", "")
            case ("rm", "-f", *paths):
                for path in paths:
                    self.files.pop(path, None)
                return Output(0, "", "")
            case ("install", "-d", *_):
                return Output(0, "", "")
            case ("base64", "-w0", *_, path):
                return Output(0, base64.b64encode(self.files.get(path, b"")).decode(), "")
        try:
            return self.program(words)
        except BlockingIOError:
            return Output(100, "", self.LOCK_SAID)

    async def read(self, *facts: Fact[Any]) -> Any:
        """Return the values, one of one fact."""
        values = await self.read_all(facts)
        return values[0] if len(facts) == 1 else tuple(values)

    async def read_all(self, facts: Sequence[Fact[Any]]) -> list[Any]:
        """Return the values in order."""
        return [self._value(fact) for fact in facts]

    def _value(self, fact: Fact[Any]) -> Any:
        if isinstance(fact, FileText | FileState | Listing):
            self.read_paths.append(fact.path)
        if isinstance(fact, FileText):
            found = self.files.get(fact.path)
            return None if found is None else found.decode()
        if isinstance(fact, FileState):
            found = self.files.get(fact.path)
            return None if found is None else FileInfo(hashlib.sha256(found).hexdigest(), "644", "root:root", 1)
        if isinstance(fact, Listing):
            folder = f"{fact.path.rstrip('/')}/"
            return tuple(path.removeprefix(folder) for path in sorted(self.files) if path.startswith(folder))
        if fact == PODS:
            return Output(0, "", "")
        return fact.answer_all([fact], [self.run(words) for words in fact.ask_all([fact])])[0]

    async def do(self, *commands: Command) -> list[Output]:
        """Run commands up to the first that fails, whose error is raised."""
        return [self._succeeded(command.words) for command in commands]

    async def succeed(self, name: str, words: Sequence[str], *, seconds: int) -> Output:
        """Run a long command."""
        del name, seconds
        return self._succeeded(words)

    def _succeeded(self, words: Sequence[str]) -> Output:
        output = self.run(words)
        if not output.ok:
            raise failure(" ".join(words[:3]), output, host=self.name)
        return output

    async def write(self, path: str, content: bytes, *, mode: str = "644", owner: str = "root:root") -> None:
        """Put a file in place."""
        del mode, owner
        self.files[path] = content

    def install(self, asked: Sequence[str], *, only: Sequence[str] = ()) -> list[str]:
        """Install `NAME` or `NAME=VERSION`; return what goes for it. `only` is what may go, () for anything."""
        wanted = [(name, version) for name, _, version in (one.partition("=") for one in asked)]
        gone = [other for name, _ in wanted for other in self.removes.get(name, ()) if other in self.packages]
        if only and not set(gone) <= set(only):
            return gone
        for other in gone:
            del self.packages[other]
        for name, version in wanted:
            self.packages[name] = Installed(version or self.offered[name][0], held=self._held(name))
        return gone

    def newer(self) -> dict[str, str]:
        """Return what an upgrade of everything would bring, by name."""
        return {
            name: self.offered[name][0]
            for name, one in self.packages.items()
            if not self._held(name)
            and not self._held(self.needs.get(name, ""))
            and self.offered.get(name, [one.version])[0] != one.version
        }

    def upgrade(self, without: Sequence[str] = ()) -> None:
        """Bring every package to the newest version offered, but held ones and those named."""
        for name, one in self.packages.items():
            if name in self.newer() and name not in without:
                one.version = self.offered[name][0]

    def _held(self, name: str) -> bool:
        return name in self.packages and self.packages[name].held
