"""The newest verified backup is kept on this machine as well: fetched through the connection that is there."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Protocol

from shipway.backup.kept import MANIFEST, VERIFIED, LocalFolder, cannot_keep, open_private, read_manifest, write_private
from shipway.backup.script import ROOT
from shipway.backup.sealed import SUFFIX, Write, age, sealing
from shipway.backup.state import Backup, BackupsThere
from shipway.errors import Blocked, Permanent
from shipway.facts.fact import Fact, Words
from shipway.facts.files import FileText
from shipway.host.session import Host
from shipway.known_failures.catalogue import failure
from shipway.script import Output
from shipway.step import Drift, Impact

PART = 4 << 20  # bytes of a file in one exchange: what is held in memory at a time
BESIDE = 64 << 20  # bytes that the files beside a snapshot may have
READ = 'dd if="$0" bs="$2" skip="$1" count=1 iflag=fullblock status=none | base64 -w0'


@dataclass(frozen=True)
class FilePart(Fact[bytes]):
    """One part of a file, byte for byte; empty behind its end."""

    path: str
    number: int

    def words(self) -> Words:
        """Read it, in letters."""
        return ("bash", "-o", "pipefail", "-c", READ, self.path, str(self.number), str(PART))

    def parse(self, output: Output) -> bytes:
        """Return the bytes; raises CommandFailed without what was read, which is a secret."""
        try:
            if output.ok:
                return base64.b64decode(output.stdout, validate=True)
        except ValueError:  # binascii.Error, and what is no ASCII at all
            pass
        error = failure(f"dd if={self.path}", Output(output.status, "", output.stderr))
        error.may_retry = True
        raise error


class Keeping(Protocol):
    """A place in which backups are kept."""

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a kept backup's manifest; "" where it is not kept, or not whole."""

    def sealed(self, name: str) -> bool:
        """Say whether a kept backup is encrypted."""


async def newest_of(on: Host, script: str) -> Backup:
    """Return the newest verified backup of a host; raises Blocked where there is none."""
    newest = (await on.read(BackupsThere(script))).newest
    if newest is None:
        raise Blocked("no verified backup is there yet", host=on.name)
    return newest


def compare_kept(place: Keeping, newest: Backup, *, sealed: bool) -> Drift | None:
    """Return how what a place keeps differs from the newest backup, encrypted or not; raises as the place does."""
    kept = place.digest(newest.name)
    if kept == newest.digest:
        have, states = place.sealed(newest.name), {True: "encrypted", False: "in clear"}
        return None if have == sealed else Drift(states[have], states[sealed])
    return Drift(f"{newest.name} is not there" if not kept else "another one of that name", newest.name)


async def read_file(on: Host, path: str, digest: str, most: int, write: Write) -> int:
    """Read one file of a host of at most so many bytes, in parts that are written at once; return its size.

    Raises Permanent SHW-731 where it is not the file of this SHA-256 (hex), once all of it was written.
    """
    seen, number, size = hashlib.sha256(), 0, 0
    while True:
        on.forget()
        data = await on.read(FilePart(path, number))
        size, number = size + len(data), number + 1
        if size > most:
            break
        seen.update(data)
        await asyncio.to_thread(write, data)
        if len(data) < PART:
            break
    if seen.hexdigest() == digest and size <= most:
        return size
    fix = "See the host's disk (`dmesg | tail`), take another backup, and run again."
    raise Permanent(f"{path} is not the file that was taken", host=on.name, code="SHW-731", fix=fix)


@dataclass(frozen=True)
class KeptLocally:
    """The newest verified backup of the host is whole in a folder of this machine."""

    impact: ClassVar[Impact] = Impact.FILES
    script: str = field(repr=False)
    folder: LocalFolder
    root: str = ROOT
    recipients: tuple[str, ...] = ()  # who alone can read it; none: it is in clear

    @property
    def name(self) -> str:
        """The fact."""
        return f"the newest verified backup is kept in {self.folder.path}{', encrypted' if self.recipients else ''}"

    async def check(self, on: Host) -> Drift | None:
        """Compare the manifests' digests: a folder gets its name only once every file in it was compared."""
        newest = await newest_of(on, self.script)
        return await asyncio.to_thread(compare_kept, self.folder, newest, sealed=bool(self.recipients))

    async def apply(self, on: Host) -> None:
        """Fetch every file, compare its SHA-256 with the manifest's, and rename the folder into place.

        Raises Permanent SHW-731 for a file that is not the manifest's, SHW-732 where the folder cannot be written.
        """
        newest = await newest_of(on, self.script)
        text = await on.read(FileText(f"{self.root}/{newest.name}/{MANIFEST}"))
        manifest = read_manifest(text or "", self.folder.cluster)
        try:
            await self._fetch(on, newest, manifest["files"], text or "")
        except OSError as error:
            raise cannot_keep(self.folder.path, error) from error

    async def _fetch(self, on: Host, newest: Backup, files: Mapping[str, str], text: str) -> None:
        part = await asyncio.to_thread(self.folder.begin, newest.name)
        left = newest.size + BESIDE
        for path, digest in files.items():
            left -= await self._fetch_file(on, f"{newest.name}/{path}", digest, part / path, left)
        verified = await on.read(FileText(f"{self.root}/{newest.name}/{VERIFIED}"))
        await asyncio.to_thread(write_private, part / VERIFIED, (verified or "").encode())
        await asyncio.to_thread(write_private, part / MANIFEST, text.encode())
        await asyncio.to_thread(self.folder.finish, newest.name, part)

    async def _fetch_file(self, on: Host, path: str, digest: str, to: Path, most: int) -> int:
        """Fetch one file of at most so many bytes; return its size."""
        to = to.with_name(f"{to.name}{SUFFIX}") if self.recipients else to
        with await asyncio.to_thread(open_private, to) as file:
            with sealing(file, self.recipients) if self.recipients else contextlib.nullcontext(file.write) as write:
                size = await read_file(on, f"{self.root}/{path}", digest, most, write)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        return size


@dataclass(frozen=True)
class AgeThere:
    """The library that encrypts copies is on this machine."""

    name: str = "copies of backups can be encrypted on this machine"

    async def check(self, on: Host) -> Drift | None:  # noqa: ARG002 - this machine's affair
        """Import it. Raises Refused SHW-755."""
        age()
        return None


@dataclass(frozen=True)
class NotTooMany:
    """No more backups are kept on this machine than declared, and none that is too old; the newest always stays."""

    impact: ClassVar[Impact] = Impact.FILES
    folder: LocalFolder
    keep: int
    days: int
    name: str = "no more backups are kept on this machine than declared"

    async def check(self, on: Host) -> Drift | None:  # noqa: ARG002 - a step of the host that it belongs to
        """List those that are too many."""
        many = await asyncio.to_thread(self.folder.too_many, self.keep, self.days, datetime.now(UTC))
        want = f"at most {self.keep}, none older than {self.days} days"
        return Drift(f"{len(many)} too many or too old", want) if many else None

    async def apply(self, on: Host) -> None:  # noqa: ARG002 - as above
        """Remove them; raises Permanent SHW-732."""
        try:
            for name in self.folder.too_many(self.keep, self.days, datetime.now(UTC)):
                await asyncio.to_thread(self.folder.remove, name)
        except OSError as error:
            raise cannot_keep(self.folder.path, error) from error
