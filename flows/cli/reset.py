"""`shipway reset`; it is no part of flows.reset, for that file runs as `__main__`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from flows.cli.command import Command, Parser
from flows.cli.retiring import add_common
from flows.cli.verb import Flight, fly_verb
from flows.confirming import confirmed, one_or_all

if TYPE_CHECKING:
    from prefect import State
    from rich.console import Console

    from tasks.stage_result import Mode


def build_parser(prog: str) -> Parser:
    """Return the parser."""
    made = Parser(
        prog=prog,
        description="Take off a host, or all, what Kubernetes and a bootstrap brought, nothing else. Again: resumes.",
        epilog="Exit status: 0 done or planned, 1 refused and nothing changed, 3 failed.",
    )
    add_common(made, optional=True)
    made.add_argument("--cluster", action="store_true", help="every host of the file: the cluster ends")
    made.add_argument(
        "--without", action="append", default=[], metavar="HOST", help="with --cluster: it does not answer, and stays"
    )
    made.add_argument(
        "--confirm",
        default="",
        metavar="NAME",
        help="the host's or the cluster's name once more: what is on it is LOST",
    )
    made.add_argument("--cluster-gone", action="store_true", help="the cluster it was of is gone: do not ask its API")
    return made


def run_reset(asked: argparse.Namespace, console: Console) -> int:
    """Run the flow, say how it ended, and see its history recorded."""
    one_or_all(asked.name, whole=asked.cluster)
    if not asked.plan:
        from shipway.cluster_file import load_cluster  # noqa: PLC0415 - as in `flows.cli.command`

        confirmed(load_cluster(asked.cluster_file).name if asked.cluster else asked.name, asked.confirm)

    def load() -> Flight:
        from flows.reset import reset  # noqa: PLC0415 - imports Prefect

        async def flight(file: str, report: str | None) -> State[Any]:
            state: State[Any] = await reset(
                file,
                asked.name,
                asked.confirm,
                mode_of(asked),
                asked.cluster_gone,
                asked.address,
                report,
                asked.cluster,
                asked.without,
                return_state=True,
            )
            return state

        return flight

    return fly_verb(asked, console, f"reset of {asked.name or 'all hosts'} of {asked.cluster_file}", load)


def mode_of(asked: argparse.Namespace) -> Mode:
    """Return the mode that was asked for."""
    return "plan" if asked.plan else "reset"


COMMAND = Command("reset", build_parser, run_reset, mode_of)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main())
