"""NVIDIA's GPUs: `nvidia-smi -q`, `nvidia-smi nvlink -s` and the kernel's log, row by row, into a verdict.

Every row is read by its name, and what a GPU or a driver does not tell is not judged. The names of a driver 580 with
H200 were seen on 2026-11-28 (the conformance suite has them); others are NVIDIA's of older drivers, from its manual.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from shipway.foreign.numbers import whole
from shipway.gpu.health.model import LOG_ROW, REPORT_ROW, Answer, Fault, GpuHealth
from shipway.gpu.health.nvidia.fabric import judge_one
from shipway.gpu.health.nvidia.report import LOST, has_failed, is_untold, plain, read_gpus
from shipway.gpu.health.nvidia.xids import find_serials, find_switch_faults, find_xids, slot_of
from shipway.gpu.verdict import Row, Values

MOST_ROWS = 512  # remapped for uncorrectable errors: Azure's node health check fails a GPU above it
MOST_SRAM = 4  # uncorrectable over a GPU's life (stas00, ml-engineering, nvidia/debug.md)
BUSY = 50  # percent: below it a GPU saves power by slower and narrower links
_APART = ("Parity", "SEC-DED")
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
    read = read_gpus(report)
    told = read.gpus
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
        # Whose rows they are nobody knows then: what the links and the kernel say counts all the same.
        faults, unjudged = ([], [f"{REPORT_ROW}: {read.forged}"]) if read.forged else _judge(values)
        switched = judge_one(values).word == "ok"
        one = _joined(joined.get(uuid), most[product], switched=switched) if links is not None else "NVLink: not told"
        faults += [one] if isinstance(one, Fault) else []
        unjudged += [one] if isinstance(one, str) else []
        unjudged += [] if log is not None else [f"{LOG_ROW}: not told"]
        faults += logged.pop(slot, [])
        serial = "" if is_untold(serial) else serial
        active = joined[uuid][0] if uuid in joined else None
        found.append(GpuHealth(uuid, serial, slot, product, tuple(faults), tuple(unjudged), active))
    serials = find_serials(log or "")
    lost = [GpuHealth("", serials.get(slot, ""), slot, "", tuple(faults)) for slot, faults in logged.items()]
    switches = [GpuHealth("", "", slot, "NVSwitch", (fault,)) for slot, fault in find_switch_faults(log or "")]
    return found + [one for one in lost if one.word == "sick"] + switches


def _judge(values: Values) -> tuple[list[Fault], list[str]]:
    faults: list[Fault] = []
    unjudged: list[str] = []
    for rows in (_lost, _recovery, _flags, _rows, _counts, _fabric, _clocks, _heat, _pcie):
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
    return "" if is_untold(said) else said


def _lost(values: Values) -> Iterator[Fault | str]:
    """Judge whether any row says, in its value's place, that the GPU cannot be reached any more."""
    if any(plain(said) == LOST for said in values.values()):
        yield Fault("answers", "GPU is lost", "restart")


def _recovery(values: Values) -> Iterator[Fault | str]:
    row = ("GPU Recovery Action",)
    said = _told(values, row)
    if row in values and not said:  # drivers before 565 have no such row
        yield "the driver asks for: not told"
    answer = _RECOVERY.get(said.lower(), "look closer") if said else None
    if has_failed(said):
        yield f"the driver asks for: {said}"
    elif answer:
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
    said = _told(values, (*_ROWS, _OF_ROWS[0]))
    rows = whole(said)
    if rows is None and said:
        yield f"Remapped Rows, {_OF_ROWS[0]}: {said}"
    elif (rows or 0) > MOST_ROWS:
        yield Fault("Remapped Rows", f"{rows} for uncorrectable errors", "replace")


def _corrects(values: Values) -> bool:
    return _told(values, ("ECC Mode", "Current")).lower() == "enabled"


