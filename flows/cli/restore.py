"""`shipway restore`; it is no part of flows.restore, for that file runs as `__main__`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.command import Command, Parser
from flows.cli.verb import Flight, fly_verb

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
        help="a verified backup, on a control plane's host or kept here, or s3:NAME (default: newest)",
    )
    made.add_argument("--confirm", default="", metavar="CLUSTER", help="the cluster's name: what is newer is LOST")
    made.add_argument(
        "--gone", action="append", default=[], metavar="HOST", help="a control plane whose machine is gone for good"
    )
    made.add_argument("--plan", action="store_true", help="change nothing, say what would be lost")
    made.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    made.add_argument("--quiet", action="store_true", help="only say how it ended")
    return made


def run_restore(asked: argparse.Namespace, console: Console) -> int:
    """Run the flow, say how it ended, and see its history recorded."""

    def load() -> Flight:
        from flows.restore import restore  # noqa: PLC0415 - imports Prefect

        async def flight(file: str, report: str | None) -> State[Any]:
            gone = tuple(asked.gone)
            state: State[Any] = await restore(
                file, asked.source, asked.confirm, asked.plan, gone, report, return_state=True
            )
            return state

        return flight

    return fly_verb(asked, console, f"restore of {asked.cluster_file}", load)


COMMAND = Command("restore", build_parser, run_restore, lambda asked: "plan" if asked.plan else "restore")

if __name__ == "__main__":
    raise SystemExit(COMMAND.main())
