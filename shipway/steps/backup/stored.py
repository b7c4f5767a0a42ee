"""The newest verified backup is kept in an object store as well: it passes through this machine, and its disk never."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar

from shipway.backup.kept import MANIFEST, VERIFIED, read_manifest
from shipway.backup.script import ROOT
from shipway.backup.sealed import SUFFIX, sealing
from shipway.backup.state import Backup
from shipway.backup.store import Store, Upload
from shipway.facts.files import FileText
from shipway.host.session import Host
from shipway.step import Drift, Impact
from shipway.steps.backup.kept import BESIDE, compare_kept, newest_of, read_file


@dataclass(frozen=True)
class StoreReady:
    """The object store answers to this machine's credentials."""

    store: Store
    name: str = "the object store for backups answers to this machine"

    async def check(self, on: Host) -> Drift | None:  # noqa: ARG002 - this machine's affair
        """List what is there. Raises Refused SHW-758 without library or credentials, SHW-759 where they do not do."""
        await asyncio.to_thread(self.store.look)
        return None


@dataclass(frozen=True)
class KeptInStore:
    """The newest verified backup of the host is whole in the object store, by the SHA-256 that the store tells."""

    impact: ClassVar[Impact] = Impact.FILES
    script: str = field(repr=False)
    store: Store
    root: str = ROOT
    recipients: tuple[str, ...] = ()  # who alone can read it; none: it is in clear

    @property
    def name(self) -> str:
        """The fact."""
        return f"the newest verified backup is kept in {self.store.where}{', encrypted' if self.recipients else ''}"

    async def check(self, on: Host) -> Drift | None:
        """Compare the manifests' digests: the manifest is sent once every other object was compared."""
        newest = await newest_of(on, self.script)
        return await asyncio.to_thread(compare_kept, self.store, newest, sealed=bool(self.recipients))

    async def apply(self, on: Host) -> None:
        """Send every file in parts as it is read from the host, compared with the manifest, and then with the store.

        Raises Permanent SHW-731 for a file that is not the manifest's, SHW-760 for an object that is not what was sent.
        """
        newest = await newest_of(on, self.script)
        text = await on.read(FileText(f"{self.root}/{newest.name}/{MANIFEST}")) or ""
        manifest = read_manifest(text, self.store.cluster)
        await asyncio.to_thread(self.store.begin, newest.name, text)
        await self._send_all(on, newest, manifest["files"])
        verified = await on.read(FileText(f"{self.root}/{newest.name}/{VERIFIED}"))
        await asyncio.to_thread(self.store.put, f"{newest.name}/{VERIFIED}", (verified or "").encode())
        await asyncio.to_thread(self.store.finish, newest.name, text, sealed=bool(self.recipients))

    async def _send_all(self, on: Host, newest: Backup, files: Mapping[str, str]) -> None:
        left = newest.size + BESIDE
        for path, digest in files.items():
            key = f"{newest.name}/{path}{SUFFIX if self.recipients else ''}"
            left -= await self._send(on, f"{newest.name}/{path}", digest, Upload(self.store, key), left)

    async def _send(self, on: Host, path: str, digest: str, upload: Upload, most: int) -> int:
        """Send one file of at most so many bytes; return its size. Nothing of it stays where it is not whole."""
        stack = contextlib.ExitStack()
        try:
            write = stack.enter_context(sealing(upload, self.recipients)) if self.recipients else upload.write  # type: ignore[arg-type]
            size = await read_file(on, f"{self.root}/{path}", digest, most, write)
            await asyncio.to_thread(stack.close)
            await asyncio.to_thread(upload.finish)
        except BaseException as error:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(stack.close)
            await asyncio.to_thread(upload.abort)
            if isinstance(error, OSError) and upload.failed is not None:
                raise upload.failed from error
            raise
        return size


@dataclass(frozen=True)
class NotTooManyStored:
    """No more backups are kept in the object store than declared, and none that is too old; the newest always stays."""

    impact: ClassVar[Impact] = Impact.FILES
    store: Store
    keep: int
    days: int
    name: str = "no more backups are kept in the object store than declared"

    async def check(self, on: Host) -> Drift | None:  # noqa: ARG002 - a step of the host that it belongs to
        """List those that are too many, of those that are ours by their manifest."""
        many = await asyncio.to_thread(self.store.too_many, self.keep, self.days, datetime.now(UTC))
        want = f"at most {self.keep}, none older than {self.days} days"
        return Drift(f"{len(many)} too many or too old", want) if many else None

    async def apply(self, on: Host) -> None:  # noqa: ARG002 - as above
        """Remove them; raises Permanent SHW-759."""
        for name in await asyncio.to_thread(self.store.too_many, self.keep, self.days, datetime.now(UTC)):
            await asyncio.to_thread(self.store.remove, name)
