"""Which driver a host gets: looked at on its bus, its kernels, and in what its repositories offer at that moment."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shipway.cluster.parts import Driver
from shipway.errors import Blocked, Refused
from shipway.facts.commands import Says
from shipway.gpu.chosen import VENDOR
from shipway.gpu.driver.generations import (
    SPACES,
    SWITCH,
    Device,
    flavours_of,
    generation_of,
    gpus,
    joins_hosts,
    read_devices,
)
from shipway.gpu.driver.packages import (
    SYSTEMS,
    Choice,
    Machine,
    Role,
    branch_of,
    in_order,
    is_in_step,
    match_roles,
    roles,
    upstream,
    versions_of,
)
from shipway.host.session import Host
from shipway.kube.nodes import few
from shipway.os.drivers import Drivers
from shipway.os.family import Family
from shipway.os.release import RELEASE, os_release
from shipway.step import Check
from shipway.survey.notices import RUNNING

KERNEL_DKMS = ("nvidia-kernel-dkms", "nvidia-open-kernel-dkms")  # Debian's own
SHOWN = 12  # names of packages in a refusal
# Where a host has NVSwitches of NVLink 5, as in `shipway.steps.gpu.healthy`.
_FABRIC = VENDOR.fabric
MANAGED = _FABRIC.managed if _FABRIC else Says(("false",))


def drivers_of(family: Family, driver: Driver, on: Host) -> Drivers:
    """Return how drivers are installed on a host. Raises Refused SHW-687 where its system is not known to do it."""
    found = family.drivers()
    if found is None or driver.source == "none":
        fix = "Install the driver by hand, and leave `gpu.driver` out of the cluster file."
        raise Refused("no driver is installed on this system by packages", host=on.name, code="SHW-687", fix=fix)
    return found


def choose_modules(devices: Sequence[Device], driver: Driver, on: Host) -> bool:
    """Return whether the open kernel modules are the right ones. Raises Refused SHW-685 where none or others are."""
    fitting = flavours_of(devices, driver.of_branch)
    kinds = ", ".join(dict.fromkeys(kind.name for one in gpus(devices) if (kind := generation_of(one.id))))
    if not fitting:
        message = (
            f"no kernel module drives all GPUs of this host ({kinds}): newer ones need the open one, older ones not"
        )
        fix = "Take the older or the newer GPUs out of the host, or keep some for virtual machines (vfio-pci)."
        raise Refused(message, host=on.name, code="SHW-685", fix=fix)
    if driver.flavour not in ("auto", *fitting):
        message = f"the {driver.flavour} kernel module does not drive this host's GPUs ({kinds})"
        fix = f"Write `gpu.driver.flavour: {fitting[0]}`, or leave it out."
        raise Refused(message, host=on.name, code="SHW-685", fix=fix)
    return (fitting[0] if driver.flavour == "auto" else driver.flavour) == "open"


@dataclass(frozen=True)
class Chooser:
    """Chooses the driver of a host as declared.

    What a host has of the branch it keeps where no version is declared; else it gets the newest one that every part of
    it is offered in: a fabric manager of another version drives nothing. `sources` are the steps that make known to the
    host what it gets drivers from: until they hold, nothing is said of what is not offered.
    """

    driver: Driver
    family: Family = field(repr=False)
    sources: Sequence[Check[Host]] = field(default=(), repr=False, compare=False)

    async def choose(self, on: Host) -> Choice:
        """Return it.

        Raises Blocked while the host's repositories offer nothing of the branch, Refused SHW-685 to SHW-687.
        """
        drivers, driver = drivers_of(self.family, self.driver, on), self.driver
        (spaces, managed, release, kernel), flavours, have = await asyncio.gather(
            on.read(SPACES, MANAGED, RELEASE, RUNNING), drivers.kernel_flavours(on), drivers.installed(on)
        )
        devices, system = read_devices(spaces.stdout), os_release(release or "").get("ID", "")
        if driver.source == "none" or system not in SYSTEMS[driver.source]:
            fix = (
                "Name another `gpu.driver.source`: `cuda` for Debian and Ubuntu, `debian` for Debian, `ubuntu` for "
                "Ubuntu, `dgx` for DGX OS."
            )
            message = f"{driver.source} has no drivers for this system ({system or 'unknown'})"
            raise Refused(message, host=on.name, code="SHW-687", fix=fix)
        machine = Machine(
            system,
            (kernel.stdout.strip(),),
            flavours,
            switches=any(one.kind == SWITCH for one in devices),
            newer_switches=managed.ok and bool(managed.stdout.strip()),
            joins_hosts=joins_hosts(devices),
        )
        open_modules = choose_modules(devices, driver, on)
        wanted = roles(driver.source, driver.of_branch, machine, open_modules=open_modules)
        offered = await self.family.offered(on, [name for role in wanted for name in role.names])
        there = {name: info.version for name, info in have.items()}
        best: list[str] = []
        for version in self._versions(wanted, offered, there):
            found, lacking = match_roles(wanted, _with(offered, there), version)
            if not lacking:
                fabric = any(role.what == "fabric manager" for role in wanted)
                return Choice(version, open_modules, tuple(found), found[0][0], fabric)
            best = best if best and len(best) <= len(lacking) else [f"{version}: {one}" for one in lacking]
        why, how = await drivers.missing_parts(on) if driver.source == "debian" else ("", "")
        first = next(role.names for role in wanted if role.exact)
        known = [full for name in first for full in offered.get(name, ())]
        if not (why or known) or await self._awaits(on, known):
            raise Blocked(f"the host's repositories offer no driver of {self.driver.said} yet", host=on.name)
        lacking = best or [f"{role.what} ({' or '.join(role.names)})" for role in wanted]
        message = await self._say_not_offered(on, drivers, lacking, offered)
        fix = "Name a `gpu.driver.version` or branch that is offered whole, or another source; nothing was changed."
        raise Refused(f"{message}; {why}" if why else message, host=on.name, code="SHW-686", fix=how or fix)

    async def _awaits(self, on: Host, known: Sequence[str]) -> bool:
        """Say whether no such driver is offered, and a source of drivers is still to be made known to the host."""
        if any(self._fits(upstream(full)) for full in known):
            return False
        return any([await one.check(on) is not None for one in self.sources])

    def _fits(self, version: str) -> bool:
        """Say whether a version is one of those that are declared."""
        if self.driver.version:
            return version == self.driver.version
        return bool(version) and branch_of(version) == self.driver.of_branch

    async def _say_not_offered(
        self, on: Host, drivers: Drivers, lacking: Sequence[str], offered: Mapping[str, Sequence[str]]
    ) -> str:
        """Return what is not offered, with the names and versions that the host does know."""
        words = (f"-{self.driver.of_branch}", "fabricmanager", "driver-cuda", "kernel-open-dkms", "nvidia-dkms")
        known = await drivers.known(on, KERNEL_DKMS if self.driver.source == "debian" else words)
        shown = f"{', '.join(known[:SHOWN])}{f' and {len(known) - SHOWN} more' if len(known) > SHOWN else ''}"
        versions = {upstream(full) for name, some in offered.items() if is_in_step(name) for full in some} - {""}
        told = f", and offer {', '.join(sorted(versions, key=in_order))}" if versions else ""
        return (
            f"the host's repositories do not offer a whole driver of {self.driver.said}: missing is "
            f"{few(list(lacking))}; they know {shown or 'none of its names'}{told}"
        )

    def _versions(
        self, wanted: Sequence[Role], offered: Mapping[str, Sequence[str]], have: Mapping[str, str]
    ) -> list[str]:
        """Return the versions that are worth a look, the best first: those that the host has, then the newest."""
        if self.driver.version:
            return [self.driver.version]
        names = [name for role in wanted if role.exact for name in role.names]
        there = versions_of(have)
        found = there | {upstream(full) for name in names for full in offered.get(name, ())}
        return sorted(
            filter(self._fits, found), key=lambda version: (version in there, in_order(version)), reverse=True
        )

    async def packages(self, on: Host) -> dict[str, str]:
        """Return the packages of the choice, each with its version."""
        return dict((await self.choose(on)).packages)


def _with(offered: Mapping[str, Sequence[str]], have: Mapping[str, str]) -> dict[str, list[str]]:
    """Return what is offered, and what is installed: that is had without any repository.

    What has versions of its own stays as it is where it is there.
    """
    found = {}
    for name in (*have, *offered):
        there = [have[name]] if name in have else []
        others = list(offered.get(name, ()))
        found[name] = list(dict.fromkeys([*others, *there] if is_in_step(name) else [*there, *others]))
    return found
