"""What real programs and systems say and hold: lab/simulated/data, read once, and filled with a cluster's own values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

DATA = Path(__file__).parent / "data"
_FIELD = re.compile(r"\$\{(\w+)\}")


@lru_cache(maxsize=64)
def text(name: str) -> str:
    """Return a file's text."""
    return (DATA / name).read_text(encoding="utf-8")


@lru_cache(maxsize=64)
def table(name: str) -> Any:
    """Return what a YAML file holds; nobody changes it."""
    return yaml.safe_load(text(name))


@lru_cache(maxsize=64)
def _documents(name: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text(name)) if document]


def documents(file: str, /, **values: object) -> list[dict[str, Any]]:
    """Return copies of the documents of a YAML file, in which every `${NAME}` stands for the value of that name."""
    return [_filled(document, values) for document in _documents(file)]


def _filled(part: Any, values: Mapping[str, object]) -> Any:
    if isinstance(part, dict):
        return {key: _filled(value, values) for key, value in part.items()}
    if isinstance(part, list):
        return [_filled(value, values) for value in part]
    if not isinstance(part, str) or "${" not in part:
        return part
    whole = _FIELD.fullmatch(part)
    return values[whole[1]] if whole else _FIELD.sub(lambda found: str(values[found[1]]), part)
