"""Steps about apt repositories: a source with its own pinned key, and its lists fetched."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from shipway.cluster_parts import AptRepository
from shipway.errors import Permanent
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText
from shipway.host import Command, Host
from shipway.step import Drift, Impact

KEYRINGS = "/etc/apt/keyrings"
# 600 s for the lock: unattended-upgrades and cloud-init hold it for minutes on a new machine (kubespray#8737).
APT = (
    *("apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=600", "-o", "Acquire::Retries=3"),
    *("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"),
)
APT_SECONDS = 1800
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def os_release(text: str) -> dict[str, str]:
    """Give the pairs of /etc/os-release, unquoted."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}


def filled(template: str, host_os: Mapping[str, str], minor: tuple[int, int]) -> str:
    """Fill {os}, {codename}, {arch} and {minor} in a part of a repository's address."""
    values = {
        "{os}": host_os.get("ID", ""),
        "{codename}": host_os.get("VERSION_CODENAME", ""),
        "{arch}": host_os.get("arch", ""),
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
    alone: bool = False  # replaces the host's own sources

    @property
    def name(self) -> str:
        """The fact."""
        return f"apt knows the {self.title} repository and its key"

    @property
    def _list(self) -> str:
        return f"/etc/apt/sources.list.d/shipway-{self.title}.list"

    @property
    def _fetched(self) -> str:
        return f"/var/lib/shipway/apt-{self.title}.fetched"

    def _keyring(self) -> str:
        armored = (self.repository.key.path or self.repository.key.url or "").endswith((".asc", "gpg", ".key"))
        return f"{KEYRINGS}/shipway-{self.title}.{'asc' if armored else 'gpg'}"

    async def _line(self, on: Host) -> str:
        release, machine = await on.read(FileText("/etc/os-release"), Says(("uname", "-m")))
        host_os = os_release(release or "")
        host_os["arch"] = ARCHITECTURES.get(machine.stdout.strip(), machine.stdout.strip())
        uri, suite = (filled(part, host_os, self.minor) for part in (self.repository.uri, self.repository.suite))
        options = f"signed-by={self._keyring()}"
        return f"deb [{options}] {uri} {' '.join((suite, *self.repository.components))}\n"

    async def check(self, on: Host) -> Drift | None:
        """Compare the source line, and the key's fingerprint and expiry."""
        shows = Says(("gpg", "--show-keys", "--with-colons", self._keyring()))
        line, (text, shown, lists) = await asyncio.gather(
            self._line(on), on.read(FileText(self._list), shows, FileState(self._fetched))
        )
        if text != line:
            return Drift("no such source" if text is None else "another source line", line.strip())
        trouble = key_trouble(shown.stdout, self.repository.key.fingerprint)
        if trouble:
            return Drift(trouble, f"key {self.repository.key.fingerprint or 'readable'}, not expired")
        return None if lists else Drift("lists never fetched", "fetched")

    async def apply(self, on: Host, drift: Drift) -> None:  # noqa: ARG002 - all of it is made so
        """Fetch and check the key, write the source, fetch its lists."""
        await self._place_key(on)
        await on.write(self._list, (await self._line(on)).encode())
        if self.alone:
            for own in (
                "/etc/apt/sources.list",
                "/etc/apt/sources.list.d/debian.sources",
                "/etc/apt/sources.list.d/ubuntu.sources",
            ):
                if await on.read(FileState(own)):
                    await on.do(Command(("mv", "-f", own, f"{own}.before-shipway")))
        source = f"Dir::Etc::sourcelist={self._list}"
        only = ("-o", source, "-o", "Dir::Etc::sourceparts=-", "-o", "APT::Get::List-Cleanup=0")
        # A mirror that cannot be reached is a warning for apt: here it is an error.
        await on.succeed("apt", (*APT, *only, "-o", "APT::Update::Error-Mode=any", "update"), seconds=APT_SECONDS)
        await on.write(self._fetched, b"")

    async def _place_key(self, on: Host) -> None:
        """Put the key in place after its fingerprint is the pinned one."""
        key, fresh = self.repository.key, f"{KEYRINGS}/shipway-{self.title}.fetched"
        if key.path:
            await on.write(fresh, Path(key.path).expanduser().read_bytes())  # noqa: ASYNC240 - a few kilobytes
        else:
            release = await on.read(FileText("/etc/os-release"))
            url = filled(key.url or "", os_release(release or ""), self.minor)
            await on.do(
                Command(("install", "-d", "-m", "755", KEYRINGS)),
                Command(("curl", "-fsSL", "--retry", "2", "--max-time", "60", "-o", fresh, url), seconds=200),
                Command(("chmod", "644", fresh)),
            )
        shown = await on.read(Says(("gpg", "--show-keys", "--with-colons", fresh)))
        trouble = key_trouble(shown.stdout, key.fingerprint)
        if trouble:
            await on.do(Command(("rm", "-f", fresh)))
            fix = (
                "Compare with the vendor's published fingerprint; correct `fingerprint`, or the mirror that serves it."
            )
            raise Permanent(f"the {self.title} repository's key is not accepted: {trouble}", code="SHW-306", fix=fix)
        await on.do(Command(("mv", "-fT", fresh, self._keyring())))


def key_trouble(colons: str, fingerprint: str | None, *, now: float | None = None) -> str:
    """Give what is wrong with a key by gpg's colon listing ("" when nothing is): absent, expired, another one.

    Field 7 of a `pub` record is the expiry in seconds since 1970, field 10 of the `fpr` after it the fingerprint
    (GnuPG doc/DETAILS).
    """
    fingerprints: list[str] = []
    alive = False
    pub: list[str] = []
    for line in colons.splitlines():
        fields = line.split(":")
        if fields[0] == "pub" and len(fields) > 6:  # noqa: PLR2004 - field 7
            pub = fields
        elif fields[0] == "fpr" and pub and len(fields) > 9:  # noqa: PLR2004 - field 10
            fingerprints.append(fields[9])
            expiry = pub[6]
            expired = pub[1] == "e" or (expiry.isdigit() and float(expiry) < (time.time() if now is None else now))
            alive = alive or not expired
            pub = []
    if not fingerprints:
        return "no key there"
    if fingerprint and fingerprint not in fingerprints:
        return f"key {fingerprints[0]}"
    return "" if alive else f"key {fingerprints[0]} is expired"
