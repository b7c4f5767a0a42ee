"""The picture of the rooms, drawn from the imports: `python -m tools.architecture --write` brings it up to date."""

from __future__ import annotations

import ast
import sys
import tomllib
from html import escape
from pathlib import Path

import grimp

from tools.traps import ROOT

PICTURE = ROOT / "docs" / "img" / "architecture.svg"
WIDTH, LEFT, ROW, HIGH, GAP = 1180, 24, 92, 58, 16  # pixels
TOP = 58
HEADING = "A room imports only from rooms below it: a line leads from each to what it needs."
BOX = 'height="58" rx="7" fill="#eef2fb" stroke="#4a63a8"'


def layers() -> list[list[str]]:
    """Return the rooms by layer, those that act first, as the import contracts in pyproject.toml have them."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = [one["layers"] for one in data["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    outer, inner = contracts
    return [[name] for name in outer[:-1]] + [[name.strip() for name in row.split("|")] for row in inner]


def path_of(room: str) -> str:
    """Return a room as its place in the repository."""
    return room.replace(".", "/")


def sentence(room: str) -> str:
    """Return the first sentence of a room's docstring."""
    path = ROOT / Path(*room.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    said = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return said.split("\n", 1)[0]


def arrows(rooms: list[str]) -> list[tuple[str, str]]:
    """Return which room imports which, without what follows from others (the transitive reduction)."""
    graph = grimp.build_graph("shipway", "tasks", "flows", cache_dir=None)
    direct = {room: {other for other in rooms if other != room and _imports(graph, room, other)} for room in rooms}

    def reached(room: str) -> set[str]:
        return direct[room].union(*(reached(other) for other in direct[room]))

    return [
        (room, other)
        for room in rooms
        for other in sorted(direct[room])
        if not any(other in reached(between) for between in direct[room])
    ]


def _imports(graph: grimp.ImportGraph, room: str, other: str) -> bool:
    """Tell whether any module of one room imports any of the other."""
    own = {room, *(graph.find_descendants(room) if room in graph.modules else ())}
    return any(
        found == other or found.startswith(f"{other}.")
        for module in own
        if module in graph.modules
        for found in graph.find_modules_directly_imported_by(module)
    )


def draw() -> str:
    """Return the picture as SVG: a row per layer, a box per room, a line from each room to those that it imports."""
    rows = layers()
    boxes: dict[str, tuple[float, float, float]] = {}
    for number, row in enumerate(rows):
        width = (WIDTH - 2 * LEFT - GAP * (len(row) - 1)) / len(row) if len(row) > 1 else WIDTH / 2
        start = LEFT if len(row) > 1 else LEFT + (number % 2) * (WIDTH / 2 - 2 * LEFT)
        for at, room in enumerate(row):
            boxes[room] = (start + at * (width + GAP), TOP + number * ROW, width)
    high = TOP + len(rows) * ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {high}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{high}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="34" font-size="17" fill="#222">{HEADING}</text>',
    ]
    for room, other in arrows(list(boxes)):
        (x1, y1, w1), (x2, y2, w2) = boxes[room], boxes[other]
        parts.append(
            f'<line x1="{x1 + w1 / 2:.0f}" y1="{y1 + HIGH:.0f}" x2="{x2 + w2 / 2:.0f}" y2="{y2:.0f}" '
            'stroke="#8a94a6" stroke-width="1.3"/>'
        )
    for room, (x, y, width) in boxes.items():
        words = sentence(room).split()
        parts += [
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" {BOX}/>',
            f'<text x="{x + 10:.0f}" y="{y + 20:.0f}" font-size="14" font-weight="bold">{path_of(room)}</text>',
        ]
        for line, text in enumerate(_wrap(words, int(width / 6.1))[:2]):
            parts.append(
                f'<text x="{x + 10:.0f}" y="{y + 36 + 14 * line:.0f}" font-size="11" fill="#445">{escape(text)}</text>'
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _wrap(words: list[str], most: int) -> list[str]:
    """Return words as lines of at most so many characters."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > most:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def page() -> str:
    """Return the page of the site about the rooms: the picture, and each room in one sentence."""
    rows = "\n".join(f"| `{path_of(room)}` | {sentence(room)} |" for row in layers() for room in row)
    drawn = "Drawn from the imports by `python -m tools.architecture --write`; `make check` holds the order."
    picture = f"![The rooms of the source and what imports what](img/{PICTURE.name})"
    return f"# Architecture\n\n{drawn}\n\n{picture}\n\n| room | what it is |\n|---|---|\n{rows}\n"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("python -m tools.architecture --write draws docs/img/architecture.svg again")
    PICTURE.write_text(draw(), encoding="utf-8")
