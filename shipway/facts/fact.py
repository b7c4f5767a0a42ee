"""The base of all facts: equal facts are asked once, facts of a kind are asked together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from shipway.script import Output

T_co = TypeVar("T_co", covariant=True)
Words = tuple[str, ...]


class Fact(Generic[T_co]):
    """One thing to know about a host. Subclasses are frozen dataclasses; equal ones share one answer.

    A kind that can answer many at once (one `sha256sum` over all files) overrides `ask_all` and `answer_all`;
    others give `words` and `parse`.
    """

    def words(self) -> Words:
        """Return the command that finds it out; the command only reads."""
        raise NotImplementedError(type(self).__name__)

    def parse(self, output: Output) -> T_co:
        """Turn the command's output into the value; hostile output gives a value or a ShipwayError, never a crash."""
        raise NotImplementedError(type(self).__name__)

    @classmethod
    def ask_all(cls, facts: Sequence[Any]) -> list[Words]:
        """Return the commands that answer all these facts of this kind."""
        return [fact.words() for fact in facts]

    @classmethod
    def answer_all(cls, facts: Sequence[Any], outputs: Sequence[Output]) -> list[Any]:
        """Return one value a fact, in the order of `facts`, from the outputs of `ask_all`'s commands."""
        return [fact.parse(output) for fact, output in zip(facts, outputs, strict=True)]


class Plan:
    """The commands for a set of facts, and the way back from their outputs to values."""

    def __init__(self, facts: Sequence[Fact[Any]]) -> None:
        self._kinds: dict[type[Fact[Any]], list[Fact[Any]]] = {}
        for fact in dict.fromkeys(facts):
            self._kinds.setdefault(type(fact), []).append(fact)
        self._asked = {kind: kind.ask_all(members) for kind, members in self._kinds.items()}

    @property
    def commands(self) -> list[Words]:
        """All commands, in a fixed order."""
        return [words for asked in self._asked.values() for words in asked]

    def answers(self, outputs: Sequence[Output]) -> dict[Fact[Any], Any]:
        """Return the value of every fact; `outputs` are in the order of `commands`."""
        values: dict[Fact[Any], Any] = {}
        at = 0
        for kind, members in self._kinds.items():
            count = len(self._asked[kind])
            values.update(zip(members, kind.answer_all(members, outputs[at : at + count]), strict=True))
            at += count
        return values
