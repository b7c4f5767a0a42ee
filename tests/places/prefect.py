"""A Prefect API of the tests' own, with a database of its own, for the few tests that run flows."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import approval
from flows.prefect_api.local import LocalApi
from tasks import run_stage
from tasks.drift import repair

DATABASE = "prefect.db"


@dataclass(frozen=True)
class Place:
    """A running API, and the folder with its database."""

    api: LocalApi
    home: Path


@contextmanager
def _made() -> Iterator[Path]:
    """Yield, to one at a time, where a database is kept once it is made: one serves all workers of a test run."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid()}")
    folder = Path(tempfile.gettempdir()) / f"shipway-tests-prefect-{run}"
    folder.mkdir(mode=0o700, exist_ok=True)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with (folder / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder / DATABASE


def fill(home: Path) -> None:
    """Put a database into a home of Prefect that has none: to make one takes ten seconds.

    Never in a loop of asyncio: what ends an API there leaves coroutines of Prefect's unawaited.
    """
    with _made() as made:
        known = made.exists()
        if known:
            home.mkdir(exist_ok=True)
            shutil.copy(made, home)
    if not known:
        with api_in(home):
            pass


@contextmanager
def api_in(home: Path) -> Iterator[Place]:
    """Yield a running API whose database is in `home`; whatever this machine has set is left aside meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        patch.delenv("PREFECT_API_URL", raising=False)
        with ExitStack() as stack:
            with _made() as made:
                if known := made.exists():
                    home.mkdir(exist_ok=True)
                    shutil.copy(made, home)
                api = stack.enter_context(LocalApi())
                if not known:
                    api.wait()
                    _copy(home / DATABASE, made)
            api.wait()
            with temporary_settings({PREFECT_API_URL: api.url}):  # Prefect has read its own long before
                place = Place(api, home)
                yield place
                api.drain(
                    [UUID(int=0)], 0
                )  # what Prefect's client still holds is sent while there is somebody to hear it


def _copy(database: Path, to: Path) -> None:
    """Copy a database that is in use."""
    with closing(sqlite3.connect(database)) as one, closing(sqlite3.connect(to)) as other:
        one.backup(other)


@contextmanager
def hurried() -> Iterator[None]:
    """Let flows wait a tenth: between the tries of a stage, between looks after a repair, for an answer's arrival."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_stage, "run_stage", run_stage.run_stage.with_options(retry_delay_seconds=[0.2, 0.4]))
        patch.setattr(repair, "EVERY_SECONDS", repair.EVERY_SECONDS / 10)
        patch.setattr(repair, "AGAIN_SECONDS", tuple(seconds / 10 for seconds in repair.AGAIN_SECONDS))
        patch.setattr(approval, "AGAIN_SECONDS", approval.AGAIN_SECONDS / 10)
        patch.setattr(approval, "POLL_SECONDS", approval.POLL_SECONDS / 10)
        run_stage.stage_task.cache_clear()
        yield
    run_stage.stage_task.cache_clear()


def rows(home: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return what the database of that home answers."""
    link = sqlite3.connect(f"file:{home / DATABASE}?mode=ro", uri=True)
    try:
        return link.execute(sql, values).fetchall()
    finally:
        link.close()
