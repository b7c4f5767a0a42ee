"""What the other steps wrote for apt and dpkg, taken back; packages stay as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from shipway.edits.files import FileEdited
from shipway.facts.files import FileText, Listing
from shipway.host.session import Command, Host
from shipway.os.debian.apt import KEYRINGS, wait_for_lock
from shipway.os.debian.apt_sources import SOURCES_LIST, SOURCES_PARTS, is_source_file, with_entries_again
from shipway.os.debian.dpkg import Package
from shipway.step import Drift, Impact

OURS = "shipway-"


@dataclass(frozen=True)
class SourcesTakenBack:
    """apt knows no source and no key of ours, and the host's own entries that we switched off are on again."""

    impact: ClassVar[Impact] = Impact.FILES
    name: str = "apt knows no source of ours"

    async def _ours(self, on: Host) -> tuple[list[str], dict[str, Callable[[str], str]]]:
        """Return our files, and by path the edits of files that are others'."""
        names, keys = await on.read(Listing(SOURCES_PARTS), Listing(KEYRINGS))
        files = [f"{SOURCES_PARTS}/{name}" for name in names if name.startswith(OURS)]
        files += [f"{KEYRINGS}/{name}" for name in keys if name.startswith(OURS)]
        others = [f"{SOURCES_PARTS}/{name}" for name in names if is_source_file(name) and not name.startswith(OURS)]
        paths = [SOURCES_LIST, *others]
        texts = await on.read_all([FileText(path) for path in paths])
        edits = {path: partial(with_entries_again, path=path) for path in paths}
        pairs = zip(edits.items(), texts, strict=True)
        return files, {path: edit for (path, edit), text in pairs if text is not None and edit(text) != text}

    async def check(self, on: Host) -> Drift | None:
        """List our files, and look for our marks in others."""
        files, edits = await self._ours(on)
        have = [*(path.rpartition("/")[2] for path in files), *(f"entries off in {path}" for path in edits)]
        return Drift(", ".join(have), "none of ours; what was off is on") if have else None

    async def apply(self, on: Host) -> None:
        """Remove the one, edit the other."""
        files, edits = await self._ours(on)
        if files:
            await on.do(Command(("rm", "-f", "--", *files)))
        await asyncio.gather(*(FileEdited(self.name, path, edit, "").apply(on) for path, edit in edits.items()))


@dataclass(frozen=True)
class PackagesLoose:
    """None of these packages is held any more."""

    impact: ClassVar[Impact] = Impact.FILES
    packages: tuple[str, ...]
    name: str = "no package is held by us"

    async def _held(self, on: Host) -> list[str]:
        infos = await on.read_all([Package(name) for name in self.packages])
        return [name for name, info in zip(self.packages, infos, strict=True) if info is not None and info.held]

    async def check(self, on: Host) -> Drift | None:
        """Ask dpkg."""
        held = await self._held(on)
        return Drift(f"held: {', '.join(held)}", "not held") if held else None

    async def apply(self, on: Host) -> None:
        """Let them go."""
        held = await self._held(on)
        await wait_for_lock(lambda: on.do(Command(("apt-mark", "unhold", *held), seconds=120)))
