"""Edits of apt's source files: one entry, known by its address and suite, is switched off; all else stays as it is.

Two entries of one address and suite with different keys stop apt altogether ("Conflicting values set for option
Signed-By", sources.list(5)); entries of another suite, or of a longer address, are other repositories.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shipway.edits import OFF

SOURCES_LIST = "/etc/apt/sources.list"
SOURCES_PARTS = "/etc/apt/sources.list.d"
WHY = f"{OFF}another source has this address and suite"
# apt reads no file of another name (apt_preferences(5) has the same rule: letters, digits, _ - and .).
_READ = re.compile(r"[A-Za-z0-9_.-]+\.(?:list|sources)")
_LINE = re.compile(r"\s*deb(?:-src)?\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)")
_FIELD = re.compile(r"([A-Za-z0-9-]+):(.*)", re.DOTALL)
_NO = frozenset({"no", "false", "without", "off", "disable", "0"})  # apt's own words for it (StringToBool)


def is_source_file(name: str) -> bool:
    """Tell whether apt reads a file of this name in its folder of sources."""
    return _READ.fullmatch(name) is not None


def without_entry(text: str, path: str, uri: str, suite: str) -> str:
    """Return the text of a source file with the entries of this address and suite switched off, each in its own way.

    A line is commented out. A stanza gets `Enabled: no` where it is about nothing else; where it has more addresses or
    suites, it keeps those. Comments and other entries stay byte for byte.
    """
    if path.endswith(".sources"):
        return _without_stanzas(text, uri, suite)
    lines = text.split("\n")
    return "\n".join(f"{OFF}{line}" if _is_entry(line, uri, suite) else line for line in lines)


def _same(one: str, other: str) -> bool:
    """Tell whether two addresses are one: apt itself adds a missing slash at the end."""
    return one.rstrip("/") == other.rstrip("/")


def _is_entry(line: str, uri: str, suite: str) -> bool:
    match = _LINE.match(line)
    return match is not None and _same(match[1].strip('"'), uri) and match[2].strip('"') == suite


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a stanza: the lines it stands in, from `start` up to `end`, and its words."""

    name: str
    start: int
    end: int
    words: tuple[str, ...]


def _without_stanzas(text: str, uri: str, suite: str) -> str:
    kept: list[str] = []
    stanza: list[str] = []
    lines = text.split("\n")
    for line in lines:
        if line.strip("\r"):
            stanza.append(line)
            continue
        kept += [*_edited(stanza, uri, suite), line]
        stanza = []
    return "\n".join([*kept, *_edited(stanza, uri, suite)])


def _fields(stanza: Sequence[str]) -> dict[str, _Field]:
    """Return the fields of a stanza by their names in lower case; comments belong to none."""
    found: dict[str, _Field] = {}
    last = ""
    for at, line in enumerate(stanza):
        if line.startswith("#"):
            continue
        match = _FIELD.match(line)
        if line[0] in " \t" and last:
            field = found[last]
            found[last] = _Field(field.name, field.start, at + 1, (*field.words, *line.split()))
        elif match:
            last = match[1].lower()
            found[last] = _Field(match[1], at, at + 1, tuple(match[2].split()))
    return found


def _edited(stanza: list[str], uri: str, suite: str) -> list[str]:
    """Return the lines of a stanza without this one repository."""
    fields = _fields(stanza)
    uris, suites, enabled = (fields.get(name) for name in ("uris", "suites", "enabled"))
    off = enabled is not None and enabled.words[:1] and enabled.words[0].lower() in _NO
    if uris is None or suites is None or off or suite not in suites.words:
        return stanza
    own = [word for word in uris.words if _same(word, uri)]
    if not own:
        return stanza
    others = [word for word in uris.words if word not in own]
    rest = [word for word in suites.words if word != suite]
    if not others and not rest:
        return [*_told(stanza, enabled or _Field("Enabled", uris.start, uris.start, ()), ["no"])]
    if not others:
        return [*_told(stanza, suites, rest)]
    reduced = [*_told(stanza, uris, others)]
    if not rest:
        return reduced
    alone = [*_told(stanza, uris, own)]  # the address that is put aside keeps its other suites, in a stanza of its own
    return [*reduced, "", *_told(alone, _fields(alone)["suites"], rest)]


def _told(stanza: Sequence[str], field: _Field, words: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a stanza with one field's value replaced, and a comment that says why."""
    yield from stanza[: field.start]
    yield WHY
    yield f"{field.name}: {' '.join(words)}"
    yield from (line for line in stanza[field.start : field.end] if line.startswith("#"))
    yield from stanza[field.end :]
