"""The report on GPUs that both labs' nvidia-smi prints: an H200's own, recorded, with the lab's names in it.

Recorded with driver 580.159.04 on 2026-11-28 (`nvidia-smi -q`); what is SIMULATED says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

RECORDED = Path(__file__).with_name("h200-nvidia-smi-q.txt")
FIRST, SECOND = "GPU 00000000:00:06.0\n", "GPU 00000000:00:07.0\n"  # its two GPUs


def slot_of(index: int) -> str:
    """Return the bus address of a host's GPU, as nvidia-smi writes it."""
    return f"00000000:{16 + index:02X}:00.0"


def write_report(gpus: Sequence[tuple[str, str, Mapping[str, str]]], driver: str) -> str:
    """Return the report on GPUs: UUID, product name, and what rows say instead, by `Section/Row`."""
    now = datetime.now(UTC).strftime("%a %b %d %H:%M:%S %Y")
    head = ("\n==============NVSMI LOG==============\n", _row("Timestamp", now), _row("Driver Version", driver))
    parts = [*head, _row("CUDA Version", "13.0"), "", _row("Attached GPUs", str(len(gpus)))]
    parts += [change_rows(write_one(at, uuid, name, driver), rows) for at, (uuid, name, rows) in enumerate(gpus)]
    return "\n".join(parts)


def write_one(index: int, uuid: str, name: str, driver: str) -> str:
    """Return the report on a host's GPU of this index."""
    text = RECORDED.read_text(encoding="utf-8")
    one = text[text.index(FIRST) : text.index(SECOND)].rstrip("\n") + "\n"
    own = {
        "GPU-00000002-0000-4000-8000-000000000002": uuid,
        "NVIDIA H200": name,
        "00000000:00:06.0": slot_of(index),
        "580.159.04": driver,
        ": masked": ": SIMULATED",
    }
    for theirs, ours in own.items():
        one = one.replace(theirs, ours)
    return one


def _row(name: str, value: str) -> str:
    return f"{name:<55}: {value}"


def change_rows(report: str, rows: Mapping[str, str]) -> str:
    """Return one GPU's report with other values in rows, each named by its headings and its name; KeyError for none."""
    lines = report.splitlines()
    for path, value in rows.items():
        *above, name = path.split("/")
        at = 0
        for heading in above:
            at = _find(lines, at, heading, path)
        at = _find(lines, at, name, path)
        lines[at] = f"{lines[at].partition(' : ')[0]} : {value}"
    return "\n".join(lines) + "\n"


def _find(lines: Sequence[str], start: int, name: str, path: str) -> int:
    for at in range(start, len(lines)):
        if lines[at].partition(" : ")[0].strip() == name:
            return at
    raise KeyError(path)
