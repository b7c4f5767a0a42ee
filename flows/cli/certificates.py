"""`shipway certificates`; it is no part of flows.certificates, for that file runs as `__main__`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flows.cli.command import Command, Parser
from flows.cli.verb import Flight, fly_verb, tell_end

if TYPE_CHECKING:
    from prefect import State
    from rich.console import Console

    from tasks.certificates.report import CertificatesReport
    from tasks.context import Run
    from tasks.stage_result import Mode

MANY = 60  # rows of a table: above, only those are shown that something is said of


def build_parser(prog: str) -> Parser:
    """Return the parser."""
    made = Parser(
        prog=prog,
        description="Look at every certificate of a cluster, renew what ends soon, prove that the new ones are served.",
        epilog="Exit status: 0 as wanted, 1 refused and nothing changed, 2 some hosts are not as wanted, 3 failed.",
    )
    made.add_argument("cluster_file", type=Path, help="the cluster file")
    made.add_argument("--plan", action="store_true", help="change nothing, say what would be changed")
    made.add_argument(
        "--within", type=int, default=90, metavar="DAYS", help="renew what ends within so many days (default: 90)"
    )
    made.add_argument("--all", action="store_true", dest="everything", help="renew all, whenever they end")
    made.add_argument("--host", action="append", default=[], metavar="NAME", help="only this host (may be repeated)")
    made.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    made.add_argument("--quiet", action="store_true", help="only say how it ended")
    return made


def run_certificates(asked: argparse.Namespace, console: Console) -> int:
    """Run the flow, show the table, say how it ended, and see its history recorded."""

    def load() -> Flight:
        from flows.certificates import certificates  # noqa: PLC0415 - imports Prefect

        async def flight(file: str, report: str | None) -> State[Any]:
            state: State[Any] = await certificates(
                file,
                "plan" if asked.plan else "renew",
                asked.within,
                asked.everything,
                tuple(asked.host),
                report,
                return_state=True,
            )
            return state

        return flight

    return fly_verb(asked, console, f"certificates of {asked.cluster_file}", load, tell)


def tell(console: Console, run: Run) -> None:
    """Print the table of certificates, then the end of the run."""
    show_table(console, cast("CertificatesReport", run.report))
    tell_end(console, run)


def show_table(console: Console, report: CertificatesReport) -> None:
    """Print every certificate, those that end first above; of many only those that something is said of."""
    from rich.table import Table  # noqa: PLC0415 - a command says its first line before

    rows = sorted(report.certificates, key=lambda row: (row.host, row.days))
    shown = rows if len(rows) <= MANY else [row for row in rows if row.finding]
    if not rows:
        return
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("host", "certificate", "days left", "ends (UTC)", "renewed by", "served", "finding"):
        table.add_column(column, overflow="fold", justify="right" if column == "days left" else "left")
    for row in shown:
        days = f"{row.days:.0f}" if row.ends else "?"
        style = "yellow" if row.finding else ""
        ends = row.ends.replace("T", " ").removesuffix("Z")
        table.add_row(row.host, row.name, days, ends, row.renewed_by, row.served, row.finding, style=style)
    console.print(table)
    if len(shown) < len(rows):
        console.print(f"{len(rows) - len(shown)} more certificates have nothing to be said of", highlight=False)


def mode_of(asked: argparse.Namespace) -> Mode:
    """Return the mode that was asked for, as reports name it."""
    return "plan" if asked.plan else "certificates"


COMMAND = Command("certificates", build_parser, run_certificates, mode_of)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main())
