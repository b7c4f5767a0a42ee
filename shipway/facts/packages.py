"""What is known of an installed package, whichever package manager said it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PackageInfo:
    """An installed package; `sound` is false while its installation is not finished.

    `full_name` names this architecture of it and no other to the package manager, as `libc6:i386` does.
    """

    version: str
    held: bool
    sound: bool
    architecture: str = ""
    source: str = ""
    full_name: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """A package that a later version is offered of, or one that comes with it (`had` is empty then).

    `part` is what it belongs to of what a person wants to know by name: "kernel", "libc"; empty for all others.
    """

    name: str
    had: str
    gets: str
    part: str = ""


def describe_pending(pending: Sequence[Pending]) -> str:
    """Return how many packages would change and which parts that matter: "12 packages (kernel, libc)"."""
    parts = list(dict.fromkeys(one.part for one in pending if one.part))
    count = f"{len(pending)} package{'' if len(pending) == 1 else 's'}"
    return f"{count} ({', '.join(parts)})" if parts else count
