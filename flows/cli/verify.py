"""`shipway verify`; it is no part of flows.verify, for that file runs as `__main__`."""

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
        description="Prove that every GPU of a running cluster can be scheduled and used: test pods, no other change.",
        epilog="Exit status: 0 every GPU proven, 1 refused, 2 some hosts or GPUs not proven, 3 failed.",
    )
    made.add_argument("cluster_file", type=Path, help="the cluster file")
    made.add_argument(
        "--level",
        choices=("quick", "full", "burn", "burn-long"),
        default="quick",
        help="quick: as ever; full: measure and compare what each free GPU reaches; burn: dcgmi's diagnosis too; "
        "burn-long: its longest level, which takes hours",
    )
    made.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    made.add_argument("--quiet", action="store_true", help="only say how it ended")
    return made


def run_verify(asked: argparse.Namespace, console: Console) -> int:
    """Run the flow, say how it ended, and see its history recorded."""

    def load() -> Flight:
        from flows.verify import verify_cluster  # noqa: PLC0415 - imports Prefect

        async def flight(file: str, report: str | None) -> State[Any]:
            state: State[Any] = await verify_cluster(file, report, asked.level, return_state=True)
            return state

        return flight

    return fly_verb(asked, console, f"verify the GPUs of {asked.cluster_file}", load)


COMMAND = Command("verify", build_parser, run_verify, lambda _: "verify")

if __name__ == "__main__":
    raise SystemExit(COMMAND.main())
