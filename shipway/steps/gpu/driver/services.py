"""What lives beside a driver: the daemon that keeps GPUs initialised, and the manager of switches, of its version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from shipway.errors import Blocked
from shipway.facts.files import FileText
from shipway.facts.services import UnitState
from shipway.gpu.chosen import VENDOR
from shipway.gpu.driver.generations import SPACES, SWITCH, read_devices
from shipway.gpu.driver.packages import MODULES_LOAD
from shipway.host.session import Command, Host
from shipway.step import Drift, Impact
from shipway.steps.gpu.driver.choice import MANAGED
from shipway.steps.gpu.driver.module import LOADED

PERSISTENCE = "nvidia-persistenced"
# Eight GPUs took more than two minutes in confidential guests (NVIDIA/nvrc#159).
START_SECONDS = 600
ENABLED = ("enabled", "static", "indirect", "generated")


async def _look(on: Host, unit: str) -> list[str]:
    """Return what of a unit is not so: active, and started with the host. Raises Blocked where it is not there."""
    info, loaded = await on.read(UnitState(f"{unit}.service"), LOADED)
    if loaded is None:
        raise Blocked(f"{VENDOR.name}'s module is not loaded yet", host=on.name)
    if info.load == "not-found":
        raise Blocked(f"{unit} is not installed yet", host=on.name)
    wrong = [] if info.active == "active" else [info.active]
    return wrong if info.enabled in ENABLED else [*wrong, info.enabled or info.load]


class _Started:
    """What starts a unit, now and with the host: systemd reads its units anew, which no GPU's pod may run beside."""

    impact: ClassVar[Impact] = Impact.SERVICE

    async def start(self, on: Host, unit: str, words: Sequence[str] = ()) -> None:
        """Start it, after a command of these words."""
        await on.do(
            *([Command(tuple(words), seconds=60)] if words else []),
            Command(("systemctl", "unmask", "--quiet", unit)),
            Command(("systemctl", "enable", "--quiet", unit)),
            Command(("systemctl", "start", unit), seconds=START_SECONDS),
        )


@dataclass(frozen=True)
class PersistenceRuns(_Started):
    """The daemon runs that keeps GPUs initialised while nobody uses them: without it each first use takes seconds."""

    unit: ClassVar[str] = PERSISTENCE
    name: str = f"{PERSISTENCE} runs, and starts with the host"

    async def check(self, on: Host) -> Drift | None:
        """Ask systemd."""
        wrong = await _look(on, self.unit)
        return Drift(", ".join(wrong), "active and enabled") if wrong else None

    async def apply(self, on: Host) -> None:
        """Enable and start it."""
        await self.start(on, self.unit)


@dataclass(frozen=True)
class FabricManaged(_Started):
    """Where a host has switches to manage, their manager runs; with those of NVLink 5 over a module of InfiniBand's.

    It is started, and never started anew by itself: GPUs lose their fabric with it (nccl#1488).
    """

    unit: ClassVar[str] = VENDOR.fabric.service if VENDOR.fabric else ""
    name: str = "switches of GPUs have their manager"

    async def _switches(self, on: Host) -> tuple[bool, bool]:
        """Return whether there are switches that the driver drives, and whether some of NVLink 5."""
        spaces, managed = await on.read(SPACES, MANAGED)
        older = any(one.kind == SWITCH for one in read_devices(spaces.stdout))
        return older, managed.ok and bool(managed.stdout.strip())

    async def check(self, on: Host) -> Drift | None:
        """Look for switches, then ask systemd."""
        older, newer = await self._switches(on)
        if not (self.unit and (older or newer)):
            return None
        wrong = await _look(on, self.unit)
        text = await on.read(FileText(MODULES_LOAD))
        if newer and text != self._text:
            wrong.append(f"{MODULES_LOAD} does not load what it needs")
        return Drift(", ".join(wrong), "active and enabled") if wrong else None

    @property
    def _text(self) -> str:
        module = VENDOR.fabric.module if VENDOR.fabric else ""
        return f"# Kept by Shipway: NVLink 5 is managed over it.\n{module}\n"

    async def apply(self, on: Host) -> None:
        """Load the module where it is needed, then enable and start the manager."""
        _, newer = await self._switches(on)
        words: tuple[str, ...] = ()
        if newer and VENDOR.fabric:
            await on.write(MODULES_LOAD, self._text.encode())
            words = ("modprobe", VENDOR.fabric.module)
        await self.start(on, self.unit, words)
