"""Steps about systemd services: running, enabled, and running what their configuration says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from shipway.errors import Blocked
from shipway.facts.services import UnitInfo, UnitState
from shipway.host.session import Command, Host
from shipway.step import Drift, Impact
from shipway.steps.system.loaded import is_loaded, restart

CONTAINERD = "containerd"


def _installed(info: UnitInfo, on: Host, unit: str) -> UnitInfo:
    """Return what systemd says of a service; raises Blocked where it knows none of that name."""
    if info.load == "not-found":
        raise Blocked(f"{unit} is not installed yet", host=on.name)
    return info


async def _state(on: Host, unit: str) -> UnitInfo:
    return _installed(await on.read(UnitState(f"{unit}.service")), on, unit)


@dataclass(frozen=True)
class ServiceEnabled:
    """A service starts with the host.

    To enable it lets systemd read its unit files anew, which takes the device rights from running GPU containers
    (nvidia-container-toolkit#48): that is a service's impact.
    """

    traps: ClassVar[tuple[int, ...]] = (28,)
    impact: ClassVar[Impact] = Impact.SERVICE
    unit: str

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.unit} is enabled"

    async def check(self, on: Host) -> Drift | None:
        """Ask systemd."""
        info = await _state(on, self.unit)
        return None if info.enabled == "enabled" else Drift(info.enabled or info.load, "enabled")

    async def apply(self, on: Host) -> None:
        """Enable it, also where it was masked."""
        await on.do(
            Command(("systemctl", "unmask", "--quiet", self.unit)),
            Command(("systemctl", "enable", "--quiet", self.unit)),
        )


@dataclass(frozen=True)
class ServiceRuns:
    """A service is active."""

    impact: ClassVar[Impact] = Impact.START
    unit: str

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.unit} runs"

    async def check(self, on: Host) -> Drift | None:
        """Ask systemd."""
        info = await _state(on, self.unit)
        return None if info.active == "active" else Drift(info.active, "active")

    async def apply(self, on: Host) -> None:
        """Start it: what stands still disturbs nobody by that, and no unit file is read anew."""
        await on.do(Command(("systemctl", "start", self.unit), seconds=120))


@dataclass(frozen=True)
class ServiceLoaded:
    """A service was started after its configuration last changed."""

    traps: ClassVar[tuple[int, ...]] = (22,)
    impact: ClassVar[Impact] = Impact.SERVICE
    unit: str
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.unit} runs its current configuration"

    @property
    def restarts(self) -> str:
        """The unit that applying it restarts."""
        return self.unit

    async def check(self, on: Host) -> Drift | None:
        """Compare what was loaded at its last start with what the files hold."""
        info, loaded = await asyncio.gather(
            on.read(UnitState(f"{self.unit}.service")), is_loaded(on, self.unit, self.files, same_second=False)
        )
        if _installed(info, on, self.unit).needs_reload:
            return Drift(
                "its unit or a drop-in of it changed since systemd read them", "systemd has read them, started after"
            )
        if loaded or info.active != "active":
            return None  # one that does not run reads its files when it is started, which is another step's affair
        return Drift("started before its configuration changed", "started after")

    async def apply(self, on: Host) -> None:
        """Restart it, and keep what it loaded.

        A drop-in that is new to systemd needs its files read anew first, which is asked for only then: it takes the
        device rights from running GPU containers (nvidia-container-toolkit#48), and so is a service's impact.
        """
        info = await on.read(UnitState(f"{self.unit}.service"))
        await restart(on, self.unit, self.files, reload=info.needs_reload)
