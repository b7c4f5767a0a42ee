"""Steps about systemd services: running, enabled, and running what their configuration says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from shipway.errors import Blocked
from shipway.facts.services import UnitState
from shipway.host.session import Command, Host
from shipway.step import Drift, Impact
from shipway.steps.system.loaded import is_loaded, restart

CONTAINERD = "containerd"


@dataclass(frozen=True)
class ServiceRuns:
    """A service is active (where `active`) and enabled."""

    impact: ClassVar[Impact] = Impact.START
    unit: str
    active: bool = True

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.unit} is {'active and ' if self.active else ''}enabled"

    @property
    def id(self) -> str:
        """The fact, apart from the lesser one of a unit that need not run yet."""
        return f"ServiceRuns {self.unit}" if self.active else f"ServiceEnabled {self.unit}"

    async def check(self, on: Host) -> Drift | None:
        """Ask systemd."""
        info = await on.read(UnitState(f"{self.unit}.service"))
        if info.load == "not-found":
            raise Blocked(f"{self.unit} is not installed yet", host=on.name)
        running = info.active == "active" or not self.active
        if running and info.enabled == "enabled":
            return None
        return Drift(f"{info.active}, {info.enabled or info.load}", "active, enabled" if self.active else "enabled")

    async def apply(self, on: Host) -> None:
        """Enable it, and start it where it should run; starting what stands still disturbs nobody."""
        commands = [
            Command(("systemctl", "unmask", "--quiet", self.unit)),
            Command(("systemctl", "enable", "--quiet", self.unit)),
        ]
        if self.active:
            commands.append(Command(("systemctl", "start", self.unit), seconds=120))
        await on.do(*commands)


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
        if info.load == "not-found":
            raise Blocked(f"{self.unit} is not installed yet", host=on.name)
        if info.needs_reload:
            return Drift(
                "its unit or a drop-in of it changed since systemd read them", "systemd has read them, started after"
            )
        return None if loaded else Drift("started before its configuration changed", "started after")

    async def apply(self, on: Host) -> None:
        """Restart it, and keep what it loaded.

        A drop-in that is new to systemd needs its files read anew first, which is asked for only then: it takes the
        device rights from running GPU containers (nvidia-container-toolkit#48), and so is a service's impact.
        """
        info = await on.read(UnitState(f"{self.unit}.service"))
        await restart(on, self.unit, self.files, reload=info.needs_reload)
