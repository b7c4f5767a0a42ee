"""`shipway replace`; it is no part of flows.replace, for that file runs as `__main__`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from flows.cli.command import Command, Parser
from flows.cli.retiring import add_common
from flows.cli.verb import Flight, fly_verb

if TYPE_CHECKING:
    from prefect import State
    from rich.console import Console

    from tasks.stage_result import Mode


def build_parser(prog: str) -> Parser:
    """Return the parser."""
    made = Parser(
        prog=prog,
        description="Let the machine that the file names take a host's place: the one before is drained, taken out and "
        "reset, this one joins and is proven. Again: resumes.",
        epilog="Exit status: 0 done or planned, 1 refused and nothing changed, 2 some is not, 3 failed.",
    )
    add_common(
        made,
        file="the cluster file, with the address of the machine that comes",
        address="where the machine is that goes, if not at its node's",
    )
    made.add_argument(
        "--dead", action="store_true", help="the machine that goes is gone for good: remove only its node"
    )
    made.add_argument("--evict-gpu-pods", action="store_true", help="pods that hold GPUs there may be broken off")
    made.add_argument(
        "--remake", action="store_true", help="the machine of the file is the one that goes: reset it, join it anew"
    )
    return made


def run_replace(asked: argparse.Namespace, console: Console) -> int:
    """Run the flow, say how it ended, and see its history recorded."""

    def load() -> Flight:
        from flows.replace import replace  # noqa: PLC0415 - imports Prefect

        async def flight(file: str, report: str | None) -> State[Any]:
            mode = "plan" if asked.plan else "replace"
            said = (asked.dead, asked.evict_gpu_pods, asked.remake, asked.address)
            state: State[Any] = await replace(file, asked.name, mode, *said, report, return_state=True)
            return state

        return flight

    return fly_verb(asked, console, f"replacement of {asked.name} in {asked.cluster_file}", load)


def mode_of(asked: argparse.Namespace) -> Mode:
    """Return the mode that was asked for."""
    return "plan" if asked.plan else "replace"


COMMAND = Command("replace", build_parser, run_replace, mode_of)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main())
