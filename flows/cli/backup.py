"""`shipway backup`; it is no part of flows.backup, for that file runs as `__main__`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.command import Command, Parser
from flows.cli.verb import Flight, fly_verb, tell_end

if TYPE_CHECKING:
    from prefect import State
    from rich.console import Console

    from tasks.context import Run


def build_parser(prog: str) -> Parser:
    """Return the parser."""
    made = Parser(
        prog=prog,
        description="Take a backup of etcd on the control plane's host, and restore it to believe it.",
        epilog="Exit status: 0 taken and verified (or planned), 1 refused and nothing changed, 2 taken and not kept as "
        "declared, 3 failed.",
    )
    made.add_argument("cluster_file", type=Path, help="the cluster file")
    made.add_argument("--plan", action="store_true", help="change nothing, say what would be done")
    made.add_argument(
        "--if-older", type=int, default=0, metavar="HOURS", help="only where the newest verified backup is older"
    )
    made.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    made.add_argument("--quiet", action="store_true", help="only say how it ended")
    return made


def run_backup(asked: argparse.Namespace, console: Console) -> int:
    """Run the flow, say how it ended, and see its history recorded."""

    def load() -> Flight:
        from flows.backup import backup  # noqa: PLC0415 - imports Prefect

        async def flight(file: str, report: str | None) -> State[Any]:
            state: State[Any] = await backup(file, asked.plan, asked.if_older, report, return_state=True)
            return state

        return flight

    return fly_verb(asked, console, f"backup of {asked.cluster_file}", load, tell)


def tell(console: Console, run: Run) -> None:
    """Print the end of the run, and which verified backup is the newest."""
    tell_end(console, run)
    if run.backup.newest:
        line = f"newest verified backup on {run.control.name}: {run.backup.newest.said}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


COMMAND = Command("backup", build_parser, run_backup, lambda asked: "plan" if asked.plan else "backup")

if __name__ == "__main__":
    raise SystemExit(COMMAND.main())
