"""Words of a command taken apart in getopt's way: flags, options with values, and the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Parsed:
    """Flags that were given, values of options (all of them, in order), and what is left."""

    flags: set[str] = field(default_factory=set)
    values: dict[str, list[str]] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def value(self, *names: str, default: str = "") -> str:
        """Return the last value given to one of these options."""
        found = [value for name in names for value in self.values.get(name, [])]
        return found[-1] if found else default

    def has(self, *names: str) -> bool:
        """Say whether one of these flags or options was given."""
        return any(name in self.flags or name in self.values for name in names)


def parse(
    words: Sequence[str], *, flags: str = "", values: str = "", stop_at_first: bool = False, single_dash: bool = False
) -> Parsed:
    """Take words apart. `flags` and `values` are names separated by spaces (-q --quiet); unknown ones are collected.

    `single_dash`: long names may have one dash (find, openssl); `stop_at_first`: everything from the first plain word
    on is rest (env, timeout).
    """
    known_flags, known_values = set(flags.split()), set(values.split())
    parsed = Parsed()
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            parsed.rest += waiting
            break
        name, equals, value = word.partition("=")
        if not word.startswith("-") or word == "-":
            if stop_at_first:
                parsed.rest = [word, *waiting]
                break
            parsed.rest.append(word)
        elif word in known_flags:
            parsed.flags.add(word)
        elif equals and name in known_values:
            parsed.values.setdefault(name, []).append(value)
        elif word in known_values and waiting:
            parsed.values.setdefault(word, []).append(waiting.pop(0))
        elif not word.startswith("--") and not single_dash and len(word) > 2:
            waiting = _split(word, known_values) + waiting
        else:
            parsed.unknown.append(word)
    return parsed


def _split(word: str, known_values: set[str]) -> list[str]:
    """Return -xyz as -x -yz, or -p644 as -p 644 where -p takes a value."""
    first = word[:2]
    if first in known_values:
        return [first, word[2:]]
    return [first, f"-{word[2:]}"]
