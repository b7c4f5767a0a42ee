"""`shipway drift-repair`; it is no part of flows.drift_repair, for that file runs as `__main__`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flows.cli.command import Command, Parser
from flows.cli.verb import Flight, fly_verb

if TYPE_CHECKING:
    from prefect import State
    from rich.console import Console

    from tasks.context import Run
    from tasks.drift.report import DriftReport


def build_parser(prog: str) -> Parser:
    """Return the parser."""
    made = Parser(
        prog=prog,
        description="Find what drifted from a cluster file, repair what is allowed, look again.",
        epilog="Exit status: 0 nothing drifted or all of it repaired, 1 refused, 2 drift is left, 3 failed.",
    )
    made.add_argument("cluster_file", type=Path, help="the cluster file")
    made.add_argument(
        "--repair",
        choices=("declared", "none", "files", "service", "workloads"),
        default="declared",
        help="highest impact of a repair (declared: what the cluster file allows)",
    )
    made.add_argument("--host", action="append", default=[], metavar="NAME", help="only this host (may be repeated)")
    made.add_argument("--ask", action="store_true", help="pause for an approval in Prefect's UI")
    made.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    made.add_argument("--quiet", action="store_true", help="only say how it ended")
    return made


def run_drift_repair(asked: argparse.Namespace, console: Console) -> int:
    """Run the flow, say how it ended, and see its history recorded."""

    def load() -> Flight:
        from flows.drift_repair import drift_repair  # noqa: PLC0415 - imports Prefect

        async def flight(file: str, report: str | None) -> State[Any]:
            state: State[Any] = await drift_repair(
                file, asked.repair, tuple(asked.host), asked.ask, report, return_state=True
            )
            return state

        return flight

    return fly_verb(asked, console, f"drift of {asked.cluster_file}", load, tell)


def tell(console: Console, run: Run) -> None:
    """Print the end of the pass: what drifted, what became of it, and what would repair the rest."""
    from flows.cli.drift_summary import say  # noqa: PLC0415 - it is wanted at the end

    say(console, cast("DriftReport", run.report))


COMMAND = Command("drift_repair", build_parser, run_drift_repair, lambda _: "drift")

if __name__ == "__main__":
    raise SystemExit(COMMAND.main())
