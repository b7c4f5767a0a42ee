"""The work as a stage of Shipway's: its own steps for files, edits and facts, and one for a guarded command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from shipway.edits.files import FileEdited, FileIs
from shipway.edits.lines import fstab_without_swap, with_block
from shipway.facts.files import FileState, FileText
from shipway.host.session import Command, Host
from shipway.step import Check, Drift, Impact
from tests.bench.work import FACTS, HOSTS_LINES, NODE, Work, files, guarded


@dataclass(frozen=True)
class CommandRan:
    """A command has run, as its flag shows."""

    impact: ClassVar[Impact] = Impact.FILES
    flag: str
    seconds: float

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.flag} is there"

    async def check(self, on: Host) -> Drift | None:
        """Look for the flag."""
        return None if await on.read(FileState(self.flag)) else Drift("no flag", self.flag)

    async def apply(self, on: Host) -> None:
        """Run it."""
        await on.do(Command(("sleep", str(self.seconds))), Command(("touch", self.flag), brief=True))


@dataclass(frozen=True)
class FactKnown:
    """A fact of the host can be read."""

    path: str

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.path} is known"

    async def check(self, on: Host) -> Drift | None:
        """Read it."""
        return None if await on.read(FileText(self.path)) else Drift("nothing", "a text")


def _block(text: str) -> str:
    return with_block(text, list(HOSTS_LINES))


def steps(work: Work) -> list[Check[Host]]:
    """Return the steps of one host, in order."""
    return [
        *(FileIs(f"{path} is as wanted", path, text) for path, text in files().items()),
        FileEdited("no swap in fstab", f"{NODE}/etc/fstab", fstab_without_swap, "no swap line"),
        FileEdited("hosts names every host", f"{NODE}/etc/hosts", _block, "our block"),
        *(CommandRan(flag, seconds) for flag, seconds in guarded(work)),
        *(FactKnown(path) for path in FACTS),
    ]
