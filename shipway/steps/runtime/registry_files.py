"""The step about a file below certs.d: ours is kept, somebody else's is left alone."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from shipway.edits.containerd import KEPT
from shipway.edits.files import FileIs
from shipway.errors import Permanent
from shipway.facts.files import FileState, FileText
from shipway.host.session import Host
from shipway.step import Drift, Impact


def says(have: Mapping[str, Any], want: Mapping[str, Any]) -> bool:
    """Tell whether a hosts.toml brings about what another one does: its server, and its hosts first, in order."""
    mine, theirs = want.get("host", {}), have.get("host", {})
    if not isinstance(theirs, Mapping) or have.get("server") != want.get("server"):
        return False
    return list(theirs)[: len(mine)] == list(mine) and all(theirs[url] == door for url, door in mine.items())


@dataclass(frozen=True)
class RegistryHosts:
    """hosts.toml of a registry says what is declared; one without our first line is another owner's and stays.

    The order of its tables decides where containerd asks first, so two owners cannot share one file.
    """

    impact: ClassVar[Impact] = Impact.FILES
    together: ClassVar[bool] = True
    name: str
    path: str
    content: str = field(repr=False)  # it may hold a password
    mode: str = "644"

    async def check(self, on: Host) -> Drift | None:
        """Compare digest and mode; another owner's file is as wanted where it says the same.

        Raises Permanent (SHW-344) where it says something else.
        """
        if not await self._foreign(on):
            return self._ours.drift(await on.read(FileState(self.path)))
        return None

    @property
    def _ours(self) -> FileIs:
        return FileIs(self.name, self.path, self.content, self.mode)

    async def _foreign(self, on: Host) -> bool:
        """Tell whether the file there is another owner's, and says what is wanted."""
        info = await on.read(FileState(self.path))
        if info is None or info.sha256 == self._ours.digest:
            return False
        text = await on.read(FileText(self.path)) or ""
        if not text.strip() or text.startswith(KEPT):
            return False
        try:
            if says(tomllib.loads(text), tomllib.loads(self.content)):
                return True
        except ValueError:
            pass  # containerd cannot read it either
        message = f"{self.path} is there, was not written by Shipway, and does not say what the cluster file declares"
        fix = f"Put what it says into `sources` of the cluster file and move {self.path} away, then run again."
        raise Permanent(message, host=on.name, code="SHW-344", fix=fix)

    async def apply(self, on: Host) -> None:
        """Write the file where there is none, or ours. Raises Permanent (SHW-344) where it became another owner's."""
        if not await self._foreign(on):
            await self._ours.apply(on)
