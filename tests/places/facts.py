"""A host that is nothing but what is known of it: for checks that are pure functions of facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shipway.facts.fact import Fact
from shipway.facts.files import FileText, Listing
from shipway.facts.services import UnitInfo, UnitState
from shipway.host.session import Command
from shipway.os.families import family_of
from shipway.ownership.evidence import PODS
from shipway.place import Place
from shipway.script import Output

DEBIAN = family_of("debian")
NOT_THERE = Output(127, "", "not there")
NO_UNIT = UnitInfo("not-found", "inactive", "dead", "", 0, needs_reload=False)


def said(text: str, status: int = 0) -> Output:
    """Return the output of a command that printed this."""
    return Output(status, text, "")


def unit(active: str = "active") -> UnitInfo:
    """Return the state of an installed unit."""
    return UnitInfo("loaded", active, "running", "enabled", 1, needs_reload=False)


class KnownFacts(Place):
    """Answers the facts it was given; to all others it has no such file, program, unit or package."""

    name = "te1"

    def __init__(self, facts: Mapping[Fact[Any], Any]) -> None:
        self.facts = dict(facts)
        self.asked: list[Fact[Any]] = []
        self.done: list[str] = []
        self.written: dict[str, str] = {}

    async def read(self, *facts: Fact[Any]) -> Any:
        """Return the values, one of one fact."""
        values = await self.read_all(facts)
        return values[0] if len(facts) == 1 else tuple(values)

    async def read_all(self, facts: Sequence[Fact[Any]]) -> list[Any]:
        """Return the values in order."""
        self.asked += facts
        return [self.facts[fact] if fact in self.facts else _nothing(fact) for fact in facts]

    async def do(self, *commands: Command) -> list[Output]:
        """Keep what was to be done."""
        self.done += [" ".join(command.words) for command in commands]
        return [Output(0, "", "") for _ in commands]

    async def write(self, path: str, content: bytes, **_: str) -> None:
        """Keep what was to be written."""
        self.written[path] = content.decode()

    async def operate(self, name: str, words: Sequence[str], **_: int) -> Output:
        """Keep what was to be run; it ends well."""
        return await self.succeed(name, words)

    async def succeed(self, name: str, words: Sequence[str], **_: int) -> Output:
        """Keep what was to be run."""
        self.done.append(f"{name}: {' '.join(words)}")
        return Output(0, "", "")


def _nothing(fact: Fact[Any]) -> Any:
    if isinstance(fact, UnitState):
        return NO_UNIT
    if isinstance(fact, FileText):
        return None
    if isinstance(fact, Listing):
        return ()
    if fact == PODS:
        return Output(0, "", "")
    try:
        path = getattr(fact, "path", "")
        return fact.parse(Output(1, "", f"{path}: No such file or directory") if path else NOT_THERE)
    except NotImplementedError:
        return None
