"""What the command lines have in common that take a host out: their options, and the flight."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.command import FAILED, Parser
from flows.cli.ticker import Ticker
from flows.prefect_api.local import LocalApi

if TYPE_CHECKING:
    from prefect import State
    from rich.console import Console

Flight = Callable[[str, str | None], Awaitable["State[Any]"]]


def add_common(made: Parser) -> None:
    """Add what both commands take."""
    made.add_argument("cluster_file", type=Path, help="the cluster file")
    made.add_argument("name", metavar="HOST", help="the host's name")
    made.add_argument("--plan", action="store_true", help="change nothing, name every refusal and what would be done")
    made.add_argument(
        "--address", default="", metavar="HOST[:PORT]", help="where a host is that the file does not name"
    )
    made.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    made.add_argument("--quiet", action="store_true", help="only say how it ended")


def fly_retiring(asked: argparse.Namespace, console: Console, title: str, flight: Flight) -> int:
    """Run a flow that takes a host out; return the exit status."""
    with LocalApi() as api:
        with Ticker(api.waited_for, quiet=asked.quiet):
            from flows.cli.flight import fly_flow, history  # noqa: PLC0415 - imports Prefect, which reads the environment
            from flows.cli.summary import say  # noqa: PLC0415

            api.wait()
        report = str(asked.report.resolve()) if asked.report else None

        async def fly() -> State[Any]:
            return await flight(str(asked.cluster_file.resolve()), report)

        run = fly_flow(console, title, fly, quiet=asked.quiet)
        if run is None or run.report is None:
            return FAILED
        say(console, run.report, run)
        missing = api.drain(run.flow_runs, len(run.task_runs))
        history(console, api, run, missing)
        return run.report.exit_code
