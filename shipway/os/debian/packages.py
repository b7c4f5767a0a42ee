"""Steps about Debian packages: installed in a version, held, dpkg in order, base packages upgraded once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from shipway.errors import CommandFailed, Permanent, ShipwayError
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText
from shipway.facts.packages import PackageInfo
from shipway.host.session import Command, Host
from shipway.os.debian.apt import APT, INSTALL_SECONDS, wait_for_lock, with_lock
from shipway.os.debian.dpkg import Installed, Package
from shipway.os.debian.package_changes import change, foresee, frozen, plain, refuse
from shipway.os.family import Permit, permit_always
from shipway.ownership.evidence import ADMIN, CLIENT_FOLDER, KUBELET_CONF, PODS, has_client, running_pods
from shipway.step import Drift, Impact

AUDIT = Says(("dpkg", "--audit"))
UPGRADED = "/var/lib/shipway/base-upgraded"
# Written before the hold, removed with it: an interrupted upgrade knows which holds are its own and not a person's.
HELD_MEANWHILE = "/var/lib/shipway/held-during-upgrade"
# Debian Policy 5.6.7, and an architecture: what else dpkg may answer never becomes a word.
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9-]+)?")


def version_matches(have: str, want: str | None) -> bool:
    """Tell whether an installed Debian version is the wanted one: equal, or its continuation after -, +, ~ or dot."""
    if want is None:
        return True
    plain = have.split(":", 1)[-1]
    return want in (have, plain) or (plain.startswith(want) and plain[len(want)] in "-+~.")


async def with_lists(on: Host, act: Callable[[], Awaitable[None]], *lacking: type[ShipwayError]) -> None:
    """Do what needs apt's lists; where those are old, or it raises one of `lacking`, fetch them and do it once more."""
    try:
        await act()
    except ShipwayError as error:
        said_old = isinstance(error, CommandFailed) and any(sign in error.output for sign in ("404", "Unable to"))
        if not said_old and not isinstance(error, lacking):
            raise
        await with_lock(on, *APT, "update")
        await act()


@dataclass(frozen=True)
class PackagesInstalled:
    """Packages are there; what is missing is installed in its version, what is there keeps the one it has."""

    traps: ClassVar[tuple[int, ...]] = (1, 2)
    impact: ClassVar[Impact] = Impact.SERVICE
    name: str
    packages: Mapping[str, str | None]
    removable: tuple[str, ...] = ()  # what may be removed, should apt say that it must
    restarts: str = ""  # the unit that the packages' own scripts start anew
    permit: Permit = permit_always  # asked when it is looked and when it is installed
    options: ClassVar[tuple[str, ...]] = ("--no-install-recommends",)

    async def check(self, on: Host) -> Drift | None:
        """Ask dpkg, and where something is missing apt, which says what else would go.

        Raises Refused where that is more than what may be removed.
        """
        infos = await on.read_all([Package(name) for name in self.packages])
        wrong = [
            f"{name} {_say(info)}"
            for (name, want), info in zip(self.packages.items(), infos, strict=True)
            if self.wrong(info, want)
        ]
        if not wrong:
            return None
        await self.permit(on)
        want = ", ".join(f"{name}{' ' + version if version else ''}" for name, version in self.packages.items())
        return Drift(", ".join([*wrong, *await self._removals(on, infos)]), want)

    async def _removals(self, on: Host, infos: Sequence[PackageInfo | None]) -> list[str]:
        """Return what installing would remove, in words, or that apt cannot tell, for it does not know the packages."""
        asked = [
            f"{name}=*{want}*" if want else name
            for (name, want), info in zip(self.packages.items(), infos, strict=True)
            if self.wrong(info, want)
        ]
        foreseen = await foresee(on, "install", *self.options, "--", *asked)
        if foreseen is None:
            return ["what else that changes is reported once apt offers it"]
        if not foreseen.removed:
            return []
        refuse(foreseen, {}, [plain(name) for name in asked], self.removable)
        return [f"to install that, {', '.join(foreseen.removed)} will be REMOVED"]

    def wrong(self, info: PackageInfo | None, want: str | None) -> bool:  # noqa: ARG002 - the next class's affair
        """Tell whether a package is missing or half installed."""
        return info is None or not info.sound

    async def apply(self, on: Host) -> None:
        """Install the newest offered version that fits; where none does, fetch all lists once and look again."""
        await with_lists(on, partial(self._install, on), Permanent)

    async def _install(self, on: Host) -> None:
        infos = await on.read_all([Package(name) for name in self.packages])
        offered = offers((await on.read(madison(self.packages))).stdout)
        asked = []
        for (name, want), info in zip(self.packages.items(), infos, strict=True):
            if not self.wrong(info, want):
                continue
            fitting = [version for version in offered.get(name, []) if version_matches(version, want)]
            if want and not fitting:
                seen = ", ".join(offered.get(name, [])[:5]) or "nothing"
                message = f"no repository offers {name} {want}; offered: {seen}"
                fix = "Name a version that the repository offers, or a repository that offers this one (sources.apt)."
                raise Permanent(message, code="SHW-307", fix=fix)
            asked.append(f"{name}={fitting[0]}" if want else name)
        await self.permit(on)
        names = [plain(name) for name in asked]
        await change(on, "install", *self.options, "--", *asked, asked=names, removable=self.removable)


@dataclass(frozen=True)
class PackagesInVersion(PackagesInstalled):
    """Packages have their versions; changing one under running pods may end them, so it is never done unasked."""

    traps: ClassVar[tuple[int, ...]] = (5, 6)
    impact: ClassVar[Impact] = Impact.WORKLOADS
    # Only where workloads may be disturbed: a held package is one that somebody keeps for a reason, mostly ourselves.
    options: ClassVar[tuple[str, ...]] = (
        *PackagesInstalled.options,
        *("--allow-downgrades", "--allow-change-held-packages"),
    )

    def wrong(self, info: PackageInfo | None, want: str | None) -> bool:
        """Tell whether a package has another version than the wanted one."""
        return info is None or not info.sound or not version_matches(info.version, want)


