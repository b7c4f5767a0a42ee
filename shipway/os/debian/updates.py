"""Updates of the system's own packages on a host of a cluster, and why it asks to be restarted after them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText
from shipway.facts.packages import Pending, describe_pending
from shipway.foreign.numbers import whole
from shipway.host.session import Host
from shipway.known_failures.catalogue import failure
from shipway.os.debian.apt import APT, with_lock
from shipway.os.debian.dpkg import Installed
from shipway.os.debian.package_changes import (
    Changes,
    Packages,
    changes,
    is_kernel,
    matches,
    plain,
    refuse,
    simulation,
    stays,
)
from shipway.os.debian.packages import HELD_MEANWHILE, release_held, upgrade_without
from shipway.os.family import Scope
from shipway.step import Drift, Impact

UPGRADE = ("upgrade", "--with-new-pkgs")  # a kernel is a package of its own name each time; nothing is ever removed
SIMULATED = Says(simulation(*UPGRADE), 60)
INDEXED = "/var/lib/shipway/packages-indexed"  # apt's own files keep their dates where a mirror has nothing new
INDEX_SECONDS = 3600
ON_HOST = "'file:"  # a repository on the host itself: apt takes its files from where they lie
CLOCK = Says(("date", "+%s"))
# `Inst NAME [OLD] (NEW ORIGIN:VERSION/SUITE, ... [ARCH])`; OLD is missing of what is not installed.
_INST = re.compile(r"Inst (\S+)(?: \[([^\]]*)\])? \((\S+) ?([^\[)]*)")
_SECURITY = re.compile(r"Debian-Security:|-security\b")
PARTS = (
    ("libc", ("libc6", "libc-bin")),
    ("openssl", ("openssl", "libssl[0-9]*")),
    ("systemd", ("systemd*", "libsystemd*", "udev")),
    ("openssh", ("openssh-*",)),
    ("microcode", ("*-microcode",)),
)
# What runs from the boot on and is used by all: as needs-restarting(1) of dnf-utils has it for its systems.
CORE = ("libc6", "systemd", "dbus", "libssl[0-9]*", "*-microcode")
MARK = "/run/reboot-required"
# Updates that need another version of a package that stays: apt keeps them back, and says so only while that is held.
KEPT_BACK = "/var/lib/shipway/updates-kept-back"
INFO = "/var/lib/dpkg/info"  # NAME.list, or NAME:ARCH.list, is written when a package is unpacked
# Whoever holds one of apt's and dpkg's locks (fcntl): /proc/locks tells the inode, which another disk may have too, and
# the files that a process has open tell which it is. Prints its program's name.
LOCKS = (
    *("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock"),
    *("/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock"),
)
WHO_HOLDS = r"""
for lock; do
  inode=$(stat -c %i "$lock" 2>/dev/null) && lock=$(readlink -f "$lock") || continue
  for pid in $(awk -v end=":$inode" 'substr($6, length($6) - length(end) + 1) == end {print $5}' /proc/locks); do
    for file in "/proc/$pid"/fd/*; do
      [ "$(readlink "$file")" != "$lock" ] || echo "$(cat "/proc/$pid/comm") ($pid)"
    done
  done
done 2>/dev/null | sort -u
"""
HOLDERS = Says(("sh", "-c", WHO_HOLDS, "sh", *LOCKS))


def find_pending(simulated: str, packages: Packages, scope: Scope, *, kernel: bool) -> list[Pending]:
    """Return what of a simulated upgrade is wanted, by `apt-get -s`."""
    sources = {name: info.source for (name, _), info in packages.items()}
    found = []
    for name, old, new, origins in (match.groups() for match in map(_INST.match, simulated.splitlines()) if match):
        source = sources.get(plain(name), "")
        if stays(plain(name), source, kernel=kernel) or (scope == "security" and not _SECURITY.search(origins)):
            continue
        found.append(Pending(name, old or "", new, _part(plain(name), source)))
    return found


def _part(name: str, source: str) -> str:
    if is_kernel(name, source):
        return "kernel"
    return next((part for part, patterns in PARTS if matches(name, patterns)), "")


async def read_pending(on: Host, scope: Scope, *, kernel: bool) -> list[Pending]:
    """Return what is pending on a host, but for what apt kept back. Raises CommandFailed where apt cannot tell."""
    said, packages, kept = await on.read(SIMULATED, Installed(), FileText(KEPT_BACK))
    if not said.ok:
        raise failure(" ".join((*APT[:1], "-s", *UPGRADE)), said, host=on.name)
    lines = (kept or "").splitlines()
    return [one for one in find_pending(said.stdout, packages, scope, kernel=kernel) if _line(one) not in lines]


def _line(pending: Pending) -> str:
    return f"{pending.name} {pending.gets}"


@dataclass(frozen=True)
class PackagesIndexed:
    """apt knows what its repositories offered within the last hour."""

    impact: ClassVar[Impact] = Impact.FILES
    name: str = "the lists of packages are of the last hour"

    async def check(self, on: Host) -> Drift | None:
        """Compare the mark with the host's clock."""
        mark, clock = await on.read(FileState(INDEXED), CLOCK)
        age = (whole(clock.stdout.strip()) or 0) - mark.changed if mark else None
        if age is not None and age <= INDEX_SECONDS:
            return None
        return Drift("fetched by others, or never" if age is None else f"{age // 3600} h old", "an hour old at most")

    async def apply(self, on: Host) -> None:
        """Fetch them; a mirror that cannot be reached is an error here, and a warning for apt."""
        await with_lock(on, *APT, "-o", "APT::Update::Error-Mode=any", "update")
        await on.write(INDEXED, b"")


@dataclass(frozen=True)
class UpdatesFetched:
    """What is pending lies on the host."""

    impact: ClassVar[Impact] = Impact.FILES
    scope: Scope
    kernel: bool
    name: str = "the updates are fetched"

    async def _words(self, on: Host) -> tuple[str, ...]:
        pending = await read_pending(on, self.scope, kernel=self.kernel)
        return ("--no-remove", "install", "--", *(f"{one.name}={one.gets}" for one in pending)) if pending else ()

    async def check(self, on: Host) -> Drift | None:
        """Ask apt which files it would still have to fetch."""
        words = await self._words(on)
        if not words:
            return None
        said = await on.read(Says((*APT, "--print-uris", *words), 60))
        if not said.ok:
            return Drift("apt cannot tell which files", "all of them")
        left = [line for line in said.stdout.splitlines() if line.startswith("'") and not line.startswith(ON_HOST)]
        return Drift(f"{len(left)} files are not fetched", "all of them") if left else None

    async def apply(self, on: Host) -> None:
        """Fetch them."""
        await with_lock(on, *APT, "--download-only", *await self._words(on))


@dataclass(frozen=True)
class PackagesUpdated:
    """The system's own packages are the newest that are offered."""

    traps: ClassVar[tuple[int, ...]] = (3,)
    impact: ClassVar[Impact] = Impact.WORKLOADS
    scope: Scope
    kernel: bool
    removable: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The scope."""
        which = "every package" if self.scope == "all" else "every package with a security update"
        return f"{which} of the system is the newest offered"

    async def check(self, on: Host) -> Drift | None:
        """Ask apt; what a run that was broken off held meanwhile is drift too. Raises Refused SHW-327."""
        pending = await read_pending(on, self.scope, kernel=self.kernel)
        said, held = await on.read(SIMULATED, FileState(HELD_MEANWHILE))
        refuse(Changes(removed=changes(said.stdout).removed), {}, (), self.removable)
        if not pending and held is None:
            return None
        have = f"{describe_pending(pending)} to come" if pending else "packages are held by a run that was broken off"
        return Drift(have, "none")

    async def apply(self, on: Host) -> None:
        """Hold what stays, let apt upgrade, and let it go again. Raises Refused SHW-327, SHW-328, CommandFailed."""
        await release_held(on)
        said, packages = await on.read(SIMULATED, Installed())
        wanted = {one.name for one in find_pending(said.stdout, packages, self.scope, kernel=self.kernel)}
        offered = {match[1] for match in map(_INST.match, said.stdout.splitlines()) if match}
        others = {plain(name) for name in offered - wanted}
        stay = [
            info
            for (name, _), info in packages.items()
            if stays(name, info.source, kernel=self.kernel) or name in others
        ]
        kernels = [plain(name) for name in wanted if self.kernel]
        await upgrade_without(on, stay, *UPGRADE, asked=kernels, removable=self.removable)
        on.forget()
        if left := await read_pending(on, self.scope, kernel=self.kernel):
            before = (await on.read(FileText(KEPT_BACK)) or "").splitlines()
            await on.write(KEPT_BACK, "".join(f"{line}\n" for line in (*before, *map(_line, left))).encode())


async def find_restart_reasons(on: Host, since: float) -> list[str]:
    """Return the system's own mark with what it names, and what of the core changed since the boot."""
    mark, names = await on.read(FileState(MARK), FileText(f"{MARK}.pkgs"))
    found = []
    if mark is not None:
        for_what = ", ".join(dict.fromkeys((names or "").split()))
        found.append(f"the system asks for it ({for_what or MARK})")
    if changed := await find_changed(on, CORE, since):
        found.append(f"changed since the boot: {', '.join(changed)}")
    return found


async def find_changed(on: Host, names: Sequence[str], since: float) -> list[str]:
    """Return which packages (patterns of names) were unpacked after a moment, by the dates of dpkg's lists of files."""
    said = await on.read(Says(("find", INFO, "-maxdepth", "1", "-name", "*.list", "-newermt", f"@{int(since)}")))
    found = [line.rpartition("/")[2].removesuffix(".list").partition(":")[0] for line in said.stdout.splitlines()]
    return sorted({name for name in found if matches(name, names)})
