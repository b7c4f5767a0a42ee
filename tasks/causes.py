"""Errors and findings as a person reads them: one cause once, with all hosts that it befell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shipway.errors import ErrorReport

NAMES = 10  # names or ranges that are listed; a longer list is counted
DEVICES = 4  # GPUs that are named
EACH = 10  # hosts whose own fingerprint is listed below a cause
RANGE = 3  # names in a row that are reported as a range

# What differs from host to host in the message of one and the same cause. The parts of a group's name: `address` is
# left out, `print` is reported per host, `number` as the least to the greatest; a `device` (a GPU by UUID, slot and
# serial number) is who is meant, so some are named. A number that is a code is no measure.
_VARIES = r"""
    (?P<print>SHA256:[A-Za-z0-9+/=]{20,})
  | (?P<device>\b[A-Z]{3}-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:\ in\ [0-9A-Fa-f]+(?::[0-9A-Fa-f]+)+\.\d)?
      (?:,\ serial\ \d+)?)
  | (?P<id>\b[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\b
      |\b[0-9a-f]{2}(?::[0-9a-f]{2}){5}\b|\b[0-9a-f]{32,64}\b)
  | (?P<time>\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)
  | (?P<address>(?:(?<=@)[\w.-]+|\[[0-9A-Fa-f:]*:[0-9A-Fa-f:]*\]|(?<![\w.:])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d)
      |(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|:)(?:[0-9A-Fa-f:]*)(?![\w]))(?::\d+\b)?)
  | (?P<number>(?<![\w.-])(?<!status\ )(?<!code\ )(?<!signal\ )(?<!answered\ )(?<!HTTP\ )(?<!Errno\ )(?<!port\ )
      \d+(?:\.\d+)?(?!\.?\d)(?![\w-]))
"""
_SHOWN = {"print": "its own fingerprint", "id": "its own", "time": "its own time", "host": "HOST"}
_LEADS = re.compile(r"^\S*ADDRESS\S*: ")  # "root@ADDRESS: " says nothing beside the names of the hosts
_IN_ROW = re.compile(r"([^.]*?)(\d+)([^.\d]*(?:\..*)?)")


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause with the hosts that it befell; `each` are lines about single hosts, for what a person must compare."""

    hosts: tuple[str, ...]
    step: str
    code: str
    cause: str
    fix: str
    each: tuple[str, ...] = ()

    @property
    def who(self) -> str:
        """The hosts, compactly; empty where the error belongs to none."""
        return list_hosts(self.hosts)

    @property
    def said(self) -> str:
        """One line: hosts, step, cause and code."""
        return f"{': '.join(part for part in (self.who, self.step, self.cause) if part)} [{self.code}]"


def list_hosts(names: Iterable[str]) -> str:
    """Return names compactly: "gpu[001-300] (300 hosts)", or the first ten and how many more there are."""
    known = [name for name in dict.fromkeys(names) if name]
    parts = _in_rows(known)
    shown = ", ".join(parts[:NAMES])
    if len(parts) > NAMES:
        return f"{shown} and more ({len(known)} hosts)"
    return f"{shown} ({len(known)} hosts)" if len(known) > NAMES else shown


def _in_rows(names: Sequence[str]) -> list[str]:
    """Return the names in their order, those that count up from one to the next as one: n[1-3]."""
    rows: list[list[tuple[str, str, str, str]]] = []
    families: dict[tuple[str, str], list[tuple[str, str, str, str]]] = {}
    for name in names:
        match = _IN_ROW.fullmatch(name)
        before, number, after = match.groups() if match else (name, "", "")
        families.setdefault((before, after), []).append((name, before, number, after))
    for family in families.values():
        for one in sorted(family, key=lambda entry: int(entry[2] or 0)):
            if rows and _follows(rows[-1][-1], one):
                rows[-1].append(one)
            else:
                rows.append([one])
    return [part for row in rows for part in _as_range(row)]


def _follows(one: tuple[str, str, str, str], other: tuple[str, str, str, str]) -> bool:
    """Say whether a name counts up from another: te9 to te10, te09 to te10, never te9 to te010."""
    (_, before, number, after), (_, before2, number2, after2) = one, other
    if (before, after) != (before2, after2) or not number or not number2 or int(number2) != int(number) + 1:
        return False
    return len(number) == len(number2) or not (number.startswith("0") or number2.startswith("0"))


def _as_range(row: list[tuple[str, str, str, str]]) -> list[str]:
    if len(row) < RANGE:
        return [name for name, *_ in row]
    _, before, first, after = row[0]
    return [f"{before}[{first}-{row[-1][2]}]{after}"]


