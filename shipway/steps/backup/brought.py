"""A backup that is kept on this machine comes to the host that is to have its data, and is verified there."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from shipway.backup.kept import MANIFEST, LocalFolder, read_manifest
from shipway.backup.script import PLACE, ROOT
from shipway.backup.sealed import kept_as, parts_of
from shipway.backup.state import Backup, BackupsThere
from shipway.errors import Blocked, Permanent, Refused
from shipway.foreign.errors import describe_error
from shipway.host.session import Command, Host
from shipway.step import Drift, Impact
from shipway.steps.backup.kept import PART

OPERATION = "verify-backup"
VERIFY_SECONDS = 2400  # the throw-away etcd has 1800
# $0 the file, $1 how many bytes of the input are its next part: it grows at its end, root's alone from the first.
APPEND = (
    'umask 077; mkdir -p -- "${0%/*}" || exit 1; if [ "$1" = 0 ]; then : >>"$0"; '
    'else exec dd of="$0" bs="$1" count=1 iflag=fullblock oflag=append conv=notrunc status=none; fi'
)


async def _there(on: Host, script: str, name: str) -> Backup | None:
    state = await on.read(BackupsThere(script))
    return next((one for one in state.backups if one.name == name), None)


@dataclass(frozen=True)
class BackupBrought:
    """A backup of a folder of this machine is on the host; verified there it is only once it was restored there."""

    impact: ClassVar[Impact] = Impact.FILES
    script: str = field(repr=False)
    folder: LocalFolder
    backup: str
    root: str = ROOT
    name: str = "the backup that is kept on this machine is on the host"

    async def check(self, on: Host) -> Drift | None:
        """Compare the manifests' digests. Raises Refused SHW-734 for another one of that name, which stays."""
        kept = await asyncio.to_thread(self.folder.digest, self.backup)
        there = await _there(on, self.script, self.backup)
        if there is None:
            return Drift("not there", f"{self.backup} of {self.folder.own}")
        if there.digest == kept:
            return None
        message = f"the backup {self.backup} on the host is another one than that in {self.folder.own}"
        fix = f"See both (`manifest.json`), and move the wrong one away: on the host it is {self.root}/{self.backup}."
        raise Refused(message, host=on.name, code="SHW-734", fix=fix)

    async def apply(self, on: Host) -> None:
        """Send every file in parts, each compared with the manifest's SHA-256, and rename the folder into place.

        Raises Permanent SHW-731 for a file that is not the manifest's or cannot be read.
        """
        own = self.folder.own / self.backup
        part = f"{self.root}/.part-{self.backup}"
        try:
            text = await asyncio.to_thread((own / MANIFEST).read_text, encoding="utf-8")
            manifest = read_manifest(text, self.folder.cluster)
            await on.do(
                Command(("install", "-d", "-m", "700", "--", self.root)),
                Command(("rm", "-rf", "--", part)),
                Command(("install", "-d", "-m", "700", "--", part)),
            )
            for path, digest in manifest["files"].items():
                await self._send(on, own / path, f"{part}/{path}", digest)
            await self._send(on, own / MANIFEST, f"{part}/{MANIFEST}", hashlib.sha256(text.encode()).hexdigest())
        except OSError as error:
            message = f"the backup {self.backup} cannot be read in {self.folder.own}: {describe_error(error)}"
            raise Permanent(
                message, code="SHW-731", fix="Make it readable for this user, or name another one."
            ) from error
        await on.do(
            Command(("sync",), seconds=300), Command(("mv", "-T", "--", part, f"{self.root}/{self.backup}"), brief=True)
        )

    async def _send(self, on: Host, file: Path, to: str, digest: str) -> None:
        seen, parts = hashlib.sha256(), parts_of(kept_as(file.parent, file.name), PART)
        while (data := await asyncio.to_thread(next, parts, None)) is not None:
            seen.update(data)
            await on.do(Command(("bash", "-c", APPEND, to, str(len(data))), seconds=600, feed=data))
        if seen.hexdigest() != digest:
            fix = "Do not restore it: name another backup with `--from`, and see the disk of this machine (`dmesg`)."
            message = f"{file} is not the file that was taken"
            raise Permanent(message, code="SHW-731", fix=fix)


@dataclass(frozen=True)
class BackupVerified:
    """A backup on the host was restored into a throw-away etcd there, key by key."""

    impact: ClassVar[Impact] = Impact.FILES
    script: str = field(repr=False)
    backup: str
    root: str = ROOT
    name: str = "the backup is verified on the host that is to have its data"

    async def check(self, on: Host) -> Drift | None:
        """Look whether it is. Raises Blocked while it is not there."""
        there = await _there(on, self.script, self.backup)
        if there is None:
            raise Blocked(f"{self.backup} is not on the host yet", host=on.name)
        return None if there.verified else Drift("not restored by way of trial here", "restored, all keys there")

    async def apply(self, on: Host) -> None:
        """Let the host compare every SHA-256 and restore it, as a unit that lives on when this run does not."""
        await on.succeed(OPERATION, ("bash", PLACE, "verify", f"{self.root}/{self.backup}"), seconds=VERIFY_SECONDS)
