"""The words of the source: a docstring says what a thing does, in the field's own terms."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("shipway", "tasks", "flows", "lab", "tools", "deployments", "tests")
# Words that have a field term: CONTRIBUTING.md's glossary. Names in backquotes are identifiers.
FOREIGN = re.compile(r"(?<![\w`/.-])(?<!network )(?<!graphics )[Cc]ards?(?![\w`(-]|\.\w)")


def sources(word: str, rooms: Sequence[str] = ROOMS) -> list[Path]:
    """Return the files that have the word anywhere: to take a file apart takes far longer."""
    paths = sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))
    return [path for path in paths if word in path.read_text(encoding="utf-8")]


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every docstring of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, text


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every comment of a file."""
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def test_no_docstring_begins_with_give() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in sources("Give")
        for line, text in docstrings(path)
        if text.split(maxsplit=1)[:1] in (["Give"], ["Gives"])
    ]
    assert wrong == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_gpu_is_called_a_gpu(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in sources("ard", [room])  # with either first letter
        for line, text in (*docstrings(path), *comments(path))
        if FOREIGN.search(re.sub(r"`[^`]*`", "", text))
    ]
    assert wrong == []
