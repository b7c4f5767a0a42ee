"""A driver's packages on Debian and Ubuntu: one transaction, a pin, holds, headers, and the initramfs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from shipway.edits.files import FileAbsent, FileIs
from shipway.errors import Blocked, Permanent, Refused
from shipway.facts.boot import order_kernels
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText
from shipway.facts.packages import PackageInfo
from shipway.foreign.numbers import whole as number_of
from shipway.gpu.driver.packages import (
    FIRMWARE,
    MODULES,
    PATTERNS,
    is_in_step,
    is_open_part,
    open_twins,
    upstream,
    versions_of,
)
from shipway.host.session import Command, Host
from shipway.kube.nodes import few
from shipway.os.debian.apt import wait_for_lock
from shipway.os.debian.apt_sources import SOURCES_LIST, Distribution
from shipway.os.debian.dpkg import Installed
from shipway.os.debian.package_changes import change, changes, matches, plain, simulation
from shipway.os.debian.packages import PackagesInVersion, madison, offers, with_lists
from shipway.os.drivers import Choose
from shipway.os.release import RELEASE, os_release
from shipway.step import Check, Drift, Impact, Step

PIN = "/etc/apt/preferences.d/shipway-gpu-driver"
HELD = "/var/lib/shipway/driver-held"
UNATTENDED = "/etc/apt/apt.conf.d/51shipway-unattended"
NAMES = Says(("apt-cache", "pkgnames"))
# `Inst NAME [OLD] (NEW ORIGIN [ARCH])` of `apt-get -s`.
_INST = re.compile(r"Inst (\S+)(?: \[[^\]]*\])? \((\S+)")
_META = re.compile(r"linux-image-([a-z][a-z0-9.-]*)")  # a kernel's own package begins with its number
_IMAGE = re.compile(r"/boot/vmlinuz-(\S+)")
# Where Debian's archive has its drivers, and their firmware from Debian 12 on (its release notes, 5.1.1 there).
PARTS = ("contrib", "non-free", "non-free-firmware")
FIRST_WITH_FIRMWARE = 12
TARGETS = Says(
    (
        *("apt-get", "indextargets", "--no-release-info"),  # else only those whose lists were fetched are told
        *("--format", "$(SOURCESENTRY)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)", "Created-By: Packages"),
    )
)
TARGETS_BARS = 3
ALIASES = ("stable", "oldstable", "oldoldstable", "testing")  # a release's suite may be named so
KERNELS = Says(("sh", "-c", "uname -r; ls -1 /boot/vmlinuz-* 2>/dev/null"))
BUILDS = Says(("sh", "-c", 'for one in /lib/modules/*/build; do [ ! -e "$one" ] || echo "$one"; done'))
# When each boot image was made; "none" where nothing makes any, as in a container.
INITRDS = Says(("sh", "-c", "command -v update-initramfs >/dev/null || echo none; stat -c %Y /boot/initrd.img-*"))


def is_drivers(name: str, version: str) -> bool:
    """Say whether a package is a part of a driver: by its name, and by its version."""
    return matches(name, (*PATTERNS, FIRMWARE)) and bool(upstream(version))


async def installed_drivers(on: Host) -> dict[str, PackageInfo]:
    """Return a host's packages of a driver, by name."""
    found = await on.read(Installed())
    return {name: info for (name, _), info in found.items() if is_drivers(name, info.version)}


async def running_and_next(on: Host) -> tuple[str, ...]:
    """Return the kernel that runs and, where it is another one, the newest that is installed."""
    lines = (await on.read(KERNELS)).stdout.split()
    images = [match[1] for line in lines[1:] if (match := _IMAGE.fullmatch(line)) and "rescue" not in line]
    newest = max(images, key=order_kernels, default="")
    return tuple(dict.fromkeys(one for one in (*lines[:1], newest) if one))


async def kernel_flavours(on: Host) -> tuple[str, ...]:
    """Return the endings of the installed metapackages of kernels."""
    names = {name for name, _ in await on.read(Installed())}
    return tuple(sorted(match[1] for name in names if (match := _META.fullmatch(name))))


