"""Steps about files: a file with a given content, and files that we share with other owners."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from shipway.errors import Blocked
from shipway.facts.commands import Says
from shipway.facts.files import FileInfo, FileState, FileText
from shipway.host.session import Command, Host
from shipway.step import Drift, Impact

UNKNOWN = "\ufffd"  # stands for what is no UTF-8, or for itself


def _short(digest: str) -> str:
    return digest[:12]


@dataclass(frozen=True)
class FileIs:
    """A file has exactly this content, mode and owner; contents travel only where the digest differs."""

    impact: ClassVar[Impact] = Impact.FILES
    together: ClassVar[bool] = True
    name: str
    path: str
    content: str = field(repr=False)  # it may hold a secret
    mode: str = "644"
    owner: str = "root:root"

    @property
    def digest(self) -> str:
        """The SHA-256 that the file should have."""
        return hashlib.sha256(self.content.encode()).hexdigest()

    async def check(self, on: Host) -> Drift | None:
        """Compare digest, mode and owner."""
        return self.drift(await on.read(FileState(self.path)))

    def drift(self, info: FileInfo | None) -> Drift | None:
        """Return the drift of a state."""
        want = f"{self.path} with sha256 {_short(self.digest)}, {self.mode} {self.owner}"
        if info is None:
            return Drift("no such file", want)
        if (info.sha256, info.mode, info.owner) == (self.digest, self.mode, self.owner):
            return None
        return Drift(f"sha256 {_short(info.sha256)}, {info.mode} {info.owner}", want)

    async def apply(self, on: Host) -> None:
        """Put the file in place."""
        await on.write(self.path, self.content.encode(), mode=self.mode, owner=self.owner)


@dataclass(frozen=True)
class FileEdited:
    """A shared file is as an edit leaves it; the edit keeps every foreign line, and editing twice is editing once."""

    impact: ClassVar[Impact] = Impact.FILES
    together: ClassVar[bool] = True
    name: str
    path: str
    edit: Callable[[str], str]
    want: str
    needed: bool = True

    async def check(self, on: Host) -> Drift | None:
        """See whether the edit would change anything."""
        text, info = await on.read(FileText(self.path), FileState(self.path))
        if text is None:
            if info is not None:
                raise Blocked(f"{self.path} cannot be read", host=on.name)
            return Drift(f"no {self.path}", self.want) if self.needed else None
        return None if self.edit(text) == text else Drift("not so", self.want)

    async def apply(self, on: Host) -> None:
        """Write the edited text, keeping mode and owner."""
        text, info = await on.read(FileText(self.path), FileState(self.path))
        mode, owner = (info.mode, info.owner) if info else ("644", "root:root")
        if UNKNOWN in (text or ""):
            text = await self._exact(on)
        edited = self.edit(text or "").encode(errors="surrogateescape")
        await on.write(self.path, edited, mode=mode, owner=owner)

    async def _exact(self, on: Host) -> str:
        """Return the text with each byte that is no UTF-8 kept (PEP 383): what a host answers has them replaced."""
        encoded = await on.read(Says(("base64", "-w0", "--", self.path)))
        try:
            return base64.b64decode(encoded.stdout).decode(errors="surrogateescape")
        except ValueError as error:
            raise Blocked(f"{self.path} cannot be read", host=on.name) from error


@dataclass(frozen=True)
class FileAbsent:
    """A file is not there."""

    impact: ClassVar[Impact] = Impact.FILES
    name: str
    path: str

    async def check(self, on: Host) -> Drift | None:
        """See whether it is there."""
        return Drift(f"{self.path} is there", "no such file") if await on.read(FileState(self.path)) else None

    async def apply(self, on: Host) -> None:
        """Remove it."""
        await on.do(Command(("rm", "-f", "--", self.path)))
