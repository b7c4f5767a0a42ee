"""A Prefect API of the tests' own, with a database of its own, for the few tests that run flows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.local_api import LocalApi


@contextmanager
def api_in(home: Path) -> Iterator[LocalApi]:
    """Give a running API whose database is in `home`; whatever this machine has set is left aside meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        patch.delenv("PREFECT_API_URL", raising=False)
        with LocalApi() as api:
            api.wait()
            with temporary_settings({PREFECT_API_URL: api.url}):  # Prefect has read its own long before
                yield api


def rows(home: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Give what the database of that home answers."""
    link = sqlite3.connect(f"file:{home / 'prefect.db'}?mode=ro", uri=True)
    try:
        return link.execute(sql, values).fetchall()
    finally:
        link.close()
