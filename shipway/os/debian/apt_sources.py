"""Edits of apt's source files: entries, known by address and suite, are switched off; all else stays as it is.

Two entries of one address and suite with different keys stop apt altogether ("Conflicting values set for option
Signed-By", sources.list(5)); entries of another suite, or of a longer address, are other repositories.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from shipway.edits.lines import OFF

SOURCES_LIST = "/etc/apt/sources.list"
SOURCES_PARTS = "/etc/apt/sources.list.d"
WHY = f"{OFF}another source has this address and suite"
REPLACED = f"{OFF}sources.base_apt of the cluster file replaces the distribution's own archive"
# apt reads no file of another name (apt_preferences(5) has the same rule: letters, digits, _ - and .).
_READ = re.compile(r"[A-Za-z0-9_.-]+\.(?:list|sources)")
_LINE = re.compile(r"\s*deb(?:-src)?\s+(?:\[[^\]]*\]\s*)?(cdrom:\[[^\]]*\]\S*|\S+)\s+(\S+)([^#\n]*)")
_FIELD = re.compile(r"([A-Za-z0-9-]+):(.*)", re.DOTALL)
_NO = frozenset({"no", "false", "without", "off", "disable", "0"})  # apt's own words for it (StringToBool)


def is_source_file(name: str) -> bool:
    """Tell whether apt reads a file of this name in its folder of sources."""
    return _READ.fullmatch(name) is not None


class Which(Protocol):
    """Which entries are meant: by address, suite and components."""

    @property
    def why(self) -> str:
        """The comment that says why they are off."""

    def address(self, uri: str) -> bool:
        """Tell whether an address is meant."""

    def suite(self, suite: str) -> bool:
        """Tell whether a suite is meant."""

    def components(self, components: Sequence[str]) -> bool:
        """Tell whether an entry of these components is meant."""


@dataclass(frozen=True)
class Same:
    """Entries of one address and suite."""

    uri: str
    one: str
    why: str = WHY

    def address(self, uri: str) -> bool:
        """Compare as apt does, which adds a missing slash at the end."""
        return uri.rstrip("/") == self.uri.rstrip("/")

    def suite(self, suite: str) -> bool:
        """Compare."""
        return suite == self.one

    def components(self, components: Sequence[str]) -> bool:  # noqa: ARG002 - whatever they are, apt would stop
        """Take any."""
        return True


@dataclass(frozen=True)
class Distribution:
    """Entries of the distribution's own archive or a mirror of it; a vendor's repository is none, whatever its suite.

    Debian's and Ubuntu's archives and their mirrors end in the paths of `_ARCHIVES`, have the release's own suites
    (`CODENAME`, `CODENAME-updates`, ...) and these components (sources.list(5); wiki.debian.org/SourcesList,
    help.ubuntu.com/community/Repositories). The installer's medium (`cdrom:`) is theirs too.
    """

    codename: str
    why: str = REPLACED

    def address(self, uri: str) -> bool:
        """Look at the last part of the path, in which a list of mirrors (`mirror+file:`) ends with `.list`."""
        path = uri.rstrip("/").rpartition("/")[2].removesuffix(".list")
        return uri.startswith("cdrom:") or path in _ARCHIVES

    def suite(self, suite: str) -> bool:
        """Compare with those of the release; before Debian 11 the one of security has a slash."""
        base, _, pocket = suite.replace("/", "-").partition("-")
        return base == self.codename and pocket in _POCKETS

    def components(self, components: Sequence[str]) -> bool:
        """Take what only consists of theirs."""
        return bool(components) and set(components) <= _COMPONENTS


_ARCHIVES = frozenset({"debian", "debian-security", "ubuntu", "ubuntu-ports"})
_POCKETS = frozenset({"", "updates", "security", "backports", "proposed", "proposed-updates"})
_COMPONENTS = frozenset({"main", "contrib", "non-free", "non-free-firmware", "restricted", "universe", "multiverse"})


def without_entries(text: str, path: str, which: Which) -> str:
    """Return the text of a source file with the entries that are meant switched off, each in its own way.

    A line is commented out. A stanza gets `Enabled: no` where it is about nothing else; where it has more addresses or
    suites, it keeps those. Comments and other entries stay byte for byte.
    """
    if path.endswith(".sources"):
        return _without_stanzas(text, which)
    lines = text.split("\n")
    return "\n".join(f"{OFF}{line}" if _is_entry(line, which) else line for line in lines)


def without_entry(text: str, path: str, uri: str, suite: str) -> str:
    """Return the text of a source file with the entries of this address and suite switched off."""
    return without_entries(text, path, Same(uri, suite))


def _is_entry(line: str, which: Which) -> bool:
    match = _LINE.match(line)
    return (
        match is not None
        and which.address(match[1].strip('"'))
        and which.suite(match[2].strip('"'))
        and which.components(match[3].split())
    )


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a stanza: the lines it stands in, from `start` up to `end`, and its words."""

    name: str
    start: int
    end: int
    words: tuple[str, ...]


