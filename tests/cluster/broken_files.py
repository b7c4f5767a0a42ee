"""The broken cluster files of tests/cluster/broken, each with the texts that its refusal must hold."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "broken"
MARK = "# expect: "


def broken_files() -> list[Path]:
    """Return every broken cluster file, by name."""
    return sorted(FOLDER.glob("*.yaml"))


def expected(path: Path) -> list[str]:
    """Return the texts a file's first lines say its refusal must hold."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix(MARK) for line in lines if line.startswith(MARK)]