@dataclass(frozen=True)
class EarlyFile(FileIs):
    """A file of which boot images hold a copy has this content, and they were made after it."""

    together: ClassVar[bool] = False

    async def check(self, on: Host) -> Drift | None:
        """Compare the file, and the dates of the images with its own."""
        info, images = await on.read(FileState(self.path), INITRDS)
        if (wrong := self.drift(info)) is not None or info is None:
            return wrong
        words = images.stdout.split()
        old = [word for word in words if word.isdigit() and int(word) < info.changed]
        return Drift("boot images from before it", "made after it") if old and "none" not in words else None

    async def apply(self, on: Host) -> None:
        """Write it, and make the images anew."""
        await super().apply(on)
        if "none" not in (await on.read(INITRDS)).stdout.split():
            await on.succeed("initramfs", ("update-initramfs", "-u", "-k", "all"), seconds=1800)


async def missing_parts(on: Host) -> tuple[str, str]:
    """Return which parts of Debian's archive a host's sources lack that have its drivers, and how to add them."""
    said, text = await on.read(TARGETS, RELEASE)
    release = os_release(text or "")
    codename, number = release.get("VERSION_CODENAME", ""), number_of(release.get("VERSION_ID", ""))
    which = Distribution(codename)
    rows = [line.split("|") for line in said.stdout.splitlines() if line.count("|") == TARGETS_BARS]
    suites = (codename, *ALIASES)
    own = {part: entry for entry, uri, suite, part in rows if part and suite in suites and which.address(uri)}
    wanted = PARTS if number is None or number >= FIRST_WITH_FIRMWARE else PARTS[:-1]
    lacking = [part for part in wanted if part not in own]
    if not lacking:
        return "", ""
    where = ", ".join(sorted(set(own.values()))) or SOURCES_LIST
    fix = (
        f"Add them there: `{' '.join(dict.fromkeys((*own, *wanted)))}` behind `Components:` (a file .sources) or "
        f"`{codename}` (a line `deb`), or name all of them in `sources.base_apt.components`; then run again."
    )
    return f"its sources of {codename} ({where}) have no {', '.join(lacking)}", fix


def kept(version: str) -> list[Check[Host]]:
    """Return the pin, above every other version (1001 allows a way back), and what unattended-upgrades leaves alone."""
    pin = f"Package: {' '.join((*PATTERNS, FIRMWARE))}\nPin: version {version}*\nPin-Priority: 1001\n"
    names = "\n".join(f'  "^{pattern.rstrip("*")}";' for pattern in (*PATTERNS, FIRMWARE, MODULES))
    unattended = (
        "// Kept by Shipway: a driver changes on a drained host alone.\n"
        f"Unattended-Upgrade::Package-Blacklist {{\n{names}\n}};\n"
    )
    return [
        FileIs(f"apt takes no driver but {version}", PIN, pin),
        FileIs("unattended-upgrades leaves the driver alone", UNATTENDED, unattended),
    ]


@dataclass(frozen=True)
class HeadersInstalled:
    """The headers of the kernel that runs, of the next one, and of those that will follow are installed."""

    traps: ClassVar[tuple[int, ...]] = (4,)
    impact: ClassVar[Impact] = Impact.FILES
    name: str = "modules can be built for the running and the next kernel"

    async def _lacking(self, on: Host) -> list[str]:
        kernels, (builds, packages) = await running_and_next(on), await on.read(BUILDS, Installed())
        have = {line.split("/")[3] for line in builds.stdout.split() if line.count("/") > 3}  # noqa: PLR2004 - /lib/modules/KERNEL/
        names = {name for name, _ in packages}
        lacking = [f"linux-headers-{one}" for one in kernels if one not in have]
        metas = [f"linux-headers-{one}" for one in await kernel_flavours(on)]
        return [*lacking, *(one for one in (*metas, "dkms") if one not in names)]

    async def check(self, on: Host) -> Drift | None:
        """Look for each kernel's build folder, and for the packages that bring those of later ones."""
        lacking = await self._lacking(on)
        return Drift(f"missing: {', '.join(lacking)}", "installed") if lacking else None

    async def apply(self, on: Host) -> None:
        """Install them. Raises Refused SHW-690 where no repository has those of a kernel."""
        lacking = await self._lacking(on)
        offered = offers((await on.read(madison(lacking))).stdout)
        if gone := [one for one in lacking if one not in offered]:
            fix = (
                "Start the host with a kernel that its repositories still have (`apt-get install "
                "linux-image-KERNEL`, restart), then run again."
            )
            message = f"no repository of the host offers {few(gone)}: no module can be built for that kernel"
            raise Refused(message, host=on.name, code="SHW-690", fix=fix)
        await change(on, "install", "--no-install-recommends", "--", *lacking, asked=lacking)