def _counts(values: Values) -> Iterator[Fault | str]:
    """Judge errors of the memories; where ECC is off, or there is none, nothing counts them.

    What was counted counts, whatever is said of ECC itself.
    """
    mode = _told(values, ("ECC Mode", "Current"))
    if not mode:
        yield "ECC: not told"
    elif mode.lower() not in ("enabled", "disabled"):
        yield f"ECC, mode: {mode}"
    for span, begins, most, said, answer in (
        ("Volatile", "SRAM Uncorrectable", 0, "of its SRAM since the driver was loaded", "reset"),
        ("Aggregate", "SRAM Uncorrectable", MOST_SRAM, "of its SRAM in its life", "replace"),
        ("Volatile", "DRAM Uncorrectable", 0, "of its memory since the driver was loaded", "look closer"),
    ):
        count, odd = _sum(values, (*_ECC, span), begins)
        if (count is None and _corrects(values)) or odd:
            yield f"ECC, {span} {begins}: {odd or 'not told'}"
        if (count or 0) > most:
            yield Fault("ECC", f"{count} uncorrectable errors {said}", answer)  # type: ignore[arg-type]


def _sum(values: Values, above: Row, begins: str) -> tuple[int | None, str]:
    """Return the sum of the counters whose names begin so, and what is odd about them.

    Drivers from 535 on tell parity and SEC-DED apart: one of them without the other, or without a number, is odd.
    """
    names = {f"{begins} {kind}" for kind in _APART}
    told = {name: values.get((*above, name), "") for name in (begins, *names) if (*above, name) in values}
    numbers = [count for said in told.values() if (count := whole(said)) is not None]
    words = [said for said in told.values() if whole(said) is None and not is_untold(said)]
    apart = names & set(told)
    lacking = bool(numbers) and (len(numbers) < len(told) or 0 < len(apart) < len(names))
    return sum(numbers) if numbers else None, words[0] if words else "not all told" if lacking else ""


def _fabric(values: Values) -> Iterator[Fault | str]:
    """Judge whether it has joined its machine's fabric: without that no program on it gets a context (error 802)."""
    verdict = judge_one(values)
    if verdict.word == "sick":
        yield Fault("fabric", verdict.why, "reset")
    elif verdict.word == "not judged" and _told(values, ("Fabric", "State")):  # else it has none, or an old driver
        yield f"fabric: {verdict.why}"


def _clocks(values: Values) -> Iterator[Fault | str]:
    there = {name: row for name in _SLOWED for above in _REASONS if (row := (above, name)) in values}
    told = {name: _told(values, row) for name, row in there.items()}
    if not any(told.values()):
        yield "clocks: not told"
        return
    lacking = [name for name in _SLOWED if name not in told]
    odd = [f"{name} {said}" for name, said in told.items() if said.lower() not in ("active", "not active", "")]
    if lacking or odd:
        yield f"clocks: {', '.join([*odd, *(f'{name} not told' for name in lacking)])}"
    if slowed := [name for name, said in told.items() if said.lower() == "active"]:
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
    said = re.fullmatch(r"(-?[0-9]{1,4}) [Cc]", _told(values, ("Temperature", name)))
    return int(said[1]) if said else None


def _pcie(values: Values) -> Iterator[Fault | str]:
    """Judge the link to the host under load; an idle GPU slows its link down to save power (nvtop#6)."""
    link, busy = ("PCI", "GPU Link Info"), whole(_told(values, ("Utilization", "GPU")).removesuffix(" %")) or 0
    for name, now, best in (
        ("generation", ("PCIe Generation", "Current"), ("PCIe Generation", "Max")),
        ("width", ("Link Width", "Current"), ("Link Width", "Max")),
    ):
        have, want = (_told(values, (*link, *row)) for row in (now, best))
        told, most = (whole(said.lower().removesuffix("x")) for said in (have, want))
        if told is None or most is None:
            odd = next((said for said in (have, want) if said and whole(said.lower().removesuffix("x")) is None), "")
            yield f"PCIe {name}: {odd or 'not told'}"
            continue
        lower = told < most
        if lower and busy < BUSY:
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
