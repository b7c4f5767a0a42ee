"""Edits of files that others own too: only our own lines change, and editing twice is editing once.

A line ends with a newline and nothing else: what Python's `splitlines` takes for an end as well (a form feed, a
carriage return, U+2028) is part of somebody's line and stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

BEGIN, END = "# BEGIN shipway", "# END shipway"
OFF = "# off by shipway: "


def _lines(text: str) -> list[str]:
    """Return the lines of a text; its last one may lack its newline."""
    return text.removesuffix("\n").split("\n") if text else []


def with_block(text: str, lines: list[str]) -> str:
    """Return the text with one marked block of these lines; foreign lines and their order stay as they are."""
    kept: list[str] = []
    inside = False
    for line in _lines(text):
        if line == BEGIN:
            inside = True
        elif line == END and inside:
            inside = False
        elif not inside:
            kept.append(line)
    if inside:  # a block without an end: keep what follows its head, for it may be somebody's
        return with_block("".join(f"{line}\n" for line in _lines(text) if line != BEGIN), lines)
    return "".join(f"{line}\n" for line in [*kept, BEGIN, *lines, END])


def hosts_file(text: str, entries: Mapping[str, str]) -> str:
    """Return /etc/hosts with our block, and without a 127.0.1.1 line for one of our names.

    `entries` are name -> address; several addresses of one name stand with a blank between them.

    Debian's installer writes `127.0.1.1 NAME`, and a kubelet that resolves its own name then takes the loopback
    address (kubernetes#87244).
    """
    names = set(entries)
    kept = []
    for line in _lines(text):
        words = line.split("#", 1)[0].split()
        if words[:1] == ["127.0.1.1"] and names & {word.split(".")[0] for word in words[1:]}:
            continue
        kept.append(line)
    block = [f"{address} {name}" for name, some in entries.items() for address in some.split()]
    return with_block("".join(f"{line}\n" for line in kept), block)


def read_block(text: str) -> dict[str, str]:
    """Return name -> address of our block in /etc/hosts, as for `hosts_file`; nothing where there is no whole one."""
    lines = _lines(text)
    if BEGIN not in lines or END not in lines[lines.index(BEGIN) :]:
        return {}
    inside = lines[lines.index(BEGIN) + 1 : lines.index(END, lines.index(BEGIN))]
    found: dict[str, list[str]] = {}
    for address, *names in filter(None, (line.split("#", 1)[0].split() for line in inside)):
        for name in names:
            found.setdefault(name, []).append(address)
    return {name: " ".join(addresses) for name, addresses in found.items()}


def fstab_without_swap(text: str) -> str:
    """Return /etc/fstab with each line commented out whose third field (fstab(5), by blanks and tabs) is `swap`."""
    lines = []
    for line in text.split("\n"):
        fields = re.split(r"[ \t]+", line.strip(" \t"))
        swap = len(fields) > 2 and fields[2] == "swap" and not fields[0].startswith("#")  # noqa: PLR2004 - third field
        lines.append(OFF + line if swap else line)
    return "\n".join(lines)


def with_sysctls(text: str, values: Mapping[str, str]) -> str:
    """Return a file of sysctl.d with these settings (key -> value); every other line stays as it is.

    A key may stand with slashes and behind a dash (sysctl.d(5)); each line that gives it another value is corrected,
    for the last one counts.
    """
    lines, there = [], set()
    for line in _lines(text):
        key, equals, value = line.partition("=")
        name = key.strip(" \t-").replace("/", ".")
        if equals and name in values:
            there.add(name)
            lines.append(line if value.strip() == values[name] else f"{key.rstrip()} = {values[name]}")
        else:
            lines.append(line)
    lines += [f"{key} = {value}" for key, value in values.items() if key not in there]
    return _join(text, lines)


def with_modules(text: str, wanted: Sequence[str], unknown: Collection[str]) -> str:
    """Return a file of modules-load.d that names each wanted module and none of the unknown ones; the rest stays.

    A module that the kernel does not have fails systemd-modules-load.service at each boot.
    """
    kept = [line for line in _lines(text) if line.strip() not in unknown]
    there = {line.strip() for line in kept}
    return _join(text, [*kept, *(one for one in wanted if one not in there)])


def _join(text: str, lines: list[str]) -> str:
    return text if lines == _lines(text) else "".join(f"{line}\n" for line in lines)


def without_block(text: str, own_name: str) -> str:
    """Return /etc/hosts without our block; every other line stays.

    Where no other line holds the host's own name, `127.0.1.1 NAME` is added, as Debian's installer has it: sudo looks
    its host's name up at each call. A block without an end is left: what follows its head may be somebody's.
    """
    lines = _lines(text)
    if BEGIN not in lines or END not in lines[lines.index(BEGIN) :]:
        return text
    start = lines.index(BEGIN)
    end = lines.index(END, start)
    rest = [*lines[:start], *lines[end + 1 :]]
    named = {word for line in rest for word in line.split("#", 1)[0].split()[1:]}
    if own_name and own_name not in named:
        rest.append(f"127.0.1.1 {own_name}")
    return "".join(f"{line}\n" for line in rest)


def with_swap_again(text: str) -> str:
    """Return /etc/fstab with the lines that we commented out as they were."""
    return "\n".join(line.removeprefix(OFF) for line in text.split("\n"))


def without_sysctls(text: str, values: Mapping[str, str]) -> str:
    """Return a file of sysctl.d without the settings that have exactly these values; every other line stays."""
    kept = []
    for line in _lines(text):
        key, _, value = line.partition("=")
        if values.get(key.strip(" \t-").replace("/", ".")) != value.strip():
            kept.append(line)
    return _join(text, kept)


def without_lines(text: str, lines: Collection[str]) -> str:
    """Return a text without these lines, blanks around them left aside; every other line stays."""
    return _join(text, [line for line in _lines(text) if line.strip() not in lines])
