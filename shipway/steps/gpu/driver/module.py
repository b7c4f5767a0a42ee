"""The kernel's module of a driver: which one is loaded, why another one needs a restart, and what follows its load."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import ClassVar

from shipway.errors import Blocked, CommandFailed, Permanent
from shipway.facts.boot import order_kernels
from shipway.facts.commands import Says
from shipway.facts.files import FileText, Listing
from shipway.gpu.chosen import VENDOR
from shipway.gpu.driver.generations import SPACES, gpus, is_coherent, read_devices
from shipway.gpu.driver.packages import CONFIGURED, RIVAL_OUT, versions_of
from shipway.host.session import Command, Host
from shipway.os.drivers import Drivers
from shipway.os.family import Family
from shipway.redact import tail
from shipway.step import Drift, Impact, Step
from shipway.steps.maintain.restart import DKMS, IMAGES, KernelHasModule, find_kernels
from shipway.survey.notices import MODULES, kernels_with

LOADED = FileText(f"/sys/module/{VENDOR.module}/version")
# Says which of the two kernel modules it is: "NVIDIA UNIX Open Kernel Module for x86_64  580.159.04 ..."
VERSION = FileText("/proc/driver/nvidia/version")
IS_OPEN = "Open Kernel Module"
RUNNING_MODULES = FileText("/proc/modules")
DEVICES = Listing("/dev")
NODES = ("nvidiactl", "nvidia0", "nvidia-uvm")
MANAGER = VENDOR.fabric.manager if VENDOR.fabric else Says(("false",))
BUILD_SECONDS = 7200  # with other work on two cores it took 1425 s, and more than 1800 s on a busier machine
NOT_LOADED = "SHW-453"  # says of a program that the module is not loaded, which is no cause where that is what failed
_NUMBER = re.compile(r"\b\d{3}\.\d{2,3}(?:\.\d{2})?\b")
RIVAL = f"# Kept by Shipway: {VENDOR.rival_module} drives the same GPUs for no pod.\nblacklist {VENDOR.rival_module}\n"
RIVAL += f"options {VENDOR.rival_module} modeset=0\n"
COHERENT = "# Kept by Shipway: GPU memory is no memory of the node (branch 580 and later).\n"
COHERENT += "options nvidia NVreg_CoherentGPUMemoryMode=driver\n"
FIRST_COHERENT = 580  # the first branch with that option


def is_loaded(modules: str | None, name: str) -> bool:
    """Say whether a module is among those of /proc/modules."""
    return any(line.startswith(f"{name} ") for line in (modules or "").splitlines())


async def installed_version(on: Host, drivers: Drivers) -> str:
    """Return the version of the installed driver: several with a comma where they differ, "" where there is none."""
    found = await drivers.installed(on)
    return ", ".join(sorted(versions_of({name: info.version for name, info in found.items()})))


async def _need_installed(on: Host, drivers: Drivers) -> str:
    """Return the version of the installed driver. Raises Blocked where there is none yet."""
    if installed := await installed_version(on, drivers):
        return installed
    raise Blocked("no driver is installed yet", host=on.name)


async def why_restart_for(on: Host, family: Family) -> list[str]:
    """Return why a host is restarted for its driver: another one is loaded than is installed, or the rival is."""
    drivers = family.drivers()
    if drivers is None:
        return []
    installed, (loaded, modules) = await asyncio.gather(
        installed_version(on, drivers), on.read(LOADED, RUNNING_MODULES)
    )
    now = (loaded or "").strip()
    if now and installed and now != installed:
        return [f"driver {installed} is installed, and {now} is loaded"]
    rival = VENDOR.rival_module
    return [f"{rival} is loaded in the driver's place"] if is_loaded(modules, rival) else []


def early_files(drivers: Drivers) -> list[Step[Host]]:
    """Return the steps about files that the kernel reads when it starts."""
    name = f"{VENDOR.rival_module} is never loaded"
    return [drivers.early(name, RIVAL_OUT, RIVAL)]


@dataclass(frozen=True)
class MemoryIsDrivers:
    """Where a GPU's memory is a part of the host's (Grace), the driver keeps it, and no pod gets it as node memory."""

    impact: ClassVar[Impact] = Impact.FILES
    drivers: Drivers = field(repr=False)
    branch: int
    path: ClassVar[str] = CONFIGURED
    name: str = "memory of GPUs is no memory of the node"

    async def check(self, on: Host) -> Drift | None:
        """Look for such GPUs, then at the option."""
        if self.branch < FIRST_COHERENT or not any(
            is_coherent(one.id) for one in gpus(read_devices((await on.read(SPACES)).stdout))
        ):
            return None
        return await self._file().check(on)

    def _file(self) -> Step[Host]:
        return self.drivers.early(self.name, self.path, COHERENT)

    async def apply(self, on: Host) -> None:
        """Write the option; it counts from the next load."""
        await self._file().apply(on)


async def kernels_without(on: Host) -> tuple[list[str], str]:
    """Return the kernel that starts next where it has no module of the driver's, and what dkms says of it."""
    images, modules, dkms = await on.read(IMAGES, MODULES, DKMS)
    newest = max(find_kernels(images.stdout), key=order_kernels, default="")
    if not newest or newest in kernels_with(modules.stdout):
        return [], ""
    return [newest], tail(dkms.stdout, 3) if dkms.ok else ""