@dataclass(frozen=True)
class DriverTogether:
    """A driver's packages have their versions, and no package of it has another one."""

    traps: ClassVar[tuple[int, ...]] = (5, 6)
    impact: ClassVar[Impact] = Impact.WORKLOADS
    id: ClassVar[str] = "DriverTogether"
    name: str
    choose: Choose = field(repr=False, compare=False)
    version: str
    options: ClassVar[tuple[str, ...]] = PackagesInVersion.options

    async def check(self, on: Host) -> Drift | None:
        """Compare each package, and look for what an update that was broken off left in another version."""
        wanted, packages = await self.choose(on), await on.read(Installed())
        have = {name: info for (name, _), info in packages.items()}
        wrong = [
            f"{name} {have[name].version if name in have else 'missing'}"
            for name, version in wanted.items()
            if name not in have or have[name].version != version or not have[name].sound
        ]
        versions = versions_of(wanted)
        wrong += [
            f"{name} {info.version}"
            for name, info in have.items()
            if name not in wanted and _is_other(name, info.version, versions)
        ]
        return Drift(few(wrong), ", ".join(f"{name} {version}" for name, version in wanted.items())) if wrong else None

    async def apply(self, on: Host) -> None:
        """Install all of them at once; where the lists do not have them, fetch those first.

        Raises Refused SHW-689 where apt would mix versions, SHW-686 where it does not have them, and as `change` does.
        """
        await with_lists(on, partial(self._install, on), Blocked, Permanent)

    async def _install(self, on: Host) -> None:
        """Install what is wanted with every part that the host has already, and all that comes with them.

        A part that nobody names keeps its version where its dependents let it: then libraries of two drivers lie side
        by side. Parts of the other flavour go. Raises Refused SHW-689 where one would come or stay in another version.
        """
        wanted, packages = await self.choose(on), await on.read(Installed())
        have = {name: info.version for (name, _), info in packages.items() if is_drivers(name, info.version)}
        others = [name for name in have if name not in wanted]
        asked = [*others, *(twin for name in others for twin in open_twins(name))]
        offered = offers((await on.read(madison(asked))).stdout) if asked else {}
        versions = versions_of(wanted)
        is_open = any(map(is_open_part, wanted))
        go = [
            name
            for name in others
            if (not is_open if is_open_part(name) else is_open and not open_twins(name).isdisjoint(offered))
        ]
        stay = {
            name: full
            for name in others
            for full in reversed([*offered.get(name, ()), have[name]])
            if name not in go and upstream(full) in versions
        }
        named = {**stay, **wanted}
        words = [*(f"{name}={version}" for name, version in named.items()), *(f"{name}-" for name in go)]
        (said,) = await on.do(Command(simulation("install", *self.options, "--", *words), 60))
        coming = {plain(match[1]): match[2] for match in map(_INST.match, said.stdout.splitlines()) if match}
        gone = {plain(name) for name in changes(said.stdout).removed}
        after = {name: version for name, version in {**have, **coming}.items() if name not in gone}
        if odd := [f"{name} {version}" for name, version in after.items() if _is_other(name, version, versions)]:
            message = f"apt would mix drivers: beside {', '.join(versions)} there would be {few(odd)}"
            fix = (
                f"On the host: `apt-cache policy {odd[0].split()[0]}` says where that comes from; take that source out."
            )
            raise Refused(f"{message}; nothing was changed", host=on.name, code="SHW-689", fix=fix)
        whole = {**named, **{name: after[name] for name in coming if name in after and is_drivers(name, after[name])}}
        words = [*(f"{name}={version}" for name, version in whole.items()), *(f"{name}-" for name in go)]
        modules = [name for name in (*coming, *(name for name, _ in packages)) if matches(name, (MODULES,))]
        await change(on, "install", *self.options, "--", *words, asked=[*whole, *modules], removable=[*have, *modules])


def _is_other(name: str, version: str, versions: set[str]) -> bool:
    """Say whether a package is a part of another driver than these; what has a version of its own is of none."""
    return is_drivers(name, version) and is_in_step(name) and upstream(version) not in versions


