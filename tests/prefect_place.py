"""A Prefect API of the tests' own, with a database of its own, for the few tests that run flows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.prefect_api.local import LocalApi


@dataclass(frozen=True)
class Place:
    """A running API, and the folder with its database."""

    api: LocalApi
    home: Path


@contextmanager
def api_in(home: Path) -> Iterator[Place]:
    """Yield a running API whose database is in `home`; whatever this machine has set is left aside meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        patch.delenv("PREFECT_API_URL", raising=False)
        with LocalApi() as api:
            api.wait()
            with temporary_settings({PREFECT_API_URL: api.url}):  # Prefect has read its own long before
                place = Place(api, home)
                yield place
                api.drain(
                    [UUID(int=0)], 0
                )  # what Prefect's client still holds is sent while there is somebody to hear it


def rows(home: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return what the database of that home answers."""
    link = sqlite3.connect(f"file:{home / 'prefect.db'}?mode=ro", uri=True)
    try:
        return link.execute(sql, values).fetchall()
    finally:
        link.close()
