"""One look at the health of a host's GPUs, in the exchange that all looks at a host share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from shipway.facts.commands import NOT_ENDED
from shipway.facts.files import FileText
from shipway.gpu.chosen import VENDOR
from shipway.gpu.health.growth import FIRST, Counted
from shipway.gpu.health.model import REPORT_ROW, UNFIT, Fault, GpuHealth, HealthReport
from shipway.gpu.health.ports import LOOK, Port, key_of, read_ports
from shipway.gpu.vendor import Vendor
from shipway.host.session import Host
from shipway.script import Output
from shipway.survey.first_look import CLOCK, SAID, Survey

UPTIME = FileText("/proc/uptime")  # seconds since the boot, then those that the processors were idle


@dataclass(frozen=True, slots=True)
class HealthLook:
    """What was made of a host's GPUs, and the words that it was made of: the evidence, and the driver's `report`.

    `silent` says why that report is not to be relied on, "" where it is; `hangs` that it did not end.
    That report is what labels are made of (`labelled`).
    `ports` are those of its InfiniBand and RoCE adapters by name, `counted` what the error counters of all links say,
    `serials` by slot those of GPUs of which the kernel's log told.
    """

    gpus: tuple[GpuHealth, ...] = ()
    evidence: str = ""
    report: str = ""
    ports: Mapping[str, Port] = field(default_factory=dict)
    counted: Counted = field(default_factory=Counted)
    silent: str = ""
    hangs: bool = False
    serials: Mapping[str, str] = field(default_factory=dict)


async def look_at_health(on: Host, vendor: Vendor = VENDOR) -> HealthLook:
    """Ask the driver, the links, the network's ports and the kernel's log of a host with GPUs.

    Raises what keeps from reaching the host. What the kernel told before a time is told with that time: seconds since
    1970, by the host's clock.
    """
    asks = vendor.health
    if asks is None:
        return HealthLook()
    (report, links, errors, log), (adapters, clock, uptime, capabilities) = await asyncio.gather(
        on.read(asks.report, asks.links, asks.errors, asks.log), on.read(LOOK, CLOCK, UPTIME, asks.capabilities)
    )
    gpus = asks.judge(report.stdout, links.stdout if links.ok else None, log.stdout if log.ok else None)
    now = booted = 0.0  # before whatever was proven: such a fault then counts until a proof
    with contextlib.suppress(ValueError, IndexError):
        now = float(clock.stdout)
        booted = now - float((uptime or "").split()[0])
    ports, counts = read_ports(adapters.stdout)
    of_links = asks.count(errors.stdout if errors.ok else "")
    counted = Counted(now, booted, {**of_links, **{key_of(name): one for name, one in counts.items()}})
    parts = {
        "report": report.stdout,
        "links": links.stdout,
        "errors of the links": errors.stdout,
        "ports of InfiniBand and RoCE": adapters.stdout,
        "the kernel's log": log.stdout,
    }
    if any(one.answer in UNFIT for one in gpus):  # asked for of such a host alone
        parts["all that the driver tells"] = (await on.read(asks.whole)).stdout
    evidence = "".join(f"=== {name} ===\n{text.rstrip()}\n" for name, text in parts.items())
    dated = tuple(_dated(one, booted) for one in gpus)
    hangs = report.status == NOT_ENDED
    said = "" if any(one.uuid for one in gpus) else " ".join(report.stdout.split())[:SAID]
    said = vendor.hangs if hangs else said or f"{vendor.program} ended with status {report.status}"
    labels, serials = labelled(report, capabilities), asks.serials(log.stdout)
    return HealthLook(dated, evidence, labels, ports, counted, "" if report.ok else said, hangs, serials)


def with_missing(look: HealthLook, seen: Survey, expected: int, vendor: Vendor = VENDOR) -> HealthLook:
    """Return a look with what keeps its host's driver from telling of all the GPUs that are `expected` there.

    Each of its GPUs knows its host's clock then.

    A driver that does not end, or fails, and GPUs that it does not list ask for a restart of the host, slot by slot.
    One that lists all of them and fails to report is not judged: nothing says that pods fail there.
    """
    look = replace(look, gpus=tuple(replace(one, ahead=seen.skew) for one in look.gpus))
    told = [one for one in look.gpus if one.uuid]
    lacks = expected - len(told)
    if vendor.health is None or not expected or (lacks <= 0 and not look.silent):
        return look
    if look.silent and not look.hangs and (lacks <= 0 or seen.driver_gpus >= expected):
        why, known = f"{REPORT_ROW}: {look.silent}", {one.uuid for one in told}
        partly = (replace(one, unjudged=(*one.unjudged, why)) if one.uuid else one for one in look.gpus)
        unknown = (GpuHealth(uuid, "", "", "", unjudged=(why,)) for uuid in seen.driver_uuids if uuid not in known)
        return replace(look, gpus=(*partly, *unknown))
    fault = Fault("counted", f"{vendor.program} tells of {len(told)} of {expected}", "restart")
    if look.silent:
        fault = Fault("answers", look.silent, "restart")
    there = {one.slot for one in told}
    slots = [*(slot for slot in seen.slots if slot not in there), *("",) * lacks][: max(0, lacks)]
    ill = tuple(
        replace(one, faults=(*one.faults, fault)) if one.slot in slots or (look.hangs and one.uuid) else one
        for one in look.gpus
    )
    named = {one.slot for one in ill}
    serials = look.serials
    lost = tuple(GpuHealth("", serials.get(slot, ""), slot, "", (fault,)) for slot in slots if slot not in named)
    return replace(look, gpus=(*ill, *lost))


def labelled(report: Output, capabilities: Output) -> str:
    """Return what labels are made of: the driver's report, below it a line for each GPU with its compute capability.

    "" where the driver tells nothing.
    """
    if not report.ok:
        return ""
    return f"{report.stdout.rstrip()}\n\n{capabilities.stdout if capabilities.ok else ''}"


def with_growth(look: HealthLook, before: Counted | None, vendor: Vendor = VENDOR) -> HealthLook:
    """Return a look with what the error counters of each GPU's links grew by since the one `before` added to it."""
    asks = vendor.health
    if asks is None:
        return look
    return replace(look, gpus=tuple(_grown(one, look.counted, before, asks) for one in look.gpus))


def _grown(gpu: GpuHealth, now: Counted, before: Counted | None, asks: HealthReport) -> GpuHealth:
    if gpu.uuid not in now.of:
        return gpu  # one without such links, or whose driver does not tell
    more = now.since(before, gpu.uuid)
    if more is None:
        return replace(gpu, unjudged=(*gpu.unjudged, f"errors of its links: {FIRST}"))
    faults, unjudged = asks.judge_growth(more, now.at - before.at if before else 0.0)
    return replace(gpu, faults=(*gpu.faults, *faults), unjudged=(*gpu.unjudged, *unjudged))


def _dated(gpu: GpuHealth, booted: float) -> GpuHealth:
    """Return the GPU with its faults' times as those of a calendar; without a clock they have none."""
    faults = tuple(
        fault if fault.at is None else replace(fault, at=booted + fault.at if booted else None) for fault in gpu.faults
    )
    return replace(gpu, faults=faults)
