"""A case: one command on one host (or kubectl), and an action: what brings the lab into the state of the next cases."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conformance.places import Place

API = "kubectl"
Words = tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One command whose answer must be the recorded one; `{cp1}`, `{w1}`, `{hash}` in its words are filled in.

    `reduce` names how an answer is cut down to what must agree (see tests.conformance.reduce); `slow` cases wait for
    minutes on real hosts. `then` are further commands that do something, in the same script and of the same input
    `feed`, and `after` those that look at what was done.
    """

    name: str
    host: str
    words: Words
    seconds: int = 90
    reduce: str = ""
    user: str = "root"
    slow: bool = False
    then: tuple[Words, ...] = ()
    after: tuple[Words, ...] = ()
    feed: bytes = b""

    @property
    def commands(self) -> tuple[Words, ...]:
        """Every command of the case."""
        return (self.words, *self.then, *self.after)


@dataclass(frozen=True)
class Action:
    """Something done between cases, the same on every lab."""

    name: str
    do: Callable[[Place], Awaitable[None]]


@dataclass(frozen=True)
class Answer:
    """What a command answered, normalised."""

    status: int
    stdout: str
    stderr: str


Scene = tuple[Case | Action, ...]


def case(name: str, host: str, line: str, *more: str, seconds: int = 90, reduce: str = "", slow: bool = False) -> Case:
    """Return a case whose words are those of `line`, split at spaces, and `more` as they are."""
    return Case(name, host, (*line.split(), *more), seconds, reduce, slow=slow)


def script(name: str, host: str, *lines: Words, after: Sequence[Words] = (), feed: bytes = b"") -> Case:
    """Return a case of several commands in one script, with commands that look afterwards."""
    return Case(name, host, lines[0], then=lines[1:], after=tuple(after), feed=feed)
