"""The map of a cluster's GPUs: a row per host with a sign per GPU, and what each reached when it was last measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from shipway.gpu.chosen import VENDOR
from shipway.gpu.figures.model import UNITS
from shipway.redact import keep_ends, redact
from tasks.context import Run
from tasks.figures.kept import read_history

SIGNS = {"ok": "■", "sick": "▲", "not judged": "?"}
FIGURE = "matmul"  # the one figure that the map itself has room for
UNASKED = "what pods get is not known"  # the API was not there to be asked
SHOWN = 160  # characters of why GPUs are not judged
MANY = 20  # hosts from which on a terminal is told only of those with a GPU that is not well


@dataclass(frozen=True, slots=True)
class MappedGpu:
    """One GPU of the map: `rates` are what it reached when `shipway verify --level full` last found it good, at `at`.

    `bad` says what was bad when it was last measured, "" where nothing was; `unjudged` why its sign is `?`.
    """

    host: str
    slot: str
    uuid: str
    sign: str
    rates: Mapping[str, float] = field(default_factory=dict)
    at: str = ""
    bad: str = ""
    unjudged: str = ""

    @property
    def figure(self) -> str:
        """What fits into a map: TFLOP/s of the product; `bad`, or `-` for one that was not measured."""
        return "bad" if self.bad else f"{self.rates[FIGURE]:.0f}" if FIGURE in self.rates else "-"


def list_gpus(run: Run) -> list[MappedGpu]:
    """Return the GPUs that were looked at, in the order of the hosts and of their slots."""
    history, found = read_history(run.folder), []
    for host in run.hosts:
        bad = {uuid: redact(why) for uuid, why in run.drift.bad_figures.get(host.name, {}).items()}
        for gpu in sorted(run.drift.gpus_of(host.name), key=lambda one: one.slot):
            last = next(reversed(history.get(gpu.uuid, ())), None)
            rates, at = (last.rates, last.at) if last else ({}, "")
            why = redact("; ".join(gpu.unjudged)) if gpu.word == "not judged" else ""
            found.append(
                MappedGpu(host.name, gpu.slot, gpu.uuid, SIGNS[gpu.word], rates, at, bad.get(gpu.uuid, ""), why)
            )
    return found


def gpu_map(run: Run, gpus: Sequence[MappedGpu]) -> list[dict[str, str | int]]:
    """Return a row per host with GPUs: how many are expected, on the bus, with a driver, and offered to pods.

    Where the GPUs tell of their health, the map has a sign for each in the order of its slots: ■ well, ▲ sick, ? not
    judged; else one for each that is offered (■) or missing (□), ? where the API did not say. `TFLOP/s` is from the
    slowest to the fastest, where any of the cluster was measured; `ports` has a sign for each InfiniBand or RoCE port,
    where there is any. The Prefect UI breaks no line in a table: what a phone (390 pixels) has room for comes first,
    and is short.
    """
    rows: list[dict[str, str | int]] = []
    measured, asked = any(gpu.rates or gpu.bad for gpu in gpus), bool(run.drift.allocatable)
    for host in run.hosts:
        seen = run.seen.surveys.get(host.name)
        if seen is None or not (expected := run.gpus_of(host)):
            continue
        own = [gpu for gpu in gpus if gpu.host == host.name]
        offered = run.drift.allocatable.get(host.name, 0)
        health = sorted(run.drift.gpus_of(host.name), key=lambda one: one.slot)
        wrong = [f"{one.answer} {one.slot}" for one in health if one.word == "sick"]
        if not asked:
            wrong.insert(0, UNASKED)
        elif (lost := run.provable(host) - offered) > 0:
            wrong.insert(0, f"{lost} missing")
        shown = "".join(gpu.sign for gpu in own)
        if not shown:
            shown = "■" * offered + "□" * max(0, expected - offered) if asked else SIGNS["not judged"] * expected
        row: dict[str, str | int] = {"host": host.name, "map": shown}
        row |= {"TFLOP/s": _span(own)} if measured else {}
        row |= {
            "state": "; ".join(wrong) or "ok",
            "expected": expected,
            "on PCI": seen.gpus,
            "with driver": seen.driver_gpus,
        }
        row[VENDOR.resource] = offered if asked else "?"
        if any(run.drift.ports.values()):
            row["ports"] = "".join(SIGNS[one.word] for one in run.drift.ports.get(host.name, ()))
        rows.append(row)
    return rows


def _span(gpus: Sequence[MappedGpu]) -> str:
    """Return from where to where the figures of a host's GPUs go, and how many are bad."""
    bad = sum(bool(gpu.bad) for gpu in gpus)
    rates = sorted({round(gpu.rates[FIGURE]) for gpu in gpus if FIGURE in gpu.rates and not gpu.bad})
    told = [f"{bad} bad"] if bad else []
    return ", ".join([*told, *(["-".join(map(str, dict.fromkeys((rates[0], rates[-1]))))] if rates else [])])


def figures_of(gpus: Sequence[MappedGpu]) -> str:
    """Return what each of a host's GPUs reached, in their order; "" where none was measured."""
    return " ".join(gpu.figure for gpu in gpus) if any(gpu.rates or gpu.bad for gpu in gpus) else ""


def figures_table(gpus: Sequence[MappedGpu]) -> list[dict[str, str]]:
    """Return a row per GPU that was measured: the bad first, what fits on a phone first."""
    numbers: dict[str, int] = {}
    rows: list[tuple[bool, dict[str, str]]] = []
    for gpu in gpus:
        number = numbers[gpu.host] = numbers.get(gpu.host, -1) + 1
        if not (gpu.rates or gpu.bad):
            continue
        rates = {name: f"{gpu.rates[name]:.0f}" if name in gpu.rates else "" for name in UNITS}
        shown = {"GPU": f"{gpu.host} {number} {gpu.sign}", "TFLOP/s": gpu.figure, "GB/s": rates.pop("copy")}
        rates.pop(FIGURE)
        more = {name.replace("_", " "): rate for name, rate in rates.items()}
        told = {"measured": "" if gpu.bad else gpu.at[:10], **more, "bad": gpu.bad, "slot": gpu.slot, "UUID": gpu.uuid}
        rows.append((not gpu.bad, shown | told))
    return [row for _, row in sorted(rows, key=lambda one: one[0])]


def as_rows(gpus: Sequence[MappedGpu]) -> list[dict[str, Any]]:
    """Return the map as plain data, for the report."""
    return [asdict(gpu) for gpu in gpus]


def tell_map(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the map of a report as lines, one a host; of many hosts those alone that have a GPU that is not well."""
    hosts: dict[str, list[MappedGpu]] = {}
    for row in rows:
        hosts.setdefault(str(row["host"]), []).append(MappedGpu(**row))
    well = SIGNS["ok"]
    lines = []
    for host, gpus in hosts.items():
        if len(hosts) > MANY and all(gpu.sign == well and not gpu.bad for gpu in gpus):
            continue
        figures, at = figures_of(gpus), max("" if gpu.bad else gpu.at for gpu in gpus)[:10]
        reached = f" {figures} TFLOP/s{f' ({at})' if at else ''}" if figures else ""
        unjudged = "; ".join(dict.fromkeys(gpu.unjudged for gpu in gpus if gpu.unjudged))
        why = f" (not judged: {keep_ends(unjudged, SHOWN)})" if unjudged else ""
        lines.append(f"{host} {''.join(gpu.sign for gpu in gpus)}{reached}{why}")
    return lines
