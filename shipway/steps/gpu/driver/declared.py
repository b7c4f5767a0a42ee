"""A driver on a host in service: compared with what is declared, and never changed beside running pods."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import ClassVar

from shipway.cluster.parts import Driver
from shipway.errors import Blocked, Refused
from shipway.gpu.driver.packages import branch_of
from shipway.host.session import Host
from shipway.os.family import Family
from shipway.step import Drift, Impact
from shipway.steps.gpu.driver.choice import Chooser
from shipway.steps.gpu.driver.module import Seen, kernels_without, read_driver, why_restart_for


@dataclass(frozen=True)
class DriverDeclared:
    """The driver is the declared one: its packages, its module in the kernel and in the next one, its fabric manager.

    `how` is the command that changes it: applying this changes nothing.
    """

    impact: ClassVar[Impact] = Impact.WORKLOADS
    driver: Driver
    family: Family = field(repr=False)
    how: str
    name: str = "the GPUs' driver is as declared"

    async def check(self, on: Host) -> Drift | None:
        """Compare; a source that the host does not know yet leaves what its packages are called open."""
        drivers = self.family.drivers()
        if drivers is None:
            return None
        seen, (lacking, told), again = await asyncio.gather(
            read_driver(on, drivers), kernels_without(on), why_restart_for(on, self.family)
        )
        wrong = [*self._compare(seen), *again]
        if seen.installed and lacking:
            wrong.append(f"kernel {lacking[0]} starts next and has no module{f' (dkms: {told})' if told else ''}")
        if not wrong:
            wrong += await self._parts(on)
        return Drift("; ".join(wrong), f"{self.driver.said}; `{self.how}` brings it, host by host") if wrong else None

    def _compare(self, seen: Seen) -> list[str]:
        wrong = []
        if not seen.installed:
            wrong.append("no package of a driver is installed")
        elif "," in seen.installed:
            wrong.append(f"packages of several drivers are installed: {seen.installed}")
        elif (
            seen.installed != (self.driver.version or seen.installed)
            or branch_of(seen.installed) != self.driver.of_branch
        ):
            wrong.append(f"{seen.installed} is installed")
        if seen.installed and not seen.loaded:
            wrong.append("none is loaded")
        if seen.manager and seen.installed and seen.manager != seen.installed:
            wrong.append(f"the fabric manager is {seen.manager}")
        if seen.is_open is not None and self.driver.flavour not in ("auto", "open" if seen.is_open else "proprietary"):
            wrong.append(f"the {'open' if seen.is_open else 'proprietary'} kernel module is loaded")
        return wrong

    async def _parts(self, on: Host) -> list[str]:
        """Return which parts are missing that a host of this kind needs, as a fabric manager."""
        try:
            packages = await Chooser(self.driver, self.family).packages(on)
        except (Blocked, Refused):
            return []
        infos = await asyncio.gather(*(on.read(self.family.package(name)) for name in packages))
        lacking = [name for name, info in zip(packages, infos, strict=True) if info is None]
        return [f"missing: {', '.join(lacking)}"] if lacking else []

    async def apply(self, on: Host) -> None:
        """Raise Refused SHW-693: a driver in service is changed on a drained host, by maintenance alone."""
        fix = f"Run `{self.how}`: it drains host by host, and proves each one."
        raise Refused(
            "the driver of a host in service is not changed in passing", host=on.name, code="SHW-693", fix=fix
        )
