"""A flow flown from a command line: under a view, ended in order by signals, its history shown afterwards."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from flows.cli.audience import end_by_exception
from flows.cli.command import name_fault
from flows.prefect_api.local import LocalApi
from shipway.errors import ShipwayError

if TYPE_CHECKING:
    from prefect import State

    from tasks.context import Run


def fly_flow(console: Console, title: str, flight: Callable[[], Awaitable[State[Any]]], *, quiet: bool) -> Run | None:
    """Run a flow under a view; return its run, or None where it opened none. Raises Refused as the flow does."""
    from prefect.exceptions import TerminationSignal  # noqa: PLC0415 - Prefect reads the environment set by now

    from flows.cli.terminal import show  # noqa: PLC0415
    from tasks.context import ON_OPEN, VIEW  # noqa: PLC0415
    from tasks.prefect_quirks import SIGNALS  # noqa: PLC0415

    opened: list[Run] = []
    refusals: list[ShipwayError] = []

    async def fly() -> None:
        try:
            state = await flight()
        except Exception as error:
            if not opened or opened[0].report is None:
                raise
            # What the flow itself raises is its state: this is Prefect's, which could not record the end of the run.
            console.print(f"warning: Prefect's server did not record the end of this run: {error}", markup=False)
            return
        ended = await state.aresult(raise_on_failure=False)
        if isinstance(ended, ShipwayError):
            refusals.append(ended)
            return
        if isinstance(ended, Exception):
            console.print(f"error: {name_fault(ended)}", markup=False, highlight=False, soft_wrap=True, style="red")

    with show(console, title, quiet=quiet) as view:
        VIEW.set(view)
        ON_OPEN.set(opened.append)
        SIGNALS.set(end_on_signals)
        try:
            asyncio.run(fly())
        except (asyncio.CancelledError, KeyboardInterrupt, TerminationSignal):
            console.print("interrupted: connections are closed, and what was done so far is reported")
        finally:
            end_by_exception()  # the event loop has put back the system's own, which would lose the run's history
    run = opened[0] if opened else None
    if refusals and not (run and any(result.outcome == "changed" for result in run.results)):
        raise refusals[0]  # exit status 1 promises that nothing was changed
    return run


def end_on_signals() -> None:
    """Let SIGINT and SIGTERM end the run in order; a second one ends it at once."""
    loop, main_task = asyncio.get_running_loop(), asyncio.current_task()

    def end() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        if main_task:
            main_task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)


def program(name: str) -> str:
    """Return how a person types a program of this run's virtual environment: its path, unless the name finds it."""
    path = Path(sys.executable).parent / name
    if not path.exists() or shutil.which(name) == str(path):
        return name
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def history(console: Console, api: LocalApi, run: Run, missing: str) -> None:
    """Say where the run can be seen."""
    if missing:
        console.print(f"warning: Prefect's history of this run has gaps: {missing}", style="yellow", highlight=False)
    place = f"/runs/flow-run/{run.flow_runs[0]}"
    if api.own:
        home = os.environ.get("PREFECT_HOME")
        server = f"{f'PREFECT_HOME={home} ' if home else ''}{program('prefect')} server start"
        line = f"see the run: `{server}`, then http://127.0.0.1:4200{place}"
    else:
        line = f"see the run: {api.url.removesuffix('/api')}{place}"
    console.print(line, markup=False, highlight=False, soft_wrap=True)
