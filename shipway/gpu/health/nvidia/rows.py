"""NVIDIA's GPUs: `nvidia-smi -q`, `nvidia-smi nvlink -s` and the kernel's log, row by row, into a verdict.

Every row is read by its name, and what a GPU or a driver does not tell is not judged. The names of a driver 580 with
H200 were seen on 2026-11-28 (the conformance suite has them); others are NVIDIA's of older drivers, from its manual.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from shipway.foreign.numbers import whole
from shipway.gpu.health.model import LOG_ROW, Answer, Fault, GpuHealth
from shipway.gpu.health.nvidia.fabric import judge_one
from shipway.gpu.health.nvidia.xids import find_serials, find_switch_faults, find_xids, slot_of
from shipway.gpu.verdict import Values, read_sections

Row = tuple[str, ...]
UNTOLD = ("", "n/a", "[n/a]", "not supported", "requested functionality has been deprecated")
MOST_ROWS = 512  # remapped for uncorrectable errors: Azure's node health check fails a GPU above it
MOST_SRAM = 4  # uncorrectable over a GPU's life (stas00, ml-engineering, nvidia/debug.md)
BUSY = 50  # percent: below it a GPU saves power by slower and narrower links
_OF_ROWS = ("Uncorrectable Error", "Pending", "Remapping Failure Occurred")
_ECC, _ROWS, _REASONS = ("ECC Errors",), ("Remapped Rows",), ("Clocks Event Reasons", "Clocks Throttle Reasons")

# Rows that say Yes where they are wrong, and what is to be done.
_FLAGS: tuple[tuple[Row, Answer], ...] = (
    ((*_ROWS, "Remapping Failure Occurred"), "replace"),
    ((*_ROWS, "Pending"), "reset"),
    ((*_ECC, "Aggregate", "SRAM Threshold Exceeded"), "replace"),
    ((*_ECC, "Unrepairable Memory"), "replace"),
    ((*_ECC, "Channel Repair Pending"), "reset"),
    ((*_ECC, "TPC Repair Pending"), "reset"),
    (("Retired Pages", "Pending Page Blacklist"), "reset"),
)
# What holds the clocks down though nobody asked for it: heat, or power (NVIDIA's manual, "Clocks Event Reasons").
_SLOWED = ("HW Slowdown", "HW Thermal Slowdown", "HW Power Brake Slowdown", "SW Thermal Slowdown")
# The words of "GPU Recovery Action" (NVML, nvmlDeviceGpuRecoveryAction_t; only None was seen).
_RECOVERY: dict[str, Answer | None] = {
    "none": None,
    "reset": "reset",
    "gpu reset": "reset",
    "drain and reset": "reset",
    "reboot": "restart",
    "node reboot": "restart",
    "drain p2p": "look closer",
}


def judge_health(report: str, links: str | None, log: str | None) -> list[GpuHealth]:
    """Return the verdict on every GPU that the report lists, and on what only the kernel's log names.

    `links` and `log` are None where they could not be read: then these rows are not judged.
    """
    told = {heading[4:]: values for heading, values in read_sections(report).items() if heading.startswith("GPU ")}
    joined = _links(links or "")
    most: dict[str, int] = {}  # active links, by product
    for values in told.values():
        product = values.get(("Product Name",), "")
        most[product] = max(most.get(product, 0), joined.get(values.get(("GPU UUID",), ""), (0, 0))[0])
    logged: dict[str, list[Fault]] = {}
    for slot, fault in find_xids(log or ""):
        logged.setdefault(slot, []).append(fault)
    found = []
    for address, values in told.items():
        uuid, slot = values.get(("GPU UUID",), ""), slot_of(address)
        product, serial = values.get(("Product Name",), ""), values.get(("Serial Number",), "")
        faults, unjudged = _judge(values)
        switched = judge_one(values).word == "ok"
        one = _joined(joined.get(uuid), most[product], switched=switched) if links is not None else "NVLink: not told"
        faults += [one] if isinstance(one, Fault) else []
        unjudged += [one] if isinstance(one, str) else []
        unjudged += [] if log is not None else [f"{LOG_ROW}: not told"]
        faults += logged.pop(slot, [])
        serial = "" if serial.lower() in UNTOLD else serial
        active = joined[uuid][0] if uuid in joined else None
        found.append(GpuHealth(uuid, serial, slot, product, tuple(faults), tuple(unjudged), active))
    serials = find_serials(log or "")
    lost = [GpuHealth("", serials.get(slot, ""), slot, "", tuple(faults)) for slot, faults in logged.items()]
    switches = [GpuHealth("", "", slot, "NVSwitch", (fault,)) for slot, fault in find_switch_faults(log or "")]
    return found + [one for one in lost if one.word == "sick"] + switches


def _judge(values: Values) -> tuple[list[Fault], list[str]]:
    faults: list[Fault] = []
    unjudged: list[str] = []
    for rows in (_recovery, _flags, _rows, _counts, _fabric, _clocks, _heat, _pcie):
        for one in rows(values):
            (faults if isinstance(one, Fault) else unjudged).append(one)  # type: ignore[arg-type]
    return faults, unjudged


def _joined(links: tuple[int, int] | None, most: int, *, switched: bool) -> Fault | str | None:
    """Judge a GPU's links, of which so many are active and there; `most` are active on one of its product here.

    A link has two ends, and may be down at both. Of GPUs that are joined by switches (`switched`) every link leads to
    one; of others a link may have no bridge, and no host tells which. Where none is active of any, there is no bridge,
    as far as one host tells; `beside` asks the others.
    """
    if links is None:
        return f"NVLink: not told, {most} links are active on its equals" if most else None
    active, there = links
    if active < most:
        return Fault("NVLink", f"{active} links are active, {most} on its equals", "look closer")
    if not 0 < active < there:
        return None
    said = f"{active} of {there} links are active"
    return (
        Fault("NVLink", said, "look closer")
        if switched
        else f"NVLink: {said}, and whether all have a bridge is not told"
    )


def _told(values: Values, row: Row) -> str:
    said = values.get(row, "")
    return "" if said.lower() in UNTOLD else said


def _recovery(values: Values) -> Iterator[Fault | str]:
    row = ("GPU Recovery Action",)
    said = _told(values, row)
    if row in values and not said:  # drivers before 565 have no such row
        yield "the driver asks for: not told"
    answer = _RECOVERY.get(said.lower(), "look closer") if said else None
    if answer:
        yield Fault("the driver asks for", said, answer)


def _flags(values: Values) -> Iterator[Fault | str]:
    for row, answer in _FLAGS:
        said = _told(values, row)
        if said.lower() == "yes":
            yield Fault(row[0], row[-1], answer)
        elif said and said.lower() != "no":
            yield f"{row[0]}, {row[-1]}: {said}"


def _rows(values: Values) -> Iterator[Fault | str]:
    """Judge the rows of its memory that were replaced; GPUs before Ampere retire pages instead (`Retired Pages`)."""
    lacking = [name for name in _OF_ROWS if not _told(values, (*_ROWS, name))]
    retires = len(lacking) == len(_OF_ROWS) and _told(values, ("Retired Pages", "Pending Page Blacklist"))
    if _corrects(values) and lacking and not retires:
        yield f"Remapped Rows, {', '.join(lacking)}: not told"
    rows = whole(_told(values, (*_ROWS, _OF_ROWS[0]))) or 0
    if rows > MOST_ROWS:
        yield Fault("Remapped Rows", f"{rows} for uncorrectable errors", "replace")


def _corrects(values: Values) -> bool:
    return _told(values, ("ECC Mode", "Current")).lower() == "enabled"


def _counts(values: Values) -> Iterator[Fault | str]:
    """Judge errors of the memories; where ECC is off, or there is none, nothing counts them."""
    if not _told(values, ("ECC Mode", "Current")):
        yield "ECC: not told"
        return
    for span, begins, most, said, answer in (
        ("Volatile", "SRAM Uncorrectable", 0, "of its SRAM since the driver was loaded", "reset"),
        ("Aggregate", "SRAM Uncorrectable", MOST_SRAM, "of its SRAM in its life", "replace"),
        ("Volatile", "DRAM Uncorrectable", 0, "of its memory since the driver was loaded", "look closer"),
    ):
        count = _sum(values, (*_ECC, span), begins)
        if count is None and _corrects(values):
            yield f"ECC, {span} {begins}: not told"
        elif (count or 0) > most:
            yield Fault("ECC", f"{count} uncorrectable errors {said}", answer)  # type: ignore[arg-type]


def _sum(values: Values, above: Row, begins: str) -> int | None:
    """Return the sum of the counters whose names begin so: drivers from 535 on tell parity and SEC-DED apart."""
    told = [whole(said) for row, said in values.items() if row[:-1] == above and row[-1].startswith(begins)]
    numbers = [count for count in told if count is not None]
    return sum(numbers) if numbers else None


def _fabric(values: Values) -> Iterator[Fault | str]:
    """Judge whether it has joined its machine's fabric: without that no program on it gets a context (error 802)."""
    verdict = judge_one(values)
    if verdict.word == "sick":
        yield Fault("fabric", verdict.why, "reset")
    elif verdict.word == "not judged" and _told(values, ("Fabric", "State")):  # else it has none, or an old driver
        yield f"fabric: {verdict.why}"


