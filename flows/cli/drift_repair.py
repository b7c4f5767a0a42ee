"""`shipway drift-repair`; it is no part of flows.drift_repair, for that file runs as `__main__`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.command import FAILED, Command, Parser
from flows.cli.ticker import Ticker
from flows.prefect_api.local import LocalApi

if TYPE_CHECKING:
    from prefect import State
    from rich.console import Console


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
    with LocalApi() as api:
        with Ticker(api.waited_for, quiet=asked.quiet):
            from flows.cli.drift_summary import say  # noqa: PLC0415
            from flows.cli.flight import fly_flow, history  # noqa: PLC0415
            from flows.drift_repair import drift_repair  # noqa: PLC0415 - imports Prefect, which reads the environment
            from tasks.drift.report import DriftReport  # noqa: PLC0415

            api.wait()
        report = str(asked.report.resolve()) if asked.report else None

        async def flight() -> State[Any]:
            state: State[Any] = await drift_repair(
                str(asked.cluster_file.resolve()), asked.repair, tuple(asked.host), asked.ask, report, return_state=True
            )
            return state

        run = fly_flow(console, f"drift of {asked.cluster_file}", flight, quiet=asked.quiet)
        if run is None or not isinstance(run.report, DriftReport):
            return FAILED
        say(console, run.report)
        missing = api.drain(run.flow_runs, len(run.task_runs))
        history(console, api, run, missing)
        return run.report.exit_code


COMMAND = Command("drift_repair", build_parser, run_drift_repair, lambda _: "drift")

if __name__ == "__main__":
    raise SystemExit(COMMAND.main())
