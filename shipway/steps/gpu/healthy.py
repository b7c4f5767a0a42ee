"""Checks of a host's GPUs before anything is changed: on PCI, answered for by the driver, joined by their fabric."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import ClassVar

from shipway.facts.commands import Says
from shipway.facts.files import FileText
from shipway.facts.services import UnitState
from shipway.gpu.chosen import VENDOR
from shipway.gpu.vendor import Vendor
from shipway.host.session import Host
from shipway.known_failures.catalogue import diagnose
from shipway.known_failures.gpu import ENTRIES
from shipway.step import Drift
from shipway.survey.first_look import KERNEL_LOG, Survey, survey

SECURE_BOOT = Says(("mokutil", "--sb-state"))
_VERSION = r"\b[0-9]+\.[0-9]+(?:\.[0-9]+)?\b"


@dataclass(frozen=True)
class GpusHealthy:
    """The declared GPUs are there, and the driver answers."""

    traps: ClassVar[tuple[int, ...]] = (4, 32, 33)
    declared: int | None
    name: str = "GPUs are on PCI and the driver answers"
    vendor: Vendor = VENDOR

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
    """Where switches join the GPUs of a machine, their manager runs, in the driver's own version, and has joined them.

    The driver shows all GPUs without it, and CUDA fails with error 802 (gpu-operator#544). Machines with such switches
    cost a second round trip; all others are distinguished in the first.
    """

    traps: ClassVar[tuple[int, ...]] = (31,)
    name: str = "the GPUs' fabric is ready"
    vendor: Vendor = VENDOR

    async def check(self, on: Host) -> Drift | None:
        """Ask the service, the two versions, and the state that each GPU tells."""
        fabric = self.vendor.fabric
        if fabric is None or not await on.read(fabric.switches):
            return None
        unit, driver, manager, gpus = await on.read(
            UnitState(f"{fabric.service}.service"), fabric.driver, fabric.manager, fabric.states
        )
        want = f"{fabric.service} active in the driver's version, every GPU's fabric Completed"
        if unit.active != "active":
            return Drift(f"{fabric.service} is {unit.active if unit.load != 'not-found' else 'not installed'}", want)
        ours, theirs = re.search(_VERSION, driver or ""), re.search(_VERSION, manager.stdout)
        if ours and theirs and ours[0] != theirs[0]:
            return Drift(f"{fabric.service} is of version {theirs[0]}, the driver of {ours[0]}", want)
        waiting = [state for state in fabric.found(gpus.stdout) if state not in ("Completed", "N/A")]
        return Drift(f"the fabric's state is {waiting[0]} on {len(waiting)} GPUs", want) if waiting else None
