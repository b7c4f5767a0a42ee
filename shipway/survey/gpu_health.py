"""One look at the health of a host's GPUs, in the exchange that all looks at a host share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from shipway.facts.files import FileText
from shipway.gpu.chosen import VENDOR
from shipway.gpu.health.model import GpuHealth
from shipway.gpu.vendor import Vendor
from shipway.host.session import Host
from shipway.survey.first_look import CLOCK

UPTIME = FileText("/proc/uptime")  # seconds since the boot, then those that the processors were idle


@dataclass(frozen=True, slots=True)
class HealthLook:
    """What was made of a host's GPUs, and the words that it was made of: the evidence, and the driver's `report`."""

    gpus: tuple[GpuHealth, ...] = ()
    evidence: str = ""
    report: str = ""


async def look_at_health(on: Host, vendor: Vendor = VENDOR) -> HealthLook:
    """Ask the driver, the links and the kernel's log of a host with GPUs; raises what keeps from reaching the host.

    What the kernel told before a time is told with that time: seconds since 1970, by the host's clock.
    """
    asks = vendor.health
    if asks is None:
        return HealthLook()
    (report, links, log), (clock, uptime) = await asyncio.gather(
        on.read(asks.report, asks.links, asks.log), on.read(CLOCK, UPTIME)
    )
    gpus = asks.judge(report.stdout if report.ok else "", links.stdout if links.ok else "", log.stdout)
    try:
        booted = float(clock.stdout) - float((uptime or "").split()[0])
    except (ValueError, IndexError):
        booted = 0.0  # before whatever was proven: such a fault then counts until a proof
    parts = {"report": report.stdout, "links": links.stdout, "the kernel's log": log.stdout}
    evidence = "".join(f"=== {name} ===\n{text.rstrip()}\n" for name, text in parts.items())
    return HealthLook(tuple(_dated(one, booted) for one in gpus), evidence, report.stdout if report.ok else "")


def _dated(gpu: GpuHealth, booted: float) -> GpuHealth:
    """Return the GPU with its faults' times as those of a calendar; without a clock they have none."""
    faults = tuple(
        fault if fault.at is None else replace(fault, at=booted + fault.at if booted else None) for fault in gpu.faults
    )
    return replace(gpu, faults=faults)
