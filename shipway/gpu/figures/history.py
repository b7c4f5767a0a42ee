"""What each GPU reached before: records by UUID, so that one is compared with itself and a new one begins anew."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from shipway.gpu.figures.model import UNITS, Measured

FIRST, LAST = 5, 15  # records that are kept: the first are what a GPU is compared with, the last show its course


@dataclass(frozen=True, slots=True)
class Record:
    """What one GPU reached once, and where: only figures that were found good."""

    at: str
    host: str
    slot: str
    serial: str
    driver: str
    kernel: str
    power_limit: int | None
    rates: Mapping[str, float] = field(default_factory=dict)


History = Mapping[str, Sequence[Record]]  # by UUID, the oldest first


def record_of(gpu: Measured, host: str, at: str, good: Sequence[str]) -> Record:
    """Return the record of a GPU's good figures."""
    rates = {figure: round(gpu.rates[figure], 2) for figure in UNITS if figure in good and figure in gpu.rates}
    return Record(at, host, gpu.slot, gpu.serial, gpu.driver, gpu.kernel, gpu.power_limit, rates)


def usual(records: Sequence[Record], gpu: Measured, figure: str) -> float | None:
    """Return what a GPU reached at first with this driver, kernel and power limit; None where it was not measured."""
    same = (gpu.driver, gpu.kernel, gpu.power_limit)
    found = [
        one.rates[figure]
        for one in records
        if (one.driver, one.kernel, one.power_limit) == same and figure in one.rates
    ]
    return statistics.median(found[:FIRST]) if found else None


def usual_elsewhere(records: Sequence[Record], gpu: Measured, figure: str) -> tuple[float, str] | None:
    """Return what a GPU last reached with another driver or kernel at this power limit, and with which."""
    for one in reversed(records):
        other = (one.driver, one.kernel) != (gpu.driver, gpu.kernel) and one.power_limit == gpu.power_limit
        if other and figure in one.rates:
            return one.rates[figure], f"driver {one.driver}, kernel {one.kernel}, on {one.at}"
    return None


def with_record(records: Sequence[Record], new: Record) -> list[Record]:
    """Return a GPU's records with a new one, without those between its first and its last."""
    every = [*records, new]
    return every if len(every) <= FIRST + LAST else [*every[:FIRST], *every[-LAST:]]


def find_swapped(history: History, gpu: Measured, host: str) -> str:
    """Return the UUID that was last measured in a GPU's slot where that was another one; "" where none was."""
    if gpu.uuid in history:
        return ""
    there = [
        (one[-1].at, uuid) for uuid, one in history.items() if one and (one[-1].host, one[-1].slot) == (host, gpu.slot)
    ]
    return max(there)[1] if there else ""


def write_records(records: Sequence[Record]) -> str:
    """Return one GPU's records as the text of a file."""
    return json.dumps([asdict(one) for one in records], indent=1) + "\n"


def read_records(text: str) -> list[Record]:
    """Return one GPU's records from the text of a file; none of one that is not ours."""
    try:
        return [
            Record(
                **{name: str(one[name]) for name in ("at", "host", "slot", "serial", "driver", "kernel")},
                power_limit=None if one["power_limit"] is None else int(one["power_limit"]),
                rates={str(name): float(value) for name, value in one["rates"].items()},
            )
            for one in json.loads(text)
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
