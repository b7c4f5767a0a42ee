"""`shipway remove`; it is no part of flows.remove, for that file runs as `__main__`."""

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
        description="Take a host out of its cluster: drained, its node deleted, its host reset. Again: resumes.",
        epilog="Exit status: 0 done or planned, 1 refused and nothing changed, 3 failed.",
    )
    add_common(made)
    made.add_argument("--dead", action="store_true", help="the machine is gone for good: remove only its node")
    made.add_argument(
        "--to-replace", action="store_true", help="another machine takes this control plane's place right after"
    )
    made.add_argument("--evict-gpu-pods", action="store_true", help="pods that hold GPUs there may be broken off")
    return made


def run_remove(asked: argparse.Namespace, console: Console) -> int:
    """Run the flow, say how it ended, and see its history recorded."""

    def load() -> Flight:
        from flows.remove import remove  # noqa: PLC0415 - imports Prefect

        async def flight(file: str, report: str | None) -> State[Any]:
            state: State[Any] = await remove(
                file,
                asked.name,
                mode_of(asked),
                asked.dead,
                asked.evict_gpu_pods,
                asked.address,
                report,
                asked.to_replace,
                return_state=True,
            )
            return state

        return flight

    return fly_verb(asked, console, f"removal of {asked.name} from {asked.cluster_file}", load)


def mode_of(asked: argparse.Namespace) -> Mode:
    """Return the mode that was asked for."""
    return "plan" if asked.plan else "remove"


COMMAND = Command("remove", build_parser, run_remove, mode_of)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main())
