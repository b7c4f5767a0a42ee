"""Facts that a program tells: its output as text, bounded in time where it may hang."""

from __future__ import annotations

from dataclasses import dataclass

from shipway.facts.fact import Fact, Words
from shipway.script import Output


@dataclass(frozen=True)
class Says(Fact[Output]):
    """What a read-only command answers; `seconds` bounds it (timeout sends TERM, then KILL 5 s later; status 124)."""

    command: Words
    seconds: int = 20

    def words(self) -> Words:
        """Run it under timeout(1)."""
        return ("timeout", "-k", "5", str(self.seconds), *self.command)

    def parse(self, output: Output) -> Output:
        """Give the output as it is."""
        return output
