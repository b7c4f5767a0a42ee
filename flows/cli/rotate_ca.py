"""`shipway rotate-ca`; it is no part of flows.rotate_ca, for that file runs as `__main__`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.command import Command, Parser
from flows.cli.verb import Flight, fly_verb
from flows.confirming import confirmed_rotation

if TYPE_CHECKING:
    from prefect import State
    from rich.console import Console


def build_parser(prog: str) -> Parser:
    """Return the parser."""
    made = Parser(
        prog=prog,
        description="Replace a CA of the cluster by a new one, in stages. Again: goes on with what was begun.",
        epilog="Exit status: 0 done, rested or planned, 1 refused and nothing changed, 2 pods hold it up, 3 failed.",
    )
    made.add_argument("cluster_file", type=Path, help="the cluster file")
    made.add_argument("--plan", action="store_true", help="change nothing, say what forbids it and what would change")
    made.add_argument("--confirm", default="", metavar="CLUSTER", help="the cluster's name once more")
    made.add_argument(
        "--of",
        choices=("cluster", "etcd", "front-proxy", "service-accounts"),
        default="cluster",
        help="which CA: the cluster's (default), etcd's, the front proxy's; or the key that signs tokens",
    )
    made.add_argument(
        "--until",
        choices=("trust", "certificates", "end"),
        default="end",
        help="rest once both CAs are trusted, or once all certificates are the new CA's (default: to the end)",
    )
    made.add_argument("--back", action="store_true", help="go back to the old CA; not from the last stage")
    made.add_argument(
        "--beside-gpu-pods", action="store_true", help="restart kubelets where pods hold GPUs as well; pods go on"
    )
    made.add_argument(
        "--despite-pods", action="store_true", help="go on though pods of others have read the old CA alone"
    )
    made.add_argument(
        "--despite-tokens", action="store_true", help="go on though Secrets of others hold tokens of the old key"
    )
    made.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    made.add_argument("--quiet", action="store_true", help="only say how it ended")
    return made


def run_rotation(asked: argparse.Namespace, console: Console) -> int:
    """Run the flow, say how it ended, and see its history recorded."""
    if not asked.plan:
        from shipway.cluster_file import load_cluster  # noqa: PLC0415 - as in `flows.cli.command`

        confirmed_rotation(load_cluster(asked.cluster_file).name, asked.confirm)

    def load() -> Flight:
        from flows.rotate_ca import rotate_ca  # noqa: PLC0415 - imports Prefect

        async def flight(file: str, report: str | None) -> State[Any]:
            mode = "plan" if asked.plan else "rotate"
            words = (asked.until, asked.back, asked.beside_gpu_pods, asked.despite_pods, asked.of, asked.despite_tokens)
            state: State[Any] = await rotate_ca(file, asked.confirm, mode, *words, report, return_state=True)
            return state

        return flight

    return fly_verb(asked, console, f"CA of {asked.cluster_file}", load)


COMMAND = Command("rotate_ca", build_parser, run_rotation, lambda asked: "plan" if asked.plan else "rotate-ca")

if __name__ == "__main__":
    raise SystemExit(COMMAND.main())
