"""`shipway move-endpoint`; it is no part of flows.move_endpoint, for that file runs as `__main__`."""

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
        description="Move the endpoint of a running cluster to the name of its file, ours or that of a load balancer "
        "of the site's, and prove it everywhere.",
        epilog="Exit status: 0 moved (or planned), 1 refused and nothing changed, 2 some is not, 3 failed.",
    )
    made.add_argument("cluster_file", type=Path, help="the cluster file")
    made.add_argument("--plan", action="store_true", help="change nothing, say what would be changed")
    made.add_argument(
        "--beside-gpu-pods", action="store_true", help="restart kubelets where pods hold GPUs as well; pods go on"
    )
    made.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    made.add_argument("--quiet", action="store_true", help="only say how it ended")
    return made


def run_move(asked: argparse.Namespace, console: Console) -> int:
    """Run the flow, say how it ended, and see its history recorded."""

    def load() -> Flight:
        from flows.move_endpoint import move_endpoint  # noqa: PLC0415 - imports Prefect

        async def flight(file: str, report: str | None) -> State[Any]:
            mode = "plan" if asked.plan else "move"
            state: State[Any] = await move_endpoint(file, mode, asked.beside_gpu_pods, report, return_state=True)
            return state

        return flight

    return fly_verb(asked, console, f"endpoint of {asked.cluster_file}", load)


COMMAND = Command("move_endpoint", build_parser, run_move, lambda asked: "plan" if asked.plan else "move-endpoint")

if __name__ == "__main__":
    raise SystemExit(COMMAND.main())
