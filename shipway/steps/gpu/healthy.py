"""Checks of a host's GPUs before anything is changed: on PCI, answered for by the driver, joined by their fabric."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from shipway.facts.commands import Says
from shipway.facts.files import FileText
from shipway.facts.services import UnitInfo, UnitState
from shipway.gpu.chosen import VENDOR
from shipway.gpu.vendor import Fabric, Vendor
from shipway.host.session import Host
from shipway.known_failures.catalogue import diagnose
from shipway.known_failures.gpu import ENTRIES
from shipway.script import Output
from shipway.step import Drift
from shipway.survey.first_look import KERNEL_LOG, Survey, survey

SECURE_BOOT = Says(("mokutil", "--sb-state"))
COMM = 15  # characters of a process's name that the kernel keeps (TASK_COMM_LEN)
_VERSION = r"\b[0-9]+\.[0-9]+(?:\.[0-9]+)?\b"


@dataclass(frozen=True)
class GpusHealthy:
    """The declared GPUs are there, and the driver answers."""

    traps: ClassVar[tuple[int, ...]] = (4, 32, 33)
    declared: int | None
    name: str = "GPUs are on PCI and the driver answers"
    vendor: Vendor = VENDOR
    comes: bool = False  # the driver is installed later, unless the host has joined

    async def check(self, on: Host) -> Drift | None:
        """Compare PCI, driver and declaration; where the driver does not answer the kernel's log may say why.

        GPUs that are not meant for pods (held for a virtual machine, not supported by the driver) do not count; one
        without a driver for no known reason does, unless the declared number is what the driver shows.
        """
        seen, modules = await asyncio.gather(survey(on, self.vendor), on.read(FileText("/proc/modules")))
        want = seen.gpus if self.declared is None else self.declared
        if want == 0 or (seen.unbound and seen.driver_gpus == want):
            return None
        if seen.gpus != want:
            without = f" ({'; '.join(seen.left_out)})" if seen.left_out else ""
            return Drift(f"{seen.gpus} on PCI{without}", f"{want} GPUs")
        if self.comes and not seen.joined:
            return None
        rival = self.vendor.rival_module
        if rival and any(line.startswith(f"{rival} ") for line in (modules or "").splitlines()):
            return Drift(self.vendor.rival, f"{self.vendor.name}'s driver (blacklist {rival}, reboot)")
        return None if seen.driver_gpus == want else await _not_driven(on, seen, want, self.vendor)


async def _not_driven(on: Host, seen: Survey, want: int, vendor: Vendor) -> Drift:
    """Return what is reported of a driver that shows another number of GPUs."""
    lists = f"{vendor.program} lists {want} GPUs"
    if seen.driver_said == vendor.hangs:
        return Drift(vendor.hangs, f"{lists} (reboot the host: nothing else ends it)")
    if seen.unbound:
        have = f"the driver shows {seen.driver_gpus}; {', '.join(seen.unbound)} on PCI has no driver"
        return Drift(have, f"{lists}, or `gpus: {seen.driver_gpus}` to go on without it")
    said = " ".join(seen.driver_said.split()) or f"the driver shows {seen.driver_gpus}"
    said = f"the driver says: {said}" if seen.driver_said and not diagnose(said) else said
    why = await _kernel_says(on)
    return Drift(f"{said}; {why}" if why else said, f"{lists} (install or reload the driver)")


async def _kernel_says(on: Host) -> str:
    """Return what the kernel's log says of the driver's module, and whether Secure Boot may have refused it."""
    log, boot = await on.read(KERNEL_LOG, SECURE_BOOT)
    entries = {entry.code for entry in ENTRIES}
    lines = [line for line in log.stdout.splitlines() if (known := diagnose(line)) and known.code in entries]
    said = [f"the kernel says: {lines[-1].strip()[:160]}"] if lines else []
    return "; ".join([*said, *(["Secure Boot is on"] if "SecureBoot enabled" in boot.stdout else [])])


@dataclass(frozen=True)
class FabricReady:
    """Where switches join the GPUs of a machine, their manager lives, in the driver's own version, and has joined them.

    The driver shows all GPUs without it, and CUDA fails with error 802 (gpu-operator#544). Machines with such switches,
    or with InfiniBand, cost a second round trip; all others are distinguished in the first. Where a host manages no
    switches (GB200: others do; GH200: there are none) no manager is missing; a GPU that tells no state is not judged.
    """

    traps: ClassVar[tuple[int, ...]] = (31,)
    name: str = "the GPUs' fabric is ready"
    vendor: Vendor = VENDOR

    async def check(self, on: Host) -> Drift | None:
        """Ask the service, its processes, the two versions, and the state that each GPU tells."""
        fabric = self.vendor.fabric
        if fabric is None:
            return None
        switches, ports = await on.read(fabric.switches, fabric.ports)
        if not switches and not ports:
            return None
        (unit, driver, manager, running), (managed, loaded, gpus) = await asyncio.gather(
            on.read(UnitState(f"{fabric.service}.service"), fabric.driver, fabric.manager, fabric.running),
            on.read(fabric.managed, fabric.loaded, fabric.states),
        )
        newer = not switches and bool(managed.stdout.strip())
        beside = fabric.beside if newer else ()
        want = "every GPU's fabric Completed and Success"
        if switches or newer:
            more = f" with {', '.join((*beside, fabric.module))}" if newer else ""
            want = f"{fabric.service} active in the driver's version{more}, {want}"
            wrong = _of_unit(unit, fabric) or _of_versions(driver, manager.stdout, fabric)
            wrong = wrong or _of_processes(running, (fabric.process, *beside), fabric)
            if wrong or (newer and not loaded):
                return Drift(wrong or f"{fabric.module} is not loaded", want)
        verdicts = fabric.judge(gpus.stdout)
        # Switches of the newer kind are told of by nobody else: what such a GPU does not say counts against it.
        faults = Counter(one.why for one in verdicts if one.word == "sick" or (newer and one.word != "ok"))
        return Drift("; ".join(f"{why} on {count} GPUs" for why, count in faults.items()), want) if faults else None


def _of_unit(unit: UnitInfo, fabric: Fabric) -> str:
    if unit.active == "active":
        return ""
    return f"{fabric.service} is {unit.active if unit.load != 'not-found' else 'not installed'}"


def _of_versions(driver: str | None, manager: str, fabric: Fabric) -> str:
    ours, theirs = re.search(_VERSION, driver or ""), re.search(_VERSION, manager)
    differ = ours and theirs and ours[0] != theirs[0]
    return f"{fabric.service} is of version {theirs[0]}, the driver of {ours[0]}" if ours and theirs and differ else ""


def _of_processes(running: Output, names: tuple[str, ...], fabric: Fabric) -> str:
    """Return which process is not there; "" too where the host has no program that lists them."""
    if running.status not in (0, 1):  # pgrep(1): 1 says that none matched
        return ""
    there = {line.partition(" ")[2][:COMM] for line in running.stdout.splitlines()}
    lost = [name for name in names if name[:COMM] not in there]
    return f"{fabric.service} is active, and its process {', '.join(lost)} does not run" if lost else ""
