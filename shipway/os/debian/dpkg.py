"""Facts about Debian packages: what is installed in which version and architecture, and whether a hold keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shipway.facts.fact import Fact, Words
from shipway.facts.packages import PackageInfo
from shipway.script import Output

_FIELDS = ("Package", "Architecture", "db:Status-Abbrev", "Version", "source:Package", "binary:Package")
_SHAPE = "".join(f"${{{name}}}|" for name in _FIELDS[:-1]) + f"${{{_FIELDS[-1]}}}\\n"
NATIVE: Words = ("dpkg", "--print-architecture")
ALL = "all"  # the architecture of packages that fit every one


def query(*patterns: str) -> Words:
    """Return the command that `find_installed` reads; without patterns it is about every package."""
    return ("dpkg-query", "-W", "-f", _SHAPE, *(("--", *patterns) if patterns else ()))


def find_installed(listed: str) -> dict[tuple[str, str], PackageInfo]:
    """Return what dpkg lists as installed, by name and architecture; one name may stand in several lines.

    Status-Abbrev is what is wanted (i install, h hold, r and p to be gone), the state (i installed, U unpacked, F half
    configured ...; n not installed and c only configuration files left are no packages), and R where it must be
    installed anew (dpkg-query(1)).
    """
    found: dict[tuple[str, str], PackageInfo] = {}
    for line in listed.splitlines():
        fields = line.split("|")
        if len(fields) != len(_FIELDS):
            continue
        name, architecture, status, version, source, full_name = fields
        if len(status) >= 2 and status[1] not in "nc" and version:  # noqa: PLR2004 - two letters, then the error
            sound, held = status[1] == "i" and not status[2:].strip(), status[0] == "h"
            found[name, architecture] = PackageInfo(version, held, sound, architecture, source, full_name or name)
    return found


@dataclass(frozen=True)
class Package(Fact[PackageInfo | None]):
    """A package of the host's own architecture; None where it is not installed. All of a look cost two processes."""

    name: str

    @classmethod
    def ask_all(cls, facts: Sequence[Package]) -> list[Words]:
        """Ask dpkg for all packages at once, and which architecture is the host's own."""
        return [query(*(fact.name for fact in facts)), NATIVE]

    @classmethod
    def answer_all(cls, facts: Sequence[Package], outputs: Sequence[Output]) -> list[PackageInfo | None]:
        """Return the host's own architecture of each, or the one that fits all; a foreign one is another package."""
        found, native = find_installed(outputs[0].stdout), outputs[1].stdout.strip()
        return [found.get((fact.name, native)) or found.get((fact.name, ALL)) for fact in facts]


@dataclass(frozen=True)
class Installed(Fact[dict[tuple[str, str], PackageInfo]]):
    """Every installed package of every architecture."""

    def words(self) -> Words:
        """Ask dpkg."""
        return query()

    def parse(self, output: Output) -> dict[tuple[str, str], PackageInfo]:
        """Return them by name and architecture."""
        return find_installed(output.stdout)