def _without_stanzas(text: str, which: Which) -> str:
    kept: list[str] = []
    stanza: list[str] = []
    lines = text.split("\n")
    for line in lines:
        if line.strip("\r"):
            stanza.append(line)
            continue
        kept += [*_edit(stanza, which), line]
        stanza = []
    return "\n".join([*kept, *_edit(stanza, which)])


def _fields(stanza: Sequence[str]) -> dict[str, _Field]:
    """Return the fields of a stanza by their names in lower case; comments belong to none."""
    found: dict[str, _Field] = {}
    last = ""
    for at, line in enumerate(stanza):
        match = _FIELD.match(line)  # none of a comment, which is skipped wherever it stands
        if line[0] in " \t" and last:
            field = found[last]
            found[last] = _Field(field.name, field.start, at + 1, (*field.words, *line.split()))
        elif match:
            last = match[1].lower()
            found[last] = _Field(match[1], at, at + 1, tuple(match[2].split()))
    return found


def _edit(stanza: list[str], which: Which) -> list[str]:
    """Return the lines of a stanza without the repositories that are meant."""
    fields = _fields(stanza)
    uris, suites, enabled = (fields.get(name) for name in ("uris", "suites", "enabled"))
    off = enabled is not None and enabled.words[:1] and enabled.words[0].lower() in _NO
    components = fields.get("components")
    if uris is None or suites is None or off or not which.components(components.words if components else ()):
        return stanza
    own = [word for word in uris.words if which.address(word)]
    others = [word for word in uris.words if word not in own]
    rest = [word for word in suites.words if not which.suite(word)]
    if not own or len(rest) == len(suites.words):
        return stanza
    why = which.why
    if not others and not rest:
        return [*_tell(stanza, enabled or _Field("Enabled", uris.start, uris.start, ()), ["no"], why)]
    if not others:
        return [*_tell(stanza, suites, rest, why)]
    reduced = [*_tell(stanza, uris, others, why)]
    if not rest:
        return reduced
    # The addresses that are put aside keep their other suites, in a stanza of their own.
    alone = [*_tell(stanza, uris, own, why)]
    return [*reduced, "", *_tell(alone, _fields(alone)["suites"], rest, why)]


def _tell(stanza: Sequence[str], field: _Field, words: Sequence[str], why: str) -> Iterator[str]:
    """Yield the lines of a stanza with one field's value replaced, and a comment that says why."""
    yield from stanza[: field.start]
    yield why
    yield f"{field.name}: {' '.join(words)}"
    yield from (line for line in stanza[field.start : field.end] if line.startswith("#"))
    yield from stanza[field.end :]


def with_entries_again(text: str, path: str) -> str:
    """Return the text of a source file with the entries that we switched off on again; all else stays as it is.

    A stanza that was only shortened keeps what it has: what it had besides is not told in it.
    """
    lines = text.split("\n")
    if not path.endswith(".sources"):
        marks = (WHY, REPLACED)
        return "\n".join(line if line in marks else line.removeprefix(OFF) for line in lines)
    kept: list[str] = []
    at = 0
    while at < len(lines):
        if lines[at] in (WHY, REPLACED) and lines[at + 1 : at + 2] == ["Enabled: no"]:
            at += 2
        else:
            kept.append(lines[at])
            at += 1
    return "\n".join(kept)
