"""The check that apt can read its own sources."""

from __future__ import annotations

from dataclasses import dataclass

from shipway.facts.commands import Says
from shipway.facts.files import Listing
from shipway.host.session import Host
from shipway.os.debian.apt_sources import SOURCES_LIST, SOURCES_PARTS
from shipway.step import Drift

APT_SOURCES = Says(("apt-get", "indextargets", "--format", "$(SITE)"))


@dataclass(frozen=True)
class AptReadsSources:
    """apt can read its sources: one source named twice with two keys (Signed-By) ends every apt command."""

    name: str = "apt can read its sources"

    async def check(self, on: Host) -> Drift | None:
        """Let apt list its indexes, which needs neither network nor lock; its own words name the source."""
        said, names = await on.read(APT_SOURCES, Listing(SOURCES_PARTS))
        errors = [line.removeprefix("E: ") for line in said.stderr.splitlines() if line.startswith("E: ")]
        if said.ok or not errors:
            return None  # without apt-get the host is no Debian, which preflight tells
        files = ", ".join(name for name in names if name.endswith((".list", ".sources")))
        want = f"sources that agree: take the foreign entry out of {SOURCES_PARTS} ({files}) or {SOURCES_LIST}"
        return Drift("; ".join(errors)[:400], want)
