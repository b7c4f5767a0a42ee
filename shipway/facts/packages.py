"""Facts about Debian packages: installed version, and whether a hold keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shipway.facts.fact import Fact, Words
from shipway.script import Output


@dataclass(frozen=True, slots=True)
class PackageInfo:
    """An installed package; `sound` is false while dpkg left it half installed or unconfigured."""

    version: str
    held: bool
    sound: bool


@dataclass(frozen=True)
class Package(Fact[PackageInfo | None]):
    """The state of one package; None where it is not installed. All packages of a look cost one process."""

    name: str

    @classmethod
    def ask_all(cls, facts: Sequence[Package]) -> list[Words]:
        """Ask dpkg for all packages at once."""
        shape = "${Package}|${db:Status-Abbrev}|${Version}\\n"
        return [("dpkg-query", "-W", "-f", shape, "--", *(fact.name for fact in facts))]

    @classmethod
    def answer_all(cls, facts: Sequence[Package], outputs: Sequence[Output]) -> list[PackageInfo | None]:
        """Status-Abbrev is wanted (i install, h hold), state (i installed, U unpacked ...), error."""
        found: dict[str, PackageInfo] = {}
        for line in outputs[0].stdout.splitlines():
            name, status, version = (*line.split("|", 2), "", "", "")[:3]
            if len(status) >= 2 and status[1] not in "nc" and version:  # noqa: PLR2004 - two letters, then the error
                sound = status[1] == "i" and not status[2:].strip()
                found[name] = PackageInfo(version, held=status[0] == "h", sound=sound)
        return [found.get(fact.name) for fact in facts]
