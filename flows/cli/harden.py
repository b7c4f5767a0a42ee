"""`shipway harden`; it is no part of flows.harden, for that file runs as `__main__`."""

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
        description="Bring what `hardening` of the cluster file declares to a running cluster, and prove it.",
        epilog="Exit status: 0 as declared (or planned), 1 refused and nothing changed, 2 some is not, 3 failed.",
    )
    made.add_argument("cluster_file", type=Path, help="the cluster file")
    made.add_argument("--plan", action="store_true", help="change nothing, say what would be changed")
    made.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    made.add_argument("--quiet", action="store_true", help="only say how it ended")
    return made


def run_harden(asked: argparse.Namespace, console: Console) -> int:
    """Run the flow, say how it ended, and see its history recorded."""

    def load() -> Flight:
        from flows.harden import harden  # noqa: PLC0415 - imports Prefect

        async def flight(file: str, report: str | None) -> State[Any]:
            state: State[Any] = await harden(file, "plan" if asked.plan else "harden", report, return_state=True)
            return state

        return flight

    return fly_verb(asked, console, f"hardening of {asked.cluster_file}", load)


COMMAND = Command("harden", build_parser, run_harden, lambda asked: "plan" if asked.plan else "harden")

if __name__ == "__main__":
    raise SystemExit(COMMAND.main())
