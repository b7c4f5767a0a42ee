"""What every command line does around its verb's flow: an API, progress while Prefect loads, the end, the history."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from flows.cli.command import FAILED
from flows.cli.ticker import Ticker
from flows.prefect_api.loading import uncollected
from flows.prefect_api.local import LocalApi

if TYPE_CHECKING:
    from prefect import State
    from rich.console import Console

    from tasks.context import Run

Flight = Callable[[str, str | None], Awaitable["State[Any]"]]  # of the cluster file's and the report file's path
Tell = Callable[["Console", "Run"], None]


def tell_end(console: Console, run: Run) -> None:
    """Print the end of a run as the report has it."""
    from flows.cli.summary import say  # noqa: PLC0415 - it is wanted at the end

    if run.report is not None:
        say(console, run.report, run)


def fly_verb(
    asked: argparse.Namespace, console: Console, title: str, load: Callable[[], Flight], tell: Tell = tell_end
) -> int:
    """Run a verb's flow, let `tell` print its end, see its history recorded; return the exit status.

    `load` imports the flow, and Prefect with it, which takes seconds and reads the environment: it is called once the
    API is set, while something moves on the screen. Raises Refused as the flow does.
    """
    with LocalApi() as api:
        with Ticker(api.waited_for, quiet=asked.quiet), uncollected():
            from flows.cli.flight import fly_flow, history  # noqa: PLC0415 - as `load`

            flight = load()
            api.wait()
        report = str(asked.report.resolve()) if asked.report else None
        run = fly_flow(console, title, lambda: flight(str(asked.cluster_file.resolve()), report), quiet=asked.quiet)
        if run is None or run.report is None:
            return FAILED
        tell(console, run)
        missing = api.drain(run.flow_runs, len(run.task_runs))
        history(console, api, run, missing)
        return run.report.exit_code
