"""`shipway fleet`; it is no part of flows.fleet, for that file runs as `__main__`."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.command import FAILED, REFUSED, Command, Parser
from flows.cli.ticker import Ticker
from flows.prefect_api.local import LocalApi, given_url
from shipway.errors import ErrorReport, Refused

if TYPE_CHECKING:
    from prefect import State
    from rich.console import Console

    from flows.fleet_report import FleetReport

STATUS = {"ok": 0, "planned": 0, "refused": REFUSED, "drifted": 2, "partial": 2}  # anything else has failed


def build_parser(prog: str) -> Parser:
    """Return the parser."""
    made = Parser(
        prog=prog,
        description="Look at a large cluster on many workers of a Prefect server at once. Changes nothing.",
        epilog="Exit status: 0 as wanted or planned, 1 refused, 2 drifted or some groups lost, 3 failed.",
    )
    made.add_argument("cluster_file", type=Path, help="the cluster file, by the name that it has for the workers too")
    made.add_argument(
        "--what", choices=("look", "plan"), default="look", help="what drifted, or what a bootstrap would change"
    )
    made.add_argument("--host", action="append", default=[], metavar="NAME", help="only this host (may be repeated)")
    made.add_argument("--hosts-in-a-group", type=_count, default=250, metavar="N", help="how many hosts a worker takes")
    made.add_argument("--groups-at-once", type=_count, default=8, metavar="N", help="how many groups run at once")
    made.add_argument("--minutes-a-group", type=_count, default=60, metavar="N", help="a group is cancelled after this")
    made.add_argument("--deployment", default="fleet-group/group", metavar="FLOW/NAME", help="what looks at one group")
    made.add_argument("--report", type=Path, metavar="FILE", help="write the joined report as JSON")
    made.add_argument("--quiet", action="store_true", help="only say how it ended")
    return made


def _count(text: str) -> int:
    """Return a number that the flow takes: 1 to 5000. Raises ValueError, which argparse tells."""
    if not 1 <= int(text) <= 5000:  # noqa: PLR2004 - as flows.fleet.Count
        raise ValueError(text)
    return int(text)


def run_fleet(asked: argparse.Namespace, console: Console) -> int:
    """Run the flow on the server that is set, and say how it ended."""
    if not given_url():
        fix = (
            "Set PREFECT_API_URL to a server with workers (docs/deployments.md), or run drift_repair, which needs none."
        )
        raise Refused(
            "a fleet is looked at by the workers of a Prefect server, and none is set", code="SHW-135", fix=fix
        )
    with LocalApi() as api:
        with Ticker(api.waited_for, quiet=asked.quiet) as ticker:
            from flows.fleet import fleet  # noqa: PLC0415 - imports Prefect, which reads the environment

            api.wait()
            ticker.text = f"waiting for the groups of {asked.cluster_file}; {api.url.removesuffix('/api')} shows them"

            async def fly() -> Any:
                state: State[Any] = await fleet(
                    str(asked.cluster_file),
                    asked.what,
                    tuple(asked.host),
                    hosts_in_a_group=asked.hosts_in_a_group,
                    groups_at_once=asked.groups_at_once,
                    minutes_a_group=asked.minutes_a_group,
                    deployment=asked.deployment,
                    report_file=str(asked.report.resolve()) if asked.report else None,
                    return_state=True,
                )
                return await state.aresult(raise_on_failure=False)

            report = asyncio.run(fly())
        if isinstance(report, BaseException):
            raise report
        _say(console, report)
        return STATUS.get(report.outcome, FAILED)


def _say(console: Console, report: FleetReport) -> None:
    """Say how it ended: each group, what is wrong once with its hosts, and the outcome."""
    from flows.cli.summary import tell_errors  # noqa: PLC0415 - imports Prefect

    for group in report.groups:
        line = (
            f"{group['first']} ... {group['last']}: {group['hosts']} hosts: {group['outcome']} in {group['seconds']} s"
        )
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    tell_errors(console, [ErrorReport(**error) for error in report.errors])
    for warning in report.warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True, style="yellow")
    counts = ", ".join(f"{count} {outcome}" for outcome, count in report.counted.items())
    console.print(f"outcome: {report.outcome}: {counts}, {report.seconds:.0f} s", highlight=False)


COMMAND = Command("fleet", build_parser, run_fleet, lambda asked: "plan" if asked.what == "plan" else "drift")

if __name__ == "__main__":
    raise SystemExit(COMMAND.main())
