"""Steps about apt repositories: a source with its own pinned key, and its lists fetched."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from shipway.cluster.parts import AptRepository
from shipway.edits.files import FileEdited
from shipway.errors import CommandFailed, Permanent, Refused
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText, Listing
from shipway.foreign.numbers import whole
from shipway.host.session import Command, Host
from shipway.os.debian.apt_sources import (
    SOURCES_LIST,
    SOURCES_PARTS,
    Distribution,
    is_source_file,
    without_entries,
    without_entry,
)
from shipway.os.release import RELEASE, os_release
from shipway.os.signing_key import SigningKey, read_key
from shipway.retry import steadily
from shipway.step import Drift, Impact

KEYRINGS = "/etc/apt/keyrings"
# 600 s for the lock: unattended-upgrades and cloud-init hold it for minutes on a new machine (kubespray#8737).
APT = (
    *("apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=600", "-o", "Acquire::Retries=3"),
    *("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"),
)
APT_SECONDS = 1800  # for lists and archives: what ends in the middle of these is fetched again
# For what installs: one ended in the middle leaves packages half installed. dkms builds a driver's modules within it,
# for each kernel: 1425 s measured on two busy cores, and over 1800 s on busier ones.
INSTALL_SECONDS = 7200
LOCK_SECONDS = 600.0
LOCK_EVERY = 5.0
LOCKED = "SHW-401"
APT_HELPER = "/usr/lib/apt/apt-helper"  # part of apt itself
OWN_SOURCES = (
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d/debian.sources",
    "/etc/apt/sources.list.d/ubuntu.sources",
)
MACHINES = {"amd64": "x86_64", "arm64": "sbsa"}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # uname(1), dpkg-architecture(1)


async def wait_for_lock(act: Callable[[], Awaitable[object]]) -> None:
    """Do what changes packages; a lock that apt's own option leaves out is waited for as well.

    Those are the lists' and the archives', and dpkg's own for plain dpkg and apt-mark. Raises what `act` raises:
    SHW-401 where another package manager is at work for longer than LOCK_SECONDS.
    """
    await steadily(act, every=LOCK_EVERY, seconds=LOCK_SECONDS, when=_is_locked)


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, CommandFailed) and error.code == LOCKED


async def with_lock(on: Host, *words: str, seconds: int = APT_SECONDS) -> None:
    """Run apt-get or dpkg as an operation of the host, as soon as no other package manager is at work."""
    await wait_for_lock(lambda: on.succeed("apt", words, seconds=seconds))


def fill_address(template: str, host_os: Mapping[str, str], minor: tuple[int, int]) -> str:
    """Fill the placeholders in a part of a repository's address; `{machine}` is the processor as NVIDIA calls it."""
    values = {
        "{os}": host_os.get("ID", ""),
        "{codename}": host_os.get("VERSION_CODENAME", ""),
        "{release}": host_os.get("VERSION_ID", "").replace(".", ""),
        "{arch}": host_os.get("arch", ""),
        "{machine}": MACHINES.get(host_os.get("arch", ""), ""),
        "{minor}": f"{minor[0]}.{minor[1]}",
    }
    for name, value in values.items():
        template = template.replace(name, value)
    return template


