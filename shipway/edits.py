"""Edits of files that others own too: only our own lines change, and editing twice is editing once."""

from __future__ import annotations

from collections.abc import Mapping

BEGIN, END = "# BEGIN shipway", "# END shipway"
OFF = "# off by shipway: "


def with_block(text: str, lines: list[str]) -> str:
    """Give the text with one marked block of these lines; foreign lines and their order stay as they are."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines():
        if line == BEGIN:
            inside = True
        elif line == END and inside:
            inside = False
        elif not inside:
            kept.append(line)
    if inside:  # a block without an end: keep what follows its head, for it may be somebody's
        return with_block("\n".join(line for line in text.splitlines() if line != BEGIN), lines)
    return "\n".join([*kept, BEGIN, *lines, END]) + "\n"


def hosts_file(text: str, entries: Mapping[str, str]) -> str:
    """Give /etc/hosts with our block (entries: name -> address), and without a 127.0.1.1 line for one of our names.

    Debian's installer writes `127.0.1.1 NAME`, and a kubelet that resolves its own name then takes the loopback
    address (kubernetes#87244).
    """
    names = set(entries)
    kept = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if words[:1] == ["127.0.1.1"] and names & {word.split(".")[0] for word in words[1:]}:
            continue
        kept.append(line)
    return with_block("\n".join(kept), [f"{address} {name}" for name, address in entries.items()])


def fstab_without_swap(text: str) -> str:
    """Give /etc/fstab with every line whose third field is `swap` commented out."""
    lines = []
    for line in text.splitlines():
        fields = line.split()
        swap = len(fields) > 2 and fields[2] == "swap" and not line.lstrip().startswith("#")  # noqa: PLR2004 - third field
        lines.append(OFF + line if swap else line)
    return "\n".join(lines) + ("\n" if lines else "")
