"""A case: one command on one host (or kubectl), and an action: what brings the lab into the state of the next cases."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conformance.places import Place

API = "kubectl"


@dataclass(frozen=True)
class Case:
    """One command whose answer must be the recorded one; `{cp1}`, `{w1}`, `{hash}` in its words are filled in.

    `reduce` names how an answer is cut down to what must agree (see tests.conformance.reduce); `slow` cases wait for
    minutes on real hosts.
    """

    name: str
    host: str
    words: tuple[str, ...]
    seconds: int = 90
    reduce: str = ""
    user: str = "root"
    slow: bool = False


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
    """Give a case whose words are those of `line`, split at spaces, and `more` as they are."""
    return Case(name, host, (*line.split(), *more), seconds, reduce, slow=slow)
