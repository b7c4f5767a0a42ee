"""What works around Prefect 3.8, each with its reason; tests/flows/test_prefect_quirks.py shows that each is needed.

- A task with a tag asks the server for a concurrency slot before it begins, once and without a retry: a server that
  restarts ends the run (task_engine.py, `names=[f"tag:{tag}" ...]`). So no task has a tag; a flow run's own tags are
  set on the run itself (`tag_run`), for tags of a context are handed down to every task.
- A client that has never reached its server does not try again (client/base.py, `_has_connected`), and every subflow
  and every artifact makes a new client: `wait_for_server` comes before what the run cannot do without.
- Each flow and each subflow puts a handler of SIGTERM in place that cuts off whatever is under way (`capture_sigterm`
  of utilities/engine): `take_signals_back` is the first thing that both do here.
- `flow_run_name` replaces the name that a person typed into the run form: `name_or_typed` keeps it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from functools import cache
from typing import Any
from uuid import UUID

from coolname.data import config
from prefect import get_client
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

SERVER_SECONDS = (
    75.0  # how long a server that is away is waited for: a restart of its container takes less than a minute
)
AGAIN_SECONDS = 1.0
_GREEK = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|"
    "nu|xi|omicron|pi|rho|sigma|tau|upsilon|phi|chi|psi|omega"
)
_STAR = re.compile(rf"(?:{_GREEK})\d{{0,3}}(?:-[a-z0-9]+){{1,3}}")
# What puts a command line's handlers of signals in place. A worker of Prefect has none, and keeps Prefect's.
SIGNALS: ContextVar[Callable[[], None]] = ContextVar("SIGNALS")


def take_signals_back() -> None:
    """Put the handlers of whoever started this run in place again, where there are any."""
    if (restore := SIGNALS.get(None)) is not None:
        restore()


async def wait_for_server(seconds: float = SERVER_SECONDS) -> bool:
    """Wait until Prefect's API answers, at most so many seconds; return whether it does."""
    ends = time.monotonic() + seconds
    while True:
        async with get_client() as client:
            if await client.api_healthcheck() is None:
                return True
        if time.monotonic() >= ends:
            return False
        await asyncio.sleep(AGAIN_SECONDS)


async def tag_run(run: UUID, tags: Iterable[str]) -> None:
    """Add tags to a flow run, beside those that its deployment gave it; what keeps from it is logged."""
    try:
        async with get_client() as client:
            known = (await client.read_flow_run(run)).tags
            await client.update_flow_run(run, tags=sorted({*known, *tags}))
    except Exception as error:  # noqa: BLE001 - a tag is no reason to end a bootstrap
        get_run_logger().warning("the run has no tags: %s", error)


def name_or_typed(name: str) -> str:
    """Return the name of the current flow run: the one that somebody gave it, else `name`.

    A run that nobody named has two words of the library `coolname`, joined by a hyphen (utilities/names.py), or, from
    the UI's form, a star's name: a Greek letter with or without a number, then one to three words (ui/assets).
    """
    current = str(flow_run.name or "")
    if _STAR.fullmatch(current):
        return name
    words = current.split("-")
    drawn = len(words) == 2 and set(words) <= _drawn_words()  # noqa: PLR2004 - generate_slug(2)
    return name if drawn or not current else current


@cache
def _drawn_words() -> frozenset[str]:
    parts: list[dict[str, Any]] = [dict(part) for part in config.values()]  # type: ignore[call-overload]
    return frozenset(word for part in parts if part["type"] == "words" for word in part["words"])
