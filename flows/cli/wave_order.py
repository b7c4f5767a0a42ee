"""The order of a run in waves, as the terminal shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flows.cli.verb import tell_end

if TYPE_CHECKING:
    from rich.console import Console

    from tasks.context import Run
    from tasks.waves.report import WaveReport


def tell(console: Console, run: Run) -> None:
    """Print the order of the hosts and what is to be known of it, then the end of the run."""
    show_order(console, cast("WaveReport", run.report))
    tell_end(console, run)


def show_order(console: Console, report: WaveReport) -> None:
    """Print in which order hosts come, and what their drains mean."""
    from rich.table import Table  # noqa: PLC0415 - a command says its first line before

    if not report.order:
        return
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("host", "wave", "has", "gets", "pods that leave", "GPU jobs"):
        table.add_column(column, overflow="fold", justify="right" if column.startswith("pods") else "left")
    for row in report.order:
        table.add_row(row.host, row.wave, row.have, row.want, str(row.pods), "; ".join(row.jobs))
    console.print(table)
    for note in report.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
