"""The error codes raised in the source, read from it: where, with which text, and what is said to be done."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shipway.gpu.chosen import VENDOR
from shipway.known_failures.catalogue import KNOWN
from tools.traps import ROOT, sources

CODE = re.compile(r"SHW-\d{3}")
LONGEST = 220  # characters of a text in the table
# These are described in sections of their own: by place, for other packages have an errors.py that raises codes.
APART = (ROOT / "shipway" / "errors.py", ROOT / "shipway" / "known_failures")


@dataclass(frozen=True, slots=True, order=True)
class Raised:
    """One place that raises a code."""

    code: str
    module: str
    says: str
    fix: str


def find_raised() -> list[Raised]:
    """Return every place outside the error tree and the catalogue that names a code of its own, by code.

    A step that sees for itself what the catalogue knows from outputs raises the entry's code: its row is the entry's.
    """
    known = {entry.code for entry in KNOWN}
    found = {row for path in sources() if not {path, *path.parents} & {*APART} for row in _of(path)}
    return sorted(row for row in found if row.code not in known)


def _of(path: Path) -> Iterator[Raised]:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    text = path.read_text(encoding="utf-8")
    if not CODE.search(text):  # most have none, and to take one apart takes long
        return
    tree = ast.parse(text)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
            names = _names(node, parents)
            holder = _holder(node, parents)
            yield Raised(node.value, module, _says(node, holder, names), _fix(node, holder, names))


def _holder(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> ast.AST:
    """Return the call, tuple or class that the code is a part of."""
    while node in parents and not isinstance(node, ast.Call | ast.Tuple | ast.ClassDef):
        node = parents[node]
    return node


def _names(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> dict[str, str]:
    """Return the texts of simple assignments in the function around; the last before the place counts."""
    line = getattr(node, "lineno", 0)
    while node in parents and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        node = parents[node]
    found: dict[str, str] = {}
    for inner in ast.walk(node):
        if isinstance(inner, ast.Assign) and isinstance(inner.targets[0], ast.Name) and inner.lineno <= line:
            text = _text(inner.value, {}) or of_vendor(inner.value)
            if text:
                found[inner.targets[0].id] = text
    return found


def _text(node: ast.AST | None, names: dict[str, str]) -> str:
    """Return a text with its placeholders as …; "" for what is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and not CODE.fullmatch(node.value):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else of_vendor(part) or "…" for part in node.values
        )
    if isinstance(node, ast.IfExp):
        return _text(node.body, names)
    return names.get(node.id, "") if isinstance(node, ast.Name) else ""


def of_vendor(node: ast.AST) -> str:
    """Return the text that the vendor has for `vendor.part.of.it`, which is what a user reads; "" for all else."""
    if isinstance(node, ast.FormattedValue):
        return of_vendor(node.value)
    path: list[str] = []
    while isinstance(node, ast.Attribute):
        path.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in ("vendor", "VENDOR"):
        return ""
    value: object = VENDOR
    for part in path:
        value = getattr(value, part)
    return value if isinstance(value, str) else ""


def _says(node: ast.AST, holder: ast.AST, names: dict[str, str]) -> str:
    """Return the message: what follows a positional code, a call's longest text, a tuple's first, or a docstring."""
    if isinstance(holder, ast.ClassDef | ast.Module):
        return _short((ast.get_docstring(holder) or "-").split("\n", maxsplit=1)[0])
    parts = _parts(holder)
    if isinstance(holder, ast.Call) and node in parts:
        return _short(next(filter(None, (_text(part, names) for part in parts[parts.index(node) + 1 :])), ""))
    texts = [_text(part, names) for part in parts]
    return _short(max(texts, key=len, default="") if isinstance(holder, ast.Call) else next(filter(None, texts), ""))


def _fix(node: ast.AST, holder: ast.AST, names: dict[str, str]) -> str:
    """Return what is said to be done: the keyword `fix`, or the last text behind a positional code."""
    named = [word.value for word in holder.keywords if word.arg == "fix"] if isinstance(holder, ast.Call) else []
    if named:
        return _short(_text(named[0], names))
    parts = _parts(holder)
    texts = [text for text in (_text(part, names) for part in parts) if text]
    return _short(texts[-1]) if len(texts) > 1 and node in parts else ""


def _parts(holder: ast.AST) -> list[ast.expr]:
    """Return the positional parts of a call or tuple."""
    if isinstance(holder, ast.Call):
        return list(holder.args)
    return list(holder.elts) if isinstance(holder, ast.Tuple) else []


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"
