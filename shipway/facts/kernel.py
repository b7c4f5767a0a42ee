"""Facts about the running kernel: its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shipway.facts.fact import Fact, Words
from shipway.script import Output


@dataclass(frozen=True)
class Sysctl(Fact[str | None]):
    """The live value of a kernel setting; None where the kernel has no such key. All keys cost one process."""

    key: str

    @classmethod
    def ask_all(cls, facts: Sequence[Sysctl]) -> list[Words]:
        """Ask for all keys at once; -e passes over unknown ones."""
        return [("sysctl", "-e", "--", *(fact.key for fact in facts))]

    @classmethod
    def answer_all(cls, facts: Sequence[Sysctl], outputs: Sequence[Output]) -> list[str | None]:
        """Lines are `key = value`."""
        values: dict[str, str] = {}
        for line in outputs[0].stdout.splitlines():
            key, found, value = line.partition(" = ")
            if found:
                values[key.strip()] = value.strip()
        return [values.get(fact.key) for fact in facts]
