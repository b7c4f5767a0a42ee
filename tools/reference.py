"""The pages of docs/ that are made from the source; `python -m tools.reference --write` brings them up to date."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from shipway import errors
from shipway.cluster.fields import entries
from shipway.cluster.model import Cluster
from shipway.cluster.profiles import profile_data, profile_names
from shipway.errors import ShipwayError
from shipway.known_failures.catalogue import KNOWN, VAGUE
from tools.reference_codes import find_raised
from tools.traps import ROOT, TITLES, answers

DOCS = ROOT / "docs"
BEGIN, END = "<!-- made by python -m tools.reference --write -->", "<!-- end of what is made -->"
Rows = list[tuple[str, ...]]


def table(head: tuple[str, ...], rows: Rows) -> str:
    """Return a markdown table; bars and newlines in cells are made harmless."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _classes(of: type[ShipwayError] = ShipwayError) -> Iterator[type[ShipwayError]]:
    """Yield the error classes of shipway.errors, each before those below it."""
    yield of
    for below in of.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _classes(below)


def _again(*, may: bool) -> str:
    return "may help" if may else "does not help"


def errors_page() -> str:
    """Return docs/errors.md: the error tree, the catalogue of known outputs, and the codes raised by the source."""
    tree: Rows = [
        (
            kind.default_code,
            kind.__name__,
            (kind.__doc__ or "").split("\n")[0],
            kind.default_fix,
            _again(may=kind.retryable),
        )
        for kind in _classes()
    ]
    known: Rows = [
        (
            entry.code,
            entry.title,
            entry.cause,
            entry.fix,
            _again(may=entry.retryable),
            ", ".join(str(trap) for trap in entry.traps) or "-",
        )
        for entry in sorted((*KNOWN, *VAGUE), key=lambda entry: entry.code)
    ]
    places: Rows = [(row.code, f"`{row.module}`", row.says or "-", row.fix or "as its kind") for row in find_raised()]
    return f"""# Errors

{BEGIN}
Every error has a code, a cause, the next thing to do, and says whether trying again can help. The trap numbers are
those of [traps.md](traps.md).

## Kinds

An error that has no code of its own has the code of its kind.

{table(("code", "kind", "what it is", "what to do", "trying again"), tree)}

## Known outputs of commands

The output of a command that failed is searched for these; cause and fix go into the error and the report.

{table(("code", "title", "cause", "what to do", "trying again", "traps"), known)}

## Codes of single places

{table(("code", "where", "what it says", "what to do"), places)}
{END}
"""


def traps_page() -> str:
    """Return docs/traps.md: every known trap, and where it is answered."""
    found = answers()
    rows: Rows = [
        (str(trap), TITLES.get(trap, "?"), "; ".join(f"`{place}`" for place in places) or "**not answered yet**")
        for trap, places in found.items()
    ]
    return f"""# Known traps, and where each is answered

{BEGIN}
What goes wrong when GPU clusters are built, collected from the trackers of projects that do it. Each is answered by a
step or check (it looks, and most can change), by the solver (it reads the cluster file and refuses or warns before any
host is touched), by comparing hosts with each other, by a warning of what a host will run into later, by an entry of
the error catalogue ([errors.md](errors.md)), or by how the whole is built.

{table(("trap", "what happens", "answered by"), rows)}
{END}
"""


def keys_table() -> str:
    """Return the table of every key of a cluster file."""
    rows: Rows = [
        (f"`{entry.path}`", entry.takes, f"`{entry.default}`" if entry.default else "", entry.description)
        for entry in entries(Cluster)
    ]
    return table(("key", "takes", "default", "what it is"), rows)


def profiles_table() -> str:
    """Return the table of what each profile sets."""
    shown = {
        "Kubernetes": ("kubernetes", "version"),
        "pod network": ("kubernetes", "pod_network"),
        "containerd": ("runtime", "version"),
        "network": ("network", "version"),
        "toolkit": ("gpu", "toolkit"),
        "device plugin": ("device_plugin", "version"),
    }
    rows: Rows = []
    for name in profile_names():
        data = profile_data(name)
        rows.append((f"`{name}`", *(str(data.get(part, {}).get(key, "-")) for part, key in shown.values())))
    return table(("profile", *shown), rows)


def between(page: str, made: str) -> str:
    """Return a page with what stands between its markers replaced; raises ValueError where they are not there."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        message = f"the page has no {BEGIN} … {END}"
        raise ValueError(message)
    return f"{head}{BEGIN}\n\n{made}\n\n{END}{tail}"


def pages() -> dict[Path, str]:
    """Return every page that is made, with its text as it should be."""
    keys, sets = DOCS / "cluster-file.md", DOCS / "profiles.md"
    return {
        DOCS / "errors.md": errors_page(),
        DOCS / "traps.md": traps_page(),
        keys: between(keys.read_text(encoding="utf-8"), keys_table()),
        sets: between(sets.read_text(encoding="utf-8"), profiles_table()),
    }


def main(arguments: list[str]) -> int:
    """Write the pages with --write, else say which are not up to date; gives 1 where one is not."""
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if arguments == ["--write"]:
        for path, text in pages().items():
            path.write_text(text, encoding="utf-8")
        return 0
    for path in stale:
        sys.stdout.write(f"{path} is not up to date: run python -m tools.reference --write\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