def madison(names: Iterable[str]) -> Says:
    """Return the fact of what the host's repositories offer of packages; `offers` reads it."""
    return Says(("apt-cache", "madison", *names))


def offers(listed: str) -> dict[str, list[str]]:
    """Return the versions offered a package, newest first, from `apt-cache madison` (name | version | source)."""
    found: dict[str, list[str]] = {}
    for line in listed.splitlines():
        columns = [column.strip() for column in line.split("|")]
        if len(columns) >= 2 and columns[1] not in found.get(columns[0], []):  # noqa: PLR2004 - name and version
            found.setdefault(columns[0], []).append(columns[1])
    return found


def _say(info: PackageInfo | None) -> str:
    if info is None:
        return "missing"
    return info.version if info.sound else f"{info.version} half installed"


@dataclass(frozen=True)
class PackagesHeld:
    """Packages are held, so that no upgrade in passing changes them."""

    traps: ClassVar[tuple[int, ...]] = (3, 6)
    impact: ClassVar[Impact] = Impact.FILES
    packages: tuple[str, ...]

    @property
    def name(self) -> str:
        """The fact."""
        return f"{', '.join(self.packages)} {'are' if len(self.packages) > 1 else 'is'} held"

    async def check(self, on: Host) -> Drift | None:
        """Ask dpkg."""
        infos = await on.read_all([Package(name) for name in self.packages])
        loose = [name for name, info in zip(self.packages, infos, strict=True) if info is None or not info.held]
        return Drift(f"not held: {', '.join(loose)}", "held") if loose else None

    async def apply(self, on: Host) -> None:
        """Hold them."""
        await wait_for_lock(lambda: on.do(Command(("apt-mark", "hold", *self.packages), seconds=120)))


@dataclass(frozen=True)
class DpkgInOrder:
    """No package is left half installed by an interrupted run.

    What is half installed may be containerd, whose own script starts it anew when dpkg configures it.
    """

    traps: ClassVar[tuple[int, ...]] = (1,)
    impact: ClassVar[Impact] = Impact.SERVICE
    restarts: ClassVar[str] = "containerd"
    name: str = "dpkg is in order"
    removable: tuple[str, ...] = ()

    async def check(self, on: Host) -> Drift | None:
        """Dpkg --audit prints what is broken."""
        audit = await on.read(AUDIT)
        said = audit.stdout.strip().splitlines()
        return Drift(said[0][:120], "nothing half installed") if said else None

    async def apply(self, on: Host) -> None:
        """Finish what was begun; raises Refused where apt would rather remove a package than finish it."""
        words = ("dpkg", "--configure", "-a", "--force-confdef", "--force-confold")
        await with_lock(on, *words, seconds=INSTALL_SECONDS)
        await change(on, "-f", "install", removable=self.removable)


@dataclass(frozen=True)
class BaseUpgraded:
    """Base packages were upgraded once, before the host became part of a cluster; never after."""

    traps: ClassVar[tuple[int, ...]] = (3, 4)
    impact: ClassVar[Impact] = Impact.WORKLOADS
    name: str = "base packages were upgraded before the host joined"

    async def check(self, on: Host) -> Drift | None:
        """A host that is part of a cluster is never upgraded here."""
        (done, kubelet, admin), (clients, pods) = await asyncio.gather(
            on.read(FileState(UPGRADED), FileState(KUBELET_CONF), FileState(ADMIN)), on.read(CLIENT_FOLDER, PODS)
        )
        joined = kubelet or admin or has_client(clients) or running_pods(pods, on.name)
        return None if done or joined else Drift("never", "once")

    async def apply(self, on: Host) -> None:
        """Upgrade all but drivers, kernel and runtime, which are held meanwhile, each architecture of them."""
        await release_held(on)
        packages = await on.read(Installed())
        await with_lock(on, *APT, "update")
        await upgrade_without(on, frozen(packages), "upgrade")
        await on.write(UPGRADED, b"")


async def upgrade_without(
    on: Host,
    stay: Sequence[PackageInfo],
    *words: str,
    asked: Collection[str] = (),
    removable: Collection[str] = (),
) -> None:
    """Let apt upgrade with these words while packages are held that stay as they are; then none is held by this.

    Which they are is written down first: `release_held` lets go what a run that was broken off held. Raises as
    `change` does.
    """
    loose = [info.full_name for info in stay if not info.held and _NAME.fullmatch(info.full_name)]
    if loose:
        await on.write(HELD_MEANWHILE, "".join(f"{name}\n" for name in loose).encode())
        await wait_for_lock(lambda: on.do(Command(("apt-mark", "hold", *loose), seconds=120)))
    try:
        await change(on, *words, asked=asked, removable=removable)
    finally:
        if loose:
            await _unhold(on, loose)


async def release_held(on: Host) -> None:
    """Let go what an upgrade held meanwhile, this one or one that was broken off; what others hold stays held."""
    note, packages = await on.read(FileText(HELD_MEANWHILE), Installed())
    if note is not None:
        noted = note.split()
        await _unhold(on, [info.full_name for info in packages.values() if info.full_name in noted])


async def _unhold(on: Host, names: Sequence[str]) -> None:
    commands = [Command(("apt-mark", "unhold", *names), seconds=120)] if names else []
    await wait_for_lock(lambda: on.do(*commands, Command(("rm", "-f", HELD_MEANWHILE))))
