"""What a client may send: Shipway's script format, taken apart exactly, or one plain command line typed by a person."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Literal

from shipway.script import PROLOGUE, READER

Verb = Literal["r", "d", "l"]
_VERBS: dict[str, Verb] = {"r": "r", "d": "d", "l": "l"}
# What shlex.join leaves unquoted, and what has no meaning for a shell where it stands in a word of ours: everything else
# must be quoted.
_PLAIN = re.compile(r"[A-Za-z0-9@%+=:,./_^!{}\[\]~\u0080-\U0010ffff-]+")
_BOUNDARY = re.compile(r"b=(--shipway-[0-9a-f]{24})\n")


class NotUnderstood(ValueError):
    """The text is not in a form that the simulated shell takes; said loudly, for the author of the text."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a script: look (verb r), do (verb d) or look at what was done (verb l), and its command's words."""

    verb: Verb
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """A whole script in the wire format of shipway.script."""

    boundary: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One exec request: whether it asks for root through `sudo -n`, and one command's words or a script on its input."""

    sudo: bool
    script: bool = False
    words: tuple[str, ...] = ()
    password: bool = False
    """Whether sudo may read one from standard input (-S), and asks for it whatever it remembers (-k)."""


def request(command: str) -> Request:
    """Take an exec request apart; raises NotUnderstood."""
    if command in (READER, f"sudo -n -- {READER}"):
        return Request(command != READER, script=True)
    if command == f"sudo -S -k -p '' -- {READER}":
        return Request(sudo=True, script=True, password=True)
    words = tokens(command)
    if len(words) != 1:
        raise NotUnderstood("one command line at a time")
    line = words[0]
    sudo = line[:3] == ["sudo", "-n", "--"]
    if sudo:
        line = line[3:]
    if len(line) >= 3 and line[:2] == ["sh", "-c"]:
        return Request(sudo, words=_single(line[2]))
    return Request(sudo, words=tuple(line))


def _single(text: str) -> tuple[str, ...]:
    lines = tokens(text)
    if len(lines) != 1:
        raise NotUnderstood("`sh -c` takes one plain command here; a script comes on standard input")
    return tuple(lines[0])


def script(text: str) -> Script:
    """Take a script apart: the boundary, the prologue letter by letter, then its lines; raises NotUnderstood."""
    head = _BOUNDARY.match(text)
    if head is None:
        raise NotUnderstood("the script does not begin with a boundary `b=--shipway-...`")
    body = text[head.end() :]
    if not body.startswith(PROLOGUE):
        raise NotUnderstood("the script's prologue is not the one of shipway/script.py")
    lines: list[Line] = []
    for words in tokens(body[len(PROLOGUE) :]):
        verb = words[0]
        if verb not in _VERBS or len(words) < 2:
            raise NotUnderstood(f"a line begins with {verb!r}, not with r, d or l and a command")
        lines.append(Line(_VERBS[verb], tuple(words[1:])))
    return Script(head.group(1), tuple(lines))


def tokens(text: str) -> list[list[str]]:
    """Return the words of each line; only plain and quoted words are taken, everything a shell would expand is refused."""
    lines: list[list[str]] = []
    words: list[str] = []
    word: str | None = None
    at = 0
    while at < len(text):
        letter = text[at]
        if letter in "'\"":
            end = text.find(letter, at + 1)
            if end < 0:
                raise NotUnderstood(f"a quote {letter} without an end")
            quoted = text[at + 1 : end]
            if letter == '"' and re.search(r"[$`\\]", quoted):
                raise NotUnderstood(f'"{quoted}" would be expanded by a shell')
            word, at = (word or "") + quoted, end
        elif letter in " \t\n":
            if word is not None:
                words.append(word)
                word = None
            if letter == "\n" and words:
                lines.append(words)
                words = []
        elif plain := _PLAIN.match(text, at):
            word, at = (word or "") + plain.group(), plain.end() - 1
        else:
            rest = shlex.quote(text[at : at + 20])
            raise NotUnderstood(f"{letter!r} has a meaning for a shell that is not simulated, at {rest}")
        at += 1
    if word is not None:
        words.append(word)
    return [*lines, words] if words else lines
