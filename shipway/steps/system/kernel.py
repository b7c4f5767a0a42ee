"""Steps about the kernel: modules, settings, and swap off now and after a reboot."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from shipway.edits.files import FileEdited
from shipway.edits.lines import with_modules
from shipway.errors import CommandFailed
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText, Listing
from shipway.facts.kernel import Sysctl
from shipway.facts.services import UnitState
from shipway.foreign.numbers import whole
from shipway.host.session import Command, Host
from shipway.step import Drift, Impact

NAT_WORKS = Says(("iptables", "-t", "nat", "-S"))
# Address translation comes with these, or with nf_tables: kernels are built without the older ones today (Linux 6.17
# leaves them out by default), and a minimal host has no iptables whose answer would tell.
NAT = ("ip_tables", "iptable_nat", "nf_nat")
NFT = ("nf_tables", "nft_chain_nat", "nft_compat")
# Services that turn swap on by themselves, by systemd's own word of what each loaded one starts: a program that does
# nothing else (swapon, zram-tools, zram-config, dphys-swapfile, systemd-swap, swapspace) makes it `only` one for swap,
# which is masked; a shell's line with swapon in it may do more, is `among-others`, and is reported. What only has the
# word among its options (kubelet --fail-swap-on) is none.
SWAP_PROGRAMS = "swapon|zramswap|init-zram-swapping|dphys-swapfile|systemd-swap|swapspace|zram-init|armbian-zram-config"
SERVICES_SCRIPT = r"""
systemctl show --no-pager -p Id -p LoadState -p ExecStart -- '*.service' 2>/dev/null | awk -v RS= -F'\n' '
/(^|\n)LoadState=masked/ {next}
{kind = ""}
/ExecStart=[^\n]*[ \/"=;]swapon[ ";]/ {kind = "among-others"}
/path=[^ ;]*[\/](PROGRAMS) ;/ {kind = "only"}
kind {for (i = 1; i <= NF; i++) if (sub(/^Id=/, "", $i)) print kind, $i}
'
""".replace("PROGRAMS", SWAP_PROGRAMS)
SWAP_SERVICES = Says(("bash", "-c", SERVICES_SCRIPT))
# Places that are a person's: they are reported, and never edited.
BOOT_SCRIPTS = ("/etc/rc.local", "/etc/crontab", "/etc/cron.d", "/var/spool/cron/crontabs")
SWAPON_LINES = Says(("grep", "-HnrsE", r"^[^#]*\bswapon\b", *BOOT_SCRIPTS))
SWAP_UNITS = Says(("systemctl", "list-units", "--type=swap", "--all", "--plain", "--no-legend", "--no-pager"))


@dataclass(frozen=True)
class ModulesLoaded:
    """The kernel modules are there: loaded, built in, or shown by what they do.

    modprobe's exit code is no proof: built-in modules without /lib/modules make it fail (seen on such kernels).
    """

    traps: ClassVar[tuple[int, ...]] = (10,)
    impact: ClassVar[Impact] = Impact.FILES
    modules: tuple[str, ...]

    @property
    def name(self) -> str:
        """The fact."""
        return f"kernel modules {', '.join(self.modules)} are there"

    async def _missing(self, on: Host) -> list[str]:
        loaded, filesystems, network, nat = await on.read(
            FileText("/proc/modules"), FileText("/proc/filesystems"), Listing("/proc/sys/net"), NAT_WORKS
        )
        known = {line.split(" ", 1)[0] for line in (loaded or "").splitlines()}
        if "overlay" in (filesystems or "").split():
            known.add("overlay")
        if "bridge" in network:
            known.add("br_netfilter")
        if nat.ok or set(NFT) <= known:  # the nat table answers or will, through these modules or through nf_tables
            known |= set(NAT)
        return [module for module in self.modules if module not in known]

    async def check(self, on: Host) -> Drift | None:
        """Look at what is loaded and at what works."""
        missing = await self._missing(on)
        return Drift(f"{', '.join(missing)} missing", "all there") if missing else None

    async def apply(self, on: Host) -> None:
        """Load each missing module; a failure shows when it is looked at again."""
        await _load(on, await self._missing(on))
        if set(NAT) & set(await self._missing(on)):
            await _load(on, NFT)


@dataclass(frozen=True)
class ModulesAtBoot:
    """A file of modules-load.d names the modules, as far as this kernel has them; its other lines stay.

    modprobe is asked, which looks up a module as systemd-modules-load does (libkmod). Where the kernel lacks one for
    address translation, those of nf_tables that it has are named. Without modprobe all are, and what it says of a
    module in other words than that it was not found (BusyBox's has no dry run) tells nothing.
    """

    traps: ClassVar[tuple[int, ...]] = (10,)
    impact: ClassVar[Impact] = Impact.FILES
    together: ClassVar[bool] = True
    path: str
    modules: tuple[str, ...]
    name: str = "kernel modules load at boot"

    async def _file(self, on: Host) -> FileEdited:
        asked = (*self.modules, *NFT)
        answers, _ = await asyncio.gather(  # together: one exchange
            on.read_all([Says(("modprobe", "-n", "--", module)) for module in asked]),
            on.read(FileText(self.path), FileState(self.path)),
        )
        lacking = [one for one, said in zip(asked, answers, strict=True) if f"Module {one} not found" in said.stderr]
        wanted = [module for module in self.modules if module not in lacking]
        if set(NAT) & set(lacking):
            wanted += [module for module in NFT if module not in lacking]
        return FileEdited(self.name, self.path, partial(with_modules, wanted=wanted, unknown=lacking), " ".join(wanted))

    async def check(self, on: Host) -> Drift | None:
        """Compare the file's lines with what the kernel has."""
        return await (await self._file(on)).check(on)

    async def apply(self, on: Host) -> None:
        """Add what is missing, and take out of our modules what this kernel does not have."""
        await (await self._file(on)).apply(on)


async def _load(on: Host, modules: Iterable[str]) -> None:
    """Load modules; built-in ones may fail here and work, so looking again tells."""
    for module in modules:
        with contextlib.suppress(CommandFailed):
            await on.do(Command(("modprobe", "--", module)))


@dataclass(frozen=True)
class SysctlsLive:
    """The kernel runs with these settings."""

    traps: ClassVar[tuple[int, ...]] = (10, 11)
    impact: ClassVar[Impact] = Impact.FILES
    values: Mapping[str, str]
    name: str = "kernel settings are live"
    title: str = ""  # what they are for, where a host has several sets

    async def check(self, on: Host) -> Drift | None:
        """Compare the live values."""
        live = await on.read_all([Sysctl(key) for key in self.values])
        wrong = [
            f"{key}={have if have is not None else 'absent'}"
            for (key, want), have in zip(self.values.items(), live, strict=True)
            if not _enough(key, have, want)
        ]
        want = ", ".join(f"{key}={value}" for key, value in self.values.items())
        return Drift(", ".join(wrong), want) if wrong else None

    async def apply(self, on: Host) -> None:
        """Set each value; the files that make them last are steps of their own."""
        await on.do(Command(("sysctl", "-q", "-w", *(f"{key}={value}" for key, value in self.values.items()))))


def _enough(key: str, have: str | None, want: str) -> bool:
    """Limits of inotify may be higher than asked; everything else must be equal."""
    limit = whole(have or "") if key.startswith("fs.inotify.") else None
    if limit is not None:
        return limit >= int(want)
    return have == want


@dataclass(frozen=True)
class SwapOff:
    """No swap is in use."""

    traps: ClassVar[tuple[int, ...]] = (9,)
    impact: ClassVar[Impact] = Impact.SERVICE
    name: str = "swap is off"

    async def check(self, on: Host) -> Drift | None:
        """Look at /proc/swaps: the first line is its head."""
        lines = (await on.read(FileText("/proc/swaps")) or "").strip().splitlines()[1:]
        devices = [line.split()[0] for line in lines if line.split()]
        return Drift(f"on: {', '.join(devices)}", "off") if devices else None

    async def apply(self, on: Host) -> None:
        """Turn all swap off; moving it back to memory may take minutes."""
        await on.do(Command(("swapoff", "-a"), seconds=600))


_SERVICE = re.compile(r"[A-Za-z0-9@][A-Za-z0-9:_.\\@-]*\.service")  # systemd.unit(5)


def _services(listed: str, kind: str) -> list[str]:
    """Return the names of one kind of SWAP_SERVICES' answer."""
    pairs = (line.partition(" ") for line in listed.splitlines())
    return [name for found, _, name in pairs if found == kind and _SERVICE.fullmatch(name)]


@dataclass(frozen=True)
class SwapStaysOff:
    """No systemd unit turns swap on again: swap.target, every swap unit and every service for swap are masked."""

    traps: ClassVar[tuple[int, ...]] = (9,)
    impact: ClassVar[Impact] = Impact.SERVICE
    name: str = "no unit turns swap on again"

    async def _open(self, on: Host) -> list[str]:
        target, listed, services = await on.read(UnitState("swap.target"), SWAP_UNITS, SWAP_SERVICES)
        units = [] if target.load == "masked" else ["swap.target"]
        for line in listed.stdout.splitlines():
            words = line.replace("●", " ").split()
            if len(words) > 1 and words[0].endswith(".swap") and words[1] != "masked":
                units.append(words[0])
        return [*units, *_services(services.stdout, "only")]

    async def check(self, on: Host) -> Drift | None:
        """Look for units that are not masked."""
        units = await self._open(on)
        return Drift(f"not masked: {', '.join(units)}", "all masked") if units else None

    async def apply(self, on: Host) -> None:
        """Mask them."""
        await on.do(Command(("systemctl", "mask", "--", *await self._open(on))))


@dataclass(frozen=True)
class NoScriptTurnsSwapOn:
    """No boot script, crontab or service's shell line turns swap on again; what does is reported by its place."""

    traps: ClassVar[tuple[int, ...]] = (9,)
    name: str = "no boot script turns swap on again"

    async def check(self, on: Host) -> Drift | None:
        """Look for swapon outside comments; rc.local counts where systemd would run it: executable."""
        lines, local, services = await on.read(SWAPON_LINES, FileState("/etc/rc.local"), SWAP_SERVICES)
        runs = local is not None and any(int(digit) & 1 for digit in local.mode)
        places = [":".join(line.split(":", 2)[:2]) for line in lines.stdout.splitlines() if line.count(":") > 1]
        found = [place for place in places if runs or not place.startswith("/etc/rc.local:")]
        found += _services(services.stdout, "among-others")
        return Drift(", ".join(f"{place} calls swapon" for place in found), "no such line") if found else None
