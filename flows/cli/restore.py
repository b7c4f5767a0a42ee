"""`shipway restore`; it is no part of flows.restore, for that file runs as `__main__`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.command import FAILED, Command, Parser
from flows.cli.ticker import Ticker
from flows.prefect_api.local import LocalApi

if TYPE_CHECKING:
    from prefect import State
    from rich.console import Console


def build_parser(prog: str) -> Parser:
    """Return the parser."""
    made = Parser(
        prog=prog,
        description="Put a verified backup in the place of the cluster's data. What is newer than it is LOST.",
        epilog="Exit status: 0 restored (or planned), 1 refused and nothing changed, 2 some hosts failed, 3 failed.",
    )
    made.add_argument("cluster_file", type=Path, help="the cluster file")
    made.add_argument(
        "--from",
        dest="source",
        default="newest",
        metavar="NAME",
        help="a verified backup on the host (default: newest)",
    )
    made.add_argument("--confirm", default="", metavar="CLUSTER", help="the cluster's name: what is newer is LOST")
    made.add_argument("--plan", action="store_true", help="change nothing, say what would be lost")
    made.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    made.add_argument("--quiet", action="store_true", help="only say how it ended")
    return made


def run_restore(asked: argparse.Namespace, console: Console) -> int:
    """Run the flow, say how it ended, and see its history recorded."""
    with LocalApi() as api:
        with Ticker(api.waited_for, quiet=asked.quiet):
            from flows.cli.flight import fly_flow, history  # noqa: PLC0415
            from flows.cli.summary import say  # noqa: PLC0415
            from flows.restore import restore  # noqa: PLC0415 - imports Prefect, which reads the environment

            api.wait()
        report = str(asked.report.resolve()) if asked.report else None

        async def flight() -> State[Any]:
            state: State[Any] = await restore(
                str(asked.cluster_file.resolve()), asked.source, asked.confirm, asked.plan, report, return_state=True
            )
            return state

        run = fly_flow(console, f"restore of {asked.cluster_file}", flight, quiet=asked.quiet)
        if run is None or run.report is None:
            return FAILED
        say(console, run.report, run)
        missing = api.drain(run.flow_runs, len(run.task_runs))
        history(console, api, run, missing)
        return run.report.exit_code


COMMAND = Command("restore", build_parser, run_restore, lambda asked: "plan" if asked.plan else "restore")

if __name__ == "__main__":
    raise SystemExit(COMMAND.main())