@dataclass(frozen=True)
class NextKernelHasModule:
    """The kernel that starts next has the driver's module."""

    traps: ClassVar[tuple[int, ...]] = (4,)
    impact: ClassVar[Impact] = Impact.FILES
    drivers: Drivers = field(repr=False)
    name: str = f"the kernel that starts next has {VENDOR.name}'s module"

    async def check(self, on: Host) -> Drift | None:
        """Look among its files. Raises Blocked while no driver is installed."""
        _, (lacking, told) = await asyncio.gather(_need_installed(on, self.drivers), kernels_without(on))
        return Drift(f"none for {lacking[0]}{f'; dkms says: {told}' if told else ''}", "one") if lacking else None

    async def apply(self, on: Host) -> None:
        """Let dkms build it. Raises Refused SHW-820 where nothing there could, CommandFailed where it does not."""
        lacking, _ = await kernels_without(on)
        if not (await on.read(DKMS)).ok:
            await KernelHasModule().check(on)
        for kernel in lacking:
            await on.succeed("dkms", ("dkms", "autoinstall", "-k", kernel), seconds=BUILD_SECONDS)


@dataclass(frozen=True)
class ModuleLoaded:
    """The installed driver's module is loaded."""

    traps: ClassVar[tuple[int, ...]] = (33,)
    impact: ClassVar[Impact] = Impact.START
    drivers: Drivers = field(repr=False)
    name: str = f"{VENDOR.name}'s module is loaded, in the installed version"

    async def check(self, on: Host) -> Drift | None:
        """Compare. Raises Blocked while no driver is installed."""
        installed, loaded = await asyncio.gather(_need_installed(on, self.drivers), on.read(LOADED))
        now = (loaded or "").strip()
        return None if now == installed else Drift(now or "none", installed)

    async def apply(self, on: Host) -> None:
        """Load it where none is. Raises Permanent SHW-691 where the kernel does not take it.

        One in another version is left as it is: a restart changes that.
        """
        if await on.read(LOADED) is not None:
            return
        try:
            await on.do(Command(("modprobe", VENDOR.module), seconds=300))
        except CommandFailed as error:
            if error.code not in ("", CommandFailed.default_code, NOT_LOADED):
                raise  # the catalogue knows why
            fix = (
                f"On the host: `dkms status`, `dmesg | grep -iE 'nvrm|{VENDOR.module}'`, `lspci -d {VENDOR.pci_id}:`; "
                "then run again."
            )
            said = "; ".join(tail(error.output or error.message, 3).splitlines())
            message = f"the kernel does not load {VENDOR.name}'s module: {said}"
            raise Permanent(message, host=on.name, code="SHW-691", fix=fix) from error


@dataclass(frozen=True)
class DevicesThere:
    """The driver's device nodes are there, those of CUDA's memory too, which nothing makes until somebody asks."""

    impact: ClassVar[Impact] = Impact.FILES
    name: str = "the GPUs' device nodes are there"

    async def check(self, on: Host) -> Drift | None:
        """List /dev. Raises Blocked while no module is loaded."""
        names, loaded = await on.read(DEVICES, LOADED)
        if loaded is None:
            raise Blocked(f"{VENDOR.name}'s module is not loaded yet", host=on.name)
        lacking = [name for name in NODES if name not in names]
        return Drift(f"no /dev/{', /dev/'.join(lacking)}", "there") if lacking else None

    async def apply(self, on: Host) -> None:
        """Let the driver's own program make them (nvidia-modprobe(1): 255 is nvidiactl)."""
        await on.do(Command(("nvidia-modprobe", "-u", "-c=255", "-c=0"), seconds=120))


@dataclass(frozen=True)
class Seen:
    """What a host has of a driver: installed, loaded and of its fabric manager, and whether its module is open."""

    installed: str = ""
    loaded: str = ""
    manager: str = ""
    is_open: bool | None = None


async def read_driver(on: Host, drivers: Drivers) -> Seen:
    """Return what a host has of a driver."""
    installed, (loaded, version, manager) = await asyncio.gather(
        installed_version(on, drivers), on.read(LOADED, VERSION, MANAGER)
    )
    found = _NUMBER.search(manager.stdout) if manager.ok else None
    return Seen(installed, (loaded or "").strip(), found[0] if found else "", IS_OPEN in version if version else None)
