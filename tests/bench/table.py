"""docs/performance.md from the kept results: medians, spread, ratios to the floor, goals met or not."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.goals import Cells, goals, middle, read, values
from tests.bench.scale import TURNS

BEGIN, END = "<!-- measured: begin (make bench) -->", "<!-- measured: end -->"
ORDER = ("floor", "shipway", "shipway+prefect", "parallel-ssh", "pyinfra", "ansible+mitogen", "ansible")


def spread(cells: list[dict[str, Any]], turn: str, figure: str) -> str:
    """Return median and (lowest to highest)."""
    found = values(cells, turn, figure)
    if not found:
        return "-"
    return f"{median(found):.2f}" + (f" ({min(found):.2f} to {max(found):.2f})" if len(found) > 1 else "")


def _ratio(ours: float | None, base: float | None) -> str:
    return f"{ours / base:.1f}x" if ours and base else "-"


def contest(cells: Cells, kind: str, hosts: int) -> list[str]:
    """Return the table of one kind and number of hosts."""
    lines = [f"### {kind}, {hosts} hosts", ""]
    lines += [
        "| contestant | runs | first: wall s | first: CPU s | nothing to change: wall s | CPU s | memory MB | turns |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    floor = cells.get((kind, hosts, ORDER[0]), [])
    for name in ORDER:
        got = cells.get((kind, hosts, name), [])
        if not got:
            lines.append(f"| {name} | 0 | not measured | | | | | |")
            continue
        row = [f"| {name} | {len(values(got, 'second', 'wall'))}"]
        for turn in ("first", "second"):
            for figure in ("wall", "cpu"):
                ratio = _ratio(middle(got, turn, figure), middle(floor, turn, figure))
                row.append(f"{spread(got, turn, figure)}; {ratio}")
        memory, turns = middle(got, "second", "memory"), middle(got, "second", "turns")
        row.append(f"{memory / 1e6:.0f}" if memory else "-")
        row.append(f"{turns:.0f}" if turns else "-")
        lines.append(" | ".join(row) + " |")
        lines += [f"| | fault | {cell['fault'][:160].replace('|', '/')} ||||||" for cell in got if "fault" in cell][:1]
    return [*lines, ""]


def paths(cells: Cells) -> list[str]:
    """Return makespan over critical path of the first run, where some hosts are slow."""
    lines = []
    for (kind, hosts, name), got in sorted(cells.items()):
        wall = middle(got, "first", "wall")
        if kind == "stragglers" and wall:
            lines.append(f"| {name} | {hosts} | {got[0]['path']:.1f} | {wall:.1f} | {wall / got[0]['path']:.2f} |")
    head = ["### Stragglers: makespan of the first run against the critical path", ""]
    return [*head, "| contestant | hosts | path s | makespan s | ratio |", "|---|---|---|---|---|", *lines, ""]


def scale(folder: Path) -> list[str]:
    """Return the table of the SIMULATED lab."""
    lines = ["### Scale, SIMULATED lab: bootstraps and a scan of drift, each with its own Prefect API process", ""]
    lines += ["| hosts | run | outcome | wall s | CPU s | CPU ms a host | memory MB | task runs | not final |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for path in sorted(folder.glob("scale-*.json"), key=lambda path: int(path.stem.split("-")[1])):
        cell = json.loads(path.read_text(encoding="utf-8"))
        for turn in [turn for turn in TURNS if turn in cell]:
            got, n = cell[turn], cell["hosts"]
            figures = f"{got['wall']:.0f} | {got['cpu']:.1f} | {1000 * got['cpu'] / n:.0f} | {got['memory'] / 1e6:.0f}"
            counts = f"{got['task_runs']} | {got['not_final']}"
            lines.append(f"| {n} | {turn} | {got['outcome']} | {figures} | {counts} |")
        if "fault" in cell:
            lines.append(f"| {cell['hosts']} | fault | {cell['fault'][-160:].replace('|', '/')} | | | | | | |")
    return [*lines, ""]


def page(folder: Path, path: Path) -> None:
    """Write the measured part of the page; what stands around its marks is written by people and stays."""
    cells, heard = read(folder), json.loads((folder / "machine.json").read_text(encoding="utf-8"))
    names = ("ansible-core", "mitogen", "pyinfra", "parallel-ssh")
    peers = ", ".join(f"{name} {heard['peers'].get(name, 'NOT INSTALLED')}" for name in names)
    lines = [
        BEGIN,
        "",
        f"Measured {heard['date']} on {heard['cores']} cores ({heard['processor']}), {heard['memory_gb']} GB,",
    ]
    lines += [f"Linux {heard['kernel']}, Python {heard['python']}, Prefect {heard['prefect']}; {peers}."]
    lines += ["Medians (lowest to highest); after the semicolon the ratio to the floor.", ""]
    for kind, hosts in sorted({(kind, hosts) for kind, hosts, _ in cells}):
        lines += contest(cells, kind, hosts)
    lines += [*paths(cells), *goals(cells, folder), *scale(folder), END]
    text = path.read_text(encoding="utf-8") if path.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(before + "\n".join(lines) + after, encoding="utf-8")
