"""`shipway maintain`; it is no part of flows.maintain, for that file runs as `__main__`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.command import Command, Parser
from flows.cli.verb import Flight, fly_verb
from flows.cli.wave_order import tell

if TYPE_CHECKING:
    from prefect import State
    from rich.console import Console

    from tasks.stage_result import Mode


def build_parser(prog: str) -> Parser:
    """Return the parser."""
    made = Parser(
        prog=prog,
        description="Bring the hosts' packages up to date, restart hosts that ask for it, one and then waves.",
        epilog="Exit status: 0 as wanted, 1 refused and nothing changed, 2 some hosts are not as wanted, 3 failed.",
    )
    made.add_argument("cluster_file", type=Path, help="the cluster file")
    made.add_argument("--plan", action="store_true", help="change nothing, say what forbids it and what would be done")
    made.add_argument(
        "--no-backup", action="store_true", help="take no backup: a verified one of the last hour must be there"
    )
    made.add_argument("--driver", action="store_true", help="change the GPUs' driver as declared, and nothing else")
    made.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    made.add_argument("--quiet", action="store_true", help="only say how it ended")
    return made


def run_maintain(asked: argparse.Namespace, console: Console) -> int:
    """Run the flow, show the order, say how it ended, and see its history recorded."""

    def load() -> Flight:
        from flows.maintain import maintain  # noqa: PLC0415 - imports Prefect

        async def flight(file: str, report: str | None) -> State[Any]:
            state: State[Any] = await maintain(
                file,
                "plan" if asked.plan else "maintain",
                not asked.no_backup,
                report,
                asked.driver,
                return_state=True,
            )
            return state

        return flight

    return fly_verb(asked, console, f"maintenance of {asked.cluster_file}", load, tell)


def mode_of(asked: argparse.Namespace) -> Mode:
    """Return the mode that was asked for, as reports name it."""
    return "plan" if asked.plan else "maintain"


COMMAND = Command("maintain", build_parser, run_maintain, mode_of)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main())