def _clocks(values: Values) -> Iterator[Fault | str]:
    told = {row[-1]: _told(values, row) for row in values if row[0] in _REASONS}
    if not any(told.get(name) for name in _SLOWED):
        yield "clocks: not told"
    slowed = [name for name in _SLOWED if told.get(name) == "Active"]
    if slowed:
        yield Fault("clocks are held down", ", ".join(slowed), "look closer")


def _heat(values: Values) -> Iterator[Fault | str]:
    """Judge the margin to where the GPU slows itself down, in degrees Celsius; older drivers tell two temperatures."""
    margin = _degrees(values, "GPU T.Limit Temp")
    if margin is None:
        now, slow = _degrees(values, "GPU Current Temp"), _degrees(values, "GPU Slowdown Temp")
        margin = slow - now if now is not None and slow is not None else None
    if margin is None:
        yield "temperature: not told"
    elif margin <= 0:
        yield Fault("temperature", f"{margin} C left before it slows itself down", "look closer")


def _degrees(values: Values, name: str) -> int | None:
    said = re.fullmatch(r"(-?[0-9]{1,4}) C", _told(values, ("Temperature", name)))
    return int(said[1]) if said else None


def _pcie(values: Values) -> Iterator[Fault | str]:
    """Judge the link to the host under load; an idle GPU slows its link down to save power (nvtop#6)."""
    link, busy = ("PCI", "GPU Link Info"), whole(_told(values, ("Utilization", "GPU")).removesuffix(" %")) or 0
    for name, now, best in (
        ("generation", ("PCIe Generation", "Current"), ("PCIe Generation", "Max")),
        ("width", ("Link Width", "Current"), ("Link Width", "Max")),
    ):
        have, want = (_told(values, (*link, *row)) for row in (now, best))
        lower = (whole(have.removesuffix("x")) or 0) < (whole(want.removesuffix("x")) or 0)
        if not have or not want:
            yield f"PCIe {name}: not told"
        elif lower and busy < BUSY:
            yield f"PCIe {name}: {have} of {want} on an idle GPU"
        elif lower:
            yield Fault(f"PCIe {name}", f"{have} of {want} under load", "look closer")


def _links(said: str) -> dict[str, tuple[int, int]]:
    """Return of each GPU that `nvidia-smi nvlink -s` names how many of its links are active, and how many it has.

    `GPU 0: NVIDIA H200 (UUID: GPU-...)`, then ` Link 0: 26.562 GB/s` or ` Link 0: <inactive>`.
    """
    found: dict[str, tuple[int, int]] = {}
    uuid = ""
    for line in said.splitlines():
        if match := re.match(r"GPU [0-9]+: .*UUID: (GPU-[0-9A-Za-z-]+)", line):
            uuid = match[1]
        elif uuid and (match := re.match(r"\s+Link [0-9]+: (.+)", line)):
            active, links = found.get(uuid, (0, 0))
            found[uuid] = (active + ("inactive" not in match[1].lower()), links + 1)
    return found
