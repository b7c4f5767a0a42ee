"""`shipway backup`; it is no part of flows.backup, for that file runs as `__main__`."""

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
        description="Take a backup of etcd on the control plane's host, and restore it to believe it.",
        epilog="Exit status: 0 taken and verified (or planned), 1 refused and nothing changed, 2 taken and not kept as "
        "declared, 3 failed.",
    )
    made.add_argument("cluster_file", type=Path, help="the cluster file")
    made.add_argument("--plan", action="store_true", help="change nothing, say what would be done")
    made.add_argument(
        "--if-older", type=int, default=0, metavar="HOURS", help="only where the newest verified backup is older"
    )
    made.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    made.add_argument("--quiet", action="store_true", help="only say how it ended")
    return made


def run_backup(asked: argparse.Namespace, console: Console) -> int:
    """Run the flow, say how it ended, and see its history recorded."""
    with LocalApi() as api:
        with Ticker(api.waited_for, quiet=asked.quiet):
            from flows.backup import backup  # noqa: PLC0415 - imports Prefect, which reads the environment
            from flows.cli.flight import fly_flow, history  # noqa: PLC0415
            from flows.cli.summary import say  # noqa: PLC0415

            api.wait()
        report = str(asked.report.resolve()) if asked.report else None

        async def flight() -> State[Any]:
            state: State[Any] = await backup(
                str(asked.cluster_file.resolve()), asked.plan, asked.if_older, report, return_state=True
            )
            return state

        run = fly_flow(console, f"backup of {asked.cluster_file}", flight, quiet=asked.quiet)
        if run is None or run.report is None:
            return FAILED
        say(console, run.report, run)
        if run.backup.newest:
            line = f"newest verified backup on {run.control.name}: {run.backup.newest.said}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        missing = api.drain(run.flow_runs, len(run.task_runs))
        history(console, api, run, missing)
        return run.report.exit_code


COMMAND = Command("backup", build_parser, run_backup, lambda asked: "plan" if asked.plan else "backup")

if __name__ == "__main__":
    raise SystemExit(COMMAND.main())
