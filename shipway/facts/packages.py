"""What is known of an installed package, whichever package manager said it."""

from __future__ import annotations

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