@dataclass(frozen=True)
class RepositoryIs:
    """An apt repository is configured with its own pinned key, and its lists are there."""

    traps: ClassVar[tuple[int, ...]] = (7,)
    impact: ClassVar[Impact] = Impact.FILES
    title: str
    repository: AptRepository
    minor: tuple[int, int]
    alone: bool = False  # replaces the distribution's own entries among the host's sources

    @property
    def name(self) -> str:
        """The fact."""
        return f"apt knows the {self.title} repository and its key"

    @property
    def _list(self) -> str:
        return f"/etc/apt/sources.list.d/shipway-{self.title}.list"

    @property
    def _keyring(self) -> str:
        return f"{KEYRINGS}/shipway-{self.title}.asc"

    @property
    def _accepted(self) -> str:
        return f"/var/lib/shipway/apt-{self.title}.accepted"

    async def _os(self, on: Host) -> dict[str, str]:
        release, machine = await on.read(RELEASE, Says(("uname", "-m")))
        found = machine.stdout.strip()
        return {**os_release(release or ""), "arch": ARCHITECTURES.get(found, found)}

    async def _line(self, on: Host) -> str:
        host_os = await self._os(on)
        uri, suite = (fill_address(part, host_os, self.minor) for part in (self.repository.uri, self.repository.suite))
        options = f"signed-by={self._keyring}"
        return f"deb [{options}] {uri} {' '.join((suite, *self.repository.components))}\n"

    async def check(self, on: Host) -> Drift | None:
        """Compare the source line, and the key's fingerprint and expiry."""
        line, (text, keyring, accepted), own = await asyncio.gather(
            self._line(on),
            on.read(FileText(self._list), FileState(self._keyring), FileText(self._accepted)),
            self._own(on),
        )
        if text != line:
            return Drift("no such source" if text is None else "another source line", line.strip())
        digest, fingerprints, expires = (*(accepted or "").split(), "", "", "")[:3]
        pinned = self.repository.key.fingerprint
        if keyring is None or keyring.sha256 != digest:
            return Drift("no key that was checked", f"key {pinned or 'checked'}")
        if pinned and pinned != fingerprints:
            return Drift(f"key {fingerprints}", f"key {pinned}")
        if own:
            return Drift(f"{', '.join(own)} names the distribution's own archive", "sources.base_apt alone")
        expired = 0 < (whole(expires) or 0) < time.time()
        return Drift("the key is expired", "a living key") if expired else None

    async def apply(self, on: Host) -> None:
        """Fetch and check the key, write the source, fetch its lists; the note that all is well comes last."""
        key = await self._key(on)
        line = await self._line(on)
        await self._step_aside(on, *line.split("] ", 1)[1].split()[:2])
        await on.write(self._keyring, key.armored.encode())
        await on.write(self._list, line.encode())
        if self.alone:
            await self._replace_own(on)
        only = ("-o", f"Dir::Etc::sourcelist={self._list}", "-o", "Dir::Etc::sourceparts=-")
        # A mirror that cannot be reached is a warning for apt: here it is an error.
        strict = ("-o", "APT::Get::List-Cleanup=0", "-o", "APT::Update::Error-Mode=any")
        await with_lock(on, *APT, *only, *strict, "update")
        digest = hashlib.sha256(key.armored.encode()).hexdigest()
        note = f"{digest} {','.join(key.fingerprints)} {key.expires}\n"
        await on.write(self._accepted, note.encode())

    async def _own(self, on: Host) -> dict[str, Callable[[str], str]]:
        """Return by path the edits that switch the distribution's own entries off, where there are any."""
        if not self.alone:
            return {}
        host_os, texts = await asyncio.gather(self._os(on), on.read_all([FileText(path) for path in OWN_SOURCES]))
        which = Distribution(host_os.get("VERSION_CODENAME", ""))
        edits = {path: partial(without_entries, path=path, which=which) for path in OWN_SOURCES}
        seen = zip(edits.items(), texts, strict=True)
        return {path: edit for (path, edit), text in seen if text is not None and edit(text) != text}

    async def _replace_own(self, on: Host) -> None:
        """Switch the distribution's own entries off; what somebody added beside them stays as it is."""
        for path, edit in (await self._own(on)).items():
            await FileEdited(self.name, path, edit, "").apply(on)

    async def _step_aside(self, on: Host, uri: str, suite: str) -> None:
        """Switch off other entries of the same address and suite: apt refuses two with different keys (Signed-By)."""
        names = [name for name in await on.read(Listing(SOURCES_PARTS)) if is_source_file(name)]
        paths = [SOURCES_LIST, *(f"{SOURCES_PARTS}/{name}" for name in names if not name.startswith("shipway-"))]
        for path, text in zip(paths, await on.read_all([FileText(path) for path in paths]), strict=True):
            edit = partial(without_entry, path=path, uri=uri, suite=suite)
            if text is not None and edit(text) != text:
                await FileEdited(self.name, path, edit, "").apply(on)

    async def _key(self, on: Host) -> SigningKey:
        """Return the key, checked here: a bare host may lack gpg and curl, but apt has a helper that fetches."""
        declared = self.repository.key
        encoded = "" if declared.path else await self._fetched(on)
        try:
            # What is no base64 is a ValueError, as what is no key is.
            data = Path(declared.path).expanduser().read_bytes() if declared.path else base64.b64decode(encoded)  # noqa: ASYNC240 - a few kilobytes
            key = read_key(data, declared.fingerprint)
            trouble = key.trouble(declared.fingerprint, now=time.time())
        except OSError as error:
            raise Refused(f"the {self.title} repository's key cannot be read: {error}", host=on.name) from error
        except ValueError as error:
            trouble = str(error)
        if trouble:
            fix = (
                "Compare with the vendor's published fingerprint; correct `fingerprint`, or the mirror that serves it."
            )
            message = f"the {self.title} repository's key is not accepted: {trouble}"
            raise Permanent(message, host=on.name, code="SHW-306", fix=fix)
        return key

    async def _fetched(self, on: Host) -> str:
        """Let the host fetch the key; return it in base64."""
        url = fill_address(self.repository.key.url or "", await self._os(on), self.minor)
        fresh = f"{self._keyring}.fetched"
        await on.do(
            Command(("install", "-d", "-m", "755", KEYRINGS)),
            Command((APT_HELPER, "-o", "Acquire::Retries=2", "download-file", url, fresh), seconds=200),
        )
        encoded = await on.read(Says(("base64", "-w0", fresh)))
        await on.do(Command(("rm", "-f", fresh)))
        return encoded.stdout
