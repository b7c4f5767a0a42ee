"""What Shipway's speed is held against, and how each goal stands: against the floor, other tools, the critical path."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

HUNDRED = 100  # the goals against others are for so many hosts
# (against, turn, figure, Shipway's contestant, bound): a peer's figure over ours is at least the bound;
# against the floor, ours over the floor's is at most the bound.
RATIOS = (
    ("floor", "second", "wall", "shipway", 1.3),
    ("floor", "second", "cpu", "shipway", 2.0),
    ("floor", "second", "cpu", "shipway+prefect", 5.0),
    ("pyinfra", "second", "wall", "shipway", 4.0),
    ("pyinfra", "second", "cpu", "shipway", 4.0),
    ("pyinfra", "first", "wall", "shipway", 3.0),
    ("ansible+mitogen", "second", "wall", "shipway", 20.0),
    ("ansible+mitogen", "second", "cpu", "shipway", 40.0),
    ("ansible", "second", "wall", "shipway", 40.0),
    ("ansible", "second", "cpu", "shipway", 60.0),
)
MAKESPAN = 1.10  # of the critical path, beside the SSH set-up
# One host on which nothing is to change: (figure, what it is, bound).
ALONE = (
    ("cold_ms", "one host, new connection: CPU ms", 10.0),
    ("warm_ms", "one host, warm connection: CPU ms", 2.0),
    ("cold_round_trips", "one host, new connection: round trips", 12.2),
    ("warm_round_trips", "one host, warm connection: round trips", 2.4),
)
# 1,000 hosts on which nothing is to change: (contestant, figure, its unit, bound).
CROWD = (
    ("shipway", "cpu", 1.0, "CPU s", 10.0),
    ("shipway", "memory", 1e6, "MB", 150.0),
    ("shipway", "processes", 1.0, "processes", 1.0),
    ("shipway+prefect", "memory", 1e6, "MB", 1000.0),
)
Cells = dict[tuple[str, int, str], list[dict[str, Any]]]


def read(folder: Path) -> Cells:
    """Return all kept cells by kind, hosts and contestant."""
    found: Cells = defaultdict(list)
    for path in sorted(folder.glob("*-*-*-*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        found[cell["kind"], cell["hosts"], cell["contestant"]].append(cell)
    return found


def values(cells: Iterable[dict[str, Any]], turn: str, figure: str) -> list[float]:
    """Return a figure of every cell that ended well."""
    return [cell[turn][figure] for cell in cells if "fault" not in cell and cell[turn].get(figure) is not None]


def middle(cells: Iterable[dict[str, Any]], turn: str, figure: str) -> float | None:
    """Return the median, or None where nothing was measured."""
    found = values(cells, turn, figure)
    return median(found) if found else None


def _row(what: str, bound: float, measured: float | None, hosts: int | str, *, least: bool = False) -> str:
    """Return a row: the goal, what was measured, whether it is met."""
    sign = ">=" if least else "<="
    if measured is None:
        return f"| {what} | {sign} {bound:g} | not measured | | |"
    met = measured >= bound if least else measured <= bound
    return f"| {what} | {sign} {bound:g} | {measured:.2f} | {hosts} | {'met' if met else 'MISSED'} |"


def _ratios(cells: Cells) -> list[str]:
    """Return the goals against the floor and other tools, at the largest number of hosts that both sides have."""
    lines = []
    for against, turn, figure, ours, bound in RATIOS:
        best: tuple[float | None, int | str] = (None, "")
        for size in sorted({n for kind, n, _ in cells if kind == "plain" and n <= HUNDRED}):
            mine = middle(cells.get(("plain", size, ours), []), turn, figure)
            other = middle(cells.get(("plain", size, against), []), turn, figure)
            if mine and other:
                best = (mine / other if against == "floor" else other / mine, size)
        run = "first run" if turn == "first" else "nothing to change"
        over = f"{ours} / {against}" if against == "floor" else f"{against} / {ours}"
        lines.append(_row(f"{over}: {figure}, {run}", bound, *best, least=against != "floor"))
    return lines


def _makespans(cells: Cells) -> list[str]:
    """Return the makespan with slow hosts, without the SSH set-up: what the floor needs where nothing is to change."""
    sizes = sorted({n for kind, n, _ in cells if kind == "stragglers"})
    lines = []
    for size in sizes:
        got = cells.get(("stragglers", size, "shipway"), [])
        wall, setup = middle(got, "first", "wall"), middle(cells["stragglers", size, "floor"], "second", "wall")
        ratio = (wall - setup) / got[0]["path"] if wall and setup else None
        lines.append(_row("makespan without SSH set-up / critical path, slow hosts", MAKESPAN, ratio, size))
    return lines


def goals(cells: Cells, folder: Path) -> list[str]:
    """Return every goal with what was measured."""
    head = ["### Goals", "", "| what | goal | measured | hosts | |", "|---|---|---|---|---|"]
    path = folder / "one-host.json"
    alone = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    lines = [_row(what, bound, alone.get(figure), 1) for figure, what, bound in ALONE]
    crowd = max((n for kind, n, _ in cells if kind == "plain" and n > HUNDRED), default=0)
    for ours, figure, unit, named, bound in CROWD:
        found = middle(cells.get(("plain", crowd, ours), []), "second", figure)
        what = f"{ours}, 1,000 hosts, nothing to change: {named}"
        lines.append(_row(what, bound, found / unit if found else None, crowd))
    return [*head, *_ratios(cells), *_makespans(cells), *lines, ""]