@dataclass(frozen=True)
class DriverHeld:
    """Every package of the driver is held, so that no upgrade in passing changes it under running pods."""

    traps: ClassVar[tuple[int, ...]] = (3, 6)
    impact: ClassVar[Impact] = Impact.FILES
    name: str = "every package of the driver is held"

    async def _loose(self, on: Host) -> list[str]:
        return [info.full_name for info in (await installed_drivers(on)).values() if not info.held]

    async def check(self, on: Host) -> Drift | None:
        """Ask dpkg."""
        loose = await self._loose(on)
        return Drift(f"not held: {few(loose)}", "held") if loose else None

    async def apply(self, on: Host) -> None:
        """Write down which they are, for what a person held stays so when ours are let go; then hold them."""
        loose, note = await self._loose(on), await on.read(FileText(HELD))
        names = dict.fromkeys([*(note or "").split(), *loose])
        await on.write(HELD, "".join(f"{name}\n" for name in names).encode())
        await wait_for_lock(lambda: on.do(Command(("apt-mark", "hold", *loose), seconds=120)))


@dataclass(frozen=True)
class DriverLoose:
    """No package of a driver is held by us; the driver itself stays."""

    impact: ClassVar[Impact] = Impact.FILES
    path: ClassVar[str] = HELD
    name: str = "no package of a driver is held by us"

    async def check(self, on: Host) -> Drift | None:
        """Look at what was written down."""
        return Drift("held by us", "not held") if await on.read(FileText(HELD)) is not None else None

    async def apply(self, on: Host) -> None:
        """Let go what is installed of it, then forget it."""
        note, packages = await on.read(FileText(HELD), Installed())
        held = [info.full_name for info in packages.values() if info.held and info.full_name in (note or "").split()]
        commands = [Command(("apt-mark", "unhold", *held), seconds=120)] if held else []
        await wait_for_lock(lambda: on.do(*commands, Command(("rm", "-f", HELD))))


def taken_back() -> list[Step[Host]]:
    """Return the steps that take back what kept a driver as it is; the driver stays."""
    mine = ((PIN, "apt's pin of a driver"), (UNATTENDED, "unattended-upgrades' list"))
    return [DriverLoose(), *(FileAbsent(f"{said} is no more", path) for path, said in mine)]


@dataclass(frozen=True)
class DebianDrivers:
    """A driver's packages of apt and dpkg; what each method promises stands in `shipway.os.drivers.Drivers`."""

    async def installed(self, on: Host) -> dict[str, PackageInfo]:
        """Ask dpkg."""
        return await installed_drivers(on)

    async def known(self, on: Host, words: Sequence[str]) -> list[str]:
        """Ask `apt-cache pkgnames`."""
        names = (await on.read(NAMES)).stdout.split()
        return sorted(name for name in names if any(word in name for word in words))

    async def missing_parts(self, on: Host) -> tuple[str, str]:
        """Ask `apt-get indextargets`, which knows every form of source."""
        return await missing_parts(on)

    async def unowned(self, on: Host, paths: Sequence[str]) -> list[str]:
        """Ask `dpkg -S`."""
        there = [path for path in paths if (await on.read(FileState(path))) is not None]
        found = await on.read_all([Says(("dpkg", "-S", path)) for path in there])
        return [path for path, said in zip(there, found, strict=True) if not said.ok]

    async def kernel_flavours(self, on: Host) -> tuple[str, ...]:
        """Look at the installed metapackages."""
        return await kernel_flavours(on)

    def early(self, name: str, path: str, content: str) -> EarlyFile:
        """Write it, and run update-initramfs."""
        return EarlyFile(name, path, content)

    def kept(self, version: str) -> Sequence[Check[Host]]:
        """Write a file of preferences, and one for unattended-upgrades."""
        return kept(version)

    def headers(self) -> HeadersInstalled:
        """Install linux-headers-KERNEL and its metapackage."""
        return HeadersInstalled()

    def together(self, name: str, choose: Choose, version: str) -> DriverTogether:
        """Run one `apt-get install`."""
        return DriverTogether(name, choose, version)

    def held(self) -> DriverHeld:
        """Run `apt-mark hold`."""
        return DriverHeld()