def shorten(text: str, characters: int) -> str:
    """Return a text on one line of at most so many characters, cut between two words."""
    flat = " ".join(text.split())
    if len(flat) <= characters:
        return flat
    head = flat[: characters - 3].rpartition(" ")[0] or flat[: characters - 4]  # one word alone is longer than that
    return f"{head} ..."


def name_no_host(text: str, host: str) -> str:
    """Return a text with HOST where it names its own host, to compare it with that of others."""
    return re.sub(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", "HOST", text) if host else text


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place of a message whose text may differ from host to host."""

    kind: str
    text: str


def _split(text: str, host: str, addresses: Iterable[str] = ()) -> tuple[str | _Slot, ...]:
    """Return a message as its fixed texts and the places that may differ."""
    own = [rf"(?P<host>(?<![\w.-]){re.escape(host)}(?:\.[\w-]+)*(?![\w-]))"] if host else []
    known = "|".join(re.escape(one) for one in addresses)
    own += [rf"(?P<known>(?<![\w.-])(?:{known})(?![\w-]))"] if known else []
    parts: list[str | _Slot] = []
    end = 0
    for match in re.finditer("|".join([*own, _VARIES]), text, re.VERBOSE):
        kind = str(match.lastgroup)
        parts += [text[end : match.start()], _Slot("address" if kind == "known" else kind, match.group())]
        end = match.end()
    return (*parts, text[end:])


def _shape(parts: tuple[str | _Slot, ...]) -> tuple[str, ...]:
    return tuple(part if isinstance(part, str) else f"\0{part.kind}" for part in parts)


def group_errors(errors: Iterable[ErrorReport]) -> list[Cause]:
    """Return each cause once: errors of one code and step whose messages differ only in what belongs to their host.

    That are names, addresses, ports, fingerprints, ids, times and measures. The report file keeps every message whole.
    """
    groups: dict[tuple[object, ...], list[tuple[ErrorReport, tuple[str | _Slot, ...]]]] = {}
    for error in errors:
        parts = _split(error.cause, error.host)
        slots = [part for part in parts if isinstance(part, _Slot) and part.kind == "address"]
        addresses = {re.sub(r":\d+$", "", slot.text) for slot in slots}
        fix = _shape(_split(error.fix, error.host, sorted(addresses)))
        groups.setdefault((error.code, error.step, _shape(parts), fix), []).append((error, parts))
    return [_join(group) for group in groups.values()]


def _join(group: list[tuple[ErrorReport, tuple[str | _Slot, ...]]]) -> Cause:
    """Return the cause of errors whose messages have one shape."""
    first = group[0][0]
    hosts = tuple(dict.fromkeys(error.host for error, _ in group))
    fixes = {error.fix for error, _ in group}
    fix = first.fix if len(fixes) == 1 else f"for {first.host}, and likewise for each: {first.fix}"
    columns = list(zip(*(parts for _, parts in group), strict=True))
    cause = _LEADS.sub("", "".join(_merge(column) for column in columns))
    return Cause(hosts, first.step, first.code, cause, fix, _each(group, columns))


def _merge(column: Sequence[str | _Slot]) -> str:
    """Return what one place of a message says for all hosts."""
    first = column[0]
    if isinstance(first, str):
        return first
    texts = {str(part.text) for part in column if isinstance(part, _Slot)}
    if len(texts) == 1:
        return first.text
    if first.kind == "number":
        least, most = min(texts, key=float), max(texts, key=float)
        return f"{least} to {most}"
    if first.kind == "address":
        return "ADDRESS"
    if first.kind == "device":
        named = list(dict.fromkeys(part.text for part in column if isinstance(part, _Slot)))
        more = f" and {len(named) - DEVICES} more" if len(named) > DEVICES else ""
        return "; ".join(named[:DEVICES]) + more
    return _SHOWN[first.kind]


def _each(
    group: list[tuple[ErrorReport, tuple[str | _Slot, ...]]], columns: Sequence[Sequence[str | _Slot]]
) -> tuple[str, ...]:
    """Return a line per host with its fingerprint, where they differ; a person compares them one by one."""
    prints = [[part.text for part in column if isinstance(part, _Slot) and part.kind == "print"] for column in columns]
    differing = [texts for texts in prints if len(set(texts)) > 1]
    if not differing:
        return ()
    rows = zip(*differing, strict=True)
    lines = [f"{error.host}: {' '.join(own)}" for (error, _), own in zip(group, rows, strict=True)]
    more = [f"and {len(lines) - EACH} more: the report file has each"] if len(lines) > EACH else []
    return (*lines[:EACH], *more)
