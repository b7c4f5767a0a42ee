"""Steps about the kernel: modules, settings, and swap off now and after a reboot."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from shipway.errors import CommandFailed
from shipway.facts.commands import Says
from shipway.facts.files import FileText, Listing
from shipway.facts.kernel import Sysctl
from shipway.facts.services import UnitState
from shipway.foreign_numbers import whole
from shipway.host import Command, Host
from shipway.step import Drift, Impact

NAT_WORKS = Says(("iptables", "-t", "nat", "-S"))
# Address translation comes with these, or with nf_tables: kernels are built without the older ones today (Linux 6.17
# leaves them out by default), and a minimal host has no iptables whose answer would tell.
NAT = ("ip_tables", "iptable_nat", "nf_nat")
NFT = ("nf_tables", "nft_chain_nat", "nft_compat")
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

    async def apply(self, on: Host, drift: Drift) -> None:  # noqa: ARG002 - what is missing is looked at anew
        """Load each missing module; a failure shows when it is looked at again."""
        await _load(on, await self._missing(on))
        if set(NAT) & set(await self._missing(on)):
            await _load(on, NFT)


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

    async def apply(self, on: Host, drift: Drift) -> None:  # noqa: ARG002 - all values are set
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

    async def apply(self, on: Host, drift: Drift) -> None:  # noqa: ARG002 - all of it goes
        """Turn all swap off; moving it back to memory may take minutes."""
        await on.do(Command(("swapoff", "-a"), seconds=600))


@dataclass(frozen=True)
class SwapStaysOff:
    """No systemd unit turns swap on again: swap.target and every swap unit are masked."""

    traps: ClassVar[tuple[int, ...]] = (9,)
    impact: ClassVar[Impact] = Impact.SERVICE
    name: str = "no unit turns swap on again"

    async def _open(self, on: Host) -> list[str]:
        target, listed = await on.read(UnitState("swap.target"), SWAP_UNITS)
        units = [] if target.load == "masked" else ["swap.target"]
        for line in listed.stdout.splitlines():
            words = line.replace("●", " ").split()
            if len(words) > 1 and words[0].endswith(".swap") and words[1] != "masked":
                units.append(words[0])
        return units

    async def check(self, on: Host) -> Drift | None:
        """Look for units that are not masked."""
        units = await self._open(on)
        return Drift(f"not masked: {', '.join(units)}", "all masked") if units else None

    async def apply(self, on: Host, drift: Drift) -> None:  # noqa: ARG002 - looked at anew
        """Mask them."""
        await on.do(Command(("systemctl", "mask", "--", *await self._open(on))))
