"""What real programs and systems say and hold: lab/simulated/data, read once, and filled with a cluster's own values."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

DATA = Path(__file__).parent / "data"


@lru_cache(maxsize=64)
def text(name: str) -> str:
    """Return a file's text."""
    return (DATA / name).read_text(encoding="utf-8")


@lru_cache(maxsize=64)
def table(name: str) -> Any:
    """Return what a YAML file holds; nobody changes it."""
    return yaml.safe_load(text(name))


@lru_cache(maxsize=64)
def _documents(name: str, values: tuple[tuple[str, str], ...]) -> list[dict[str, Any]]:
    filled = text(name)
    for field, value in values:
        filled = filled.replace(f"${{{field}}}", value)
    return [document for document in yaml.safe_load_all(filled) if document]


def documents(name: str, **values: str) -> list[dict[str, Any]]:
    """Return the documents of a YAML file, whose every `${NAME}` stands for the value of that name."""
    return copy.deepcopy(_documents(name, tuple(values.items())))
