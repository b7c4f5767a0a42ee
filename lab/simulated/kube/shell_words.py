"""Words and operators of a small shell language: quotes, variables, and ; && || | newline."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

OPERATORS = (";;", "&&", "||", ";", "|", "&", "\n", "(", ")")
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+|\?|#|\$))")


class UnsupportedError(Exception):
    """A construct of the shell that the simulation does not know."""


@dataclass(frozen=True)
class Word:
    """A word as pieces (text, literal): literal pieces stood in single quotes or behind a backslash."""

    pieces: tuple[tuple[str, bool], ...]
    quoted: bool

    def expanded(self, env: Mapping[str, str]) -> str:
        """Return the word's text with variables replaced; unset ones are empty."""
        return "".join(text if literal else _expand(text, env) for text, literal in self.pieces)

    @property
    def bare(self) -> str:
        """Return the text as written where nothing in it is quoted, else an empty text: keywords are never quoted."""
        return "" if self.quoted else "".join(text for text, _ in self.pieces)


Token = Word | str


def _expand(text: str, env: Mapping[str, str]) -> str:
    if "$(" in text or "`" in text:
        raise UnsupportedError(f"command substitution in {text!r}")

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[3]
        return env.get(name) or found[2] or ""

    return _VARIABLE.sub(value, text)


def tokens(script: str) -> list[Token]:
    """Return the words and operators of a script. Raises UnsupportedError for redirections into files and the like."""
    found: list[Token] = []
    at = 0
    while at < len(script):
        if script[at] in " \t\r" or script.startswith("\\\n", at):
            at += 2 if script[at] == "\\" else 1
        elif script[at] == "#":
            end = script.find("\n", at)
            at = len(script) if end < 0 else end
        elif operator := next((op for op in OPERATORS if script.startswith(op, at)), None):
            found.append(operator)
            at += len(operator)
        elif redirection := re.match(r"\d?>&\d|\d?>>?\s*/dev/null|<\s*/dev/null", script[at:]):
            at += redirection.end()
        elif script[at] in "<>":
            raise UnsupportedError("redirection")
        else:
            word, at = _word(script, at)
            found.append(word)
    return found


def _word(script: str, at: int) -> tuple[Word, int]:
    pieces: list[tuple[str, bool]] = []
    quoted = False
    while at < len(script) and script[at] not in " \t\r\n;&|()<>":
        char = script[at]
        if char in "'\"":
            end = script.find(char, at + 1)
            if end < 0:
                raise UnsupportedError("unterminated quoted string")
            pieces.append((script[at + 1 : end], char == "'"))
            quoted, at = True, end + 1
        elif char == "\\":
            pieces.append((script[at + 1 : at + 2], True))
            at += 2
        elif script.startswith("$(", at):
            raise UnsupportedError("command substitution")
        else:
            end = at + 1
            while end < len(script) and script[end] not in " \t\r\n;&|()<>'\"\\" and script[end : end + 2] != "$(":
                end += 1
            pieces.append((script[at:end], False))
            at = end
    return Word(tuple(pieces), quoted), at
