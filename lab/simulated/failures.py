"""Failures that are asked for: a command that fails, hangs or lies, a connection cut before or after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, cast, get_args

Kind = Literal["cut-before", "cut-after", "exit", "garbage", "hang", "kill", "full"]
# Not bound to a command: the host itself.
HOST_KINDS = ("unreachable", "refused")


@dataclass
class Failure:
    """One failure: what happens at the `nth` command that holds every word of `match`, and `times` in a row from there.

    `kill` ends the transient unit that the command starts, `after` simulated seconds from its start, or from when
    `text` stands in its log. `full` leaves the disk `text` KiB (none by default) before the command runs.
    """

    kind: Kind
    match: str = ""
    nth: int = 1
    times: int = 1
    text: str = ""
    after: float = 0.0
    met: int = 0

    def meets(self, line: str) -> bool:
        """Say whether it happens at this command, counting it."""
        if not all(part in line for part in self.match.split()):
            return False
        self.met += 1
        return self.nth <= self.met < self.nth + self.times


@dataclass
class Failures:
    """The failures that wait on one host."""

    waiting: list[Failure] = field(default_factory=list)

    def at(self, words: tuple[str, ...]) -> Failure | None:
        """Return the failure that happens at this command, if any."""
        line = " ".join(words)
        met = [failure for failure in self.waiting if failure.meets(line)]
        self.waiting = [failure for failure in self.waiting if failure.met < failure.nth + failure.times - 1]
        return met[0] if met else None


@dataclass(frozen=True)
class Spec:
    """A failure or a drift as written on the command line: HOST,KIND[,NAME=VALUE]... (`*` is every host)."""

    host: str
    kind: str
    values: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Read a specification; raises ValueError that says the form."""
        parts = [part.strip() for part in text.split(",")]
        if len(parts) < 2 or any("=" not in part for part in parts[2:]):
            raise ValueError(f"{text!r} is not HOST,KIND[,NAME=VALUE]...")
        return cls(parts[0], parts[1], dict(part.split("=", 1) for part in parts[2:]))

    def failure(self) -> Failure:
        """Return the failure of a command; raises ValueError for an unknown kind."""
        if self.kind not in get_args(Kind):
            known = ", ".join((*get_args(Kind), *HOST_KINDS))
            raise ValueError(f"{self.kind!r} is no failure; known: {known}")
        values = self.values
        return Failure(
            cast("Kind", self.kind),
            values.get("match", ""),
            int(values.get("nth", "1")),
            int(values.get("times", "1")),
            values.get("text", ""),
            float(values.get("after", "0")),
        )
