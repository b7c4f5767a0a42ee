"""The run on the terminal while it lasts: a live row a host, or plain lines where no terminal is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from shipway.redact import redact
from shipway.step import StepResult
from tasks.context import Run, View
from tasks.stage_result import StageResult

STYLES = {"ok": "green", "changed": "green", "drifted": "yellow", "unknown": "yellow", "failed": "bold red"}
SPARE_LINES = 6  # title, header and footer of the table


class Plain:
    """One line for a stage's end, and what a wait sees; steps are told by the report and by Prefect's log."""

    def __init__(self, console: Console, *, lines: bool = True) -> None:
        self.run: Run | None = None
        self.at_start: Callable[[], None] = lambda: None
        self._console, self._lines = console, lines

    def _line(self, host: str, stage: str, text: str) -> None:
        if self._lines:
            self._console.print(f"{host:<12} {stage:<20} {text}", markup=False, highlight=False, soft_wrap=True)

    def opened(self, run: Run) -> None:
        """Keep the run, for what is said at its end."""
        self.run = run
        self.at_start()

    def began(self, host: str, stage: str) -> None:
        """Say nothing: its end is near."""

    def told(self, host: str, stage: str, result: StepResult) -> None:
        """Say nothing: the stage's end tells what failed, and how many were changed."""

    def said(self, host: str, stage: str, sentence: str) -> None:
        """Say what a wait sees."""
        self._line(host, stage, redact(sentence))

    def ended(self, result: StageResult) -> None:
        """Say how the stage ended."""
        self._line(result.host, result.stage, f"{result.outcome} in {result.seconds:.1f} s: {result.said}")


@dataclass(slots=True)
class _Row:
    """What one host does now."""

    stage: str = ""
    sentence: str = ""
    outcome: str = ""
    began: float = field(default_factory=time.monotonic)
    at_work: bool = False

    @property
    def elapsed(self) -> str:
        return f"{time.monotonic() - self.began:.0f} s" if self.at_work else ""


class Lively(Plain):
    """A table that is drawn anew: a row a host with its stage, the newest sentence and how long the stage takes."""

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console, lines=False)
        self.title = title
        self._rows: dict[str, _Row] = {}

    def opened(self, run: Run) -> None:
        """Show every host from the beginning."""
        super().opened(run)
        for host in run.hosts:
            self._rows.setdefault(host.name, _Row(sentence="waits"))

    def began(self, host: str, stage: str) -> None:
        """Show the stage; the cluster's own work runs beside the hosts', stage by stage."""
        self._rows[self._key(host, stage)] = _Row(stage, "looks", at_work=True)

    def _key(self, host: str, stage: str) -> str:
        hosts = {spec.name for spec in self.run.hosts} if self.run else set()
        return host if host in hosts else f"({stage})"

    def told(self, host: str, stage: str, result: StepResult) -> None:
        """Show the newest step."""
        self.said(host, stage, f"{result.step}: {result.outcome}")

    def said(self, host: str, stage: str, sentence: str) -> None:
        """Show the newest sentence."""
        row = self._rows.setdefault(self._key(host, stage), _Row(stage))
        row.sentence = redact(sentence)

    def ended(self, result: StageResult) -> None:
        """Show the outcome; a stage of the cluster that went well leaves the table."""
        key = self._key(result.host, result.stage)
        row = self._rows.setdefault(key, _Row(result.stage))
        row.at_work, row.outcome, row.sentence = False, result.outcome, result.said
        if key.startswith("(") and result.stands:
            del self._rows[key]

    def __rich__(self) -> Table:
        """Draw the table; of many hosts, those at work and those that failed first."""
        table = Table(title=self.title, title_justify="left", expand=True, box=None, padding=(0, 1))
        table.add_column("host", no_wrap=True)
        table.add_column("stage", no_wrap=True)
        table.add_column("now", ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column("", justify="right", no_wrap=True)
        room = max(4, self._console.height - SPARE_LINES)
        rows = list(self._rows.items())
        if len(rows) > room:
            rows.sort(key=lambda item: (not item[1].at_work, item[1].outcome != "failed"))
        for name, row in rows[:room]:
            style = "cyan" if row.at_work else STYLES.get(row.outcome, "")
            table.add_row(name, row.stage, escape(row.sentence), row.elapsed, style=style)
        if len(rows) > room:
            table.caption = f"and {len(rows) - room} more"
        return table


@contextmanager
def shown(console: Console, title: str, *, quiet: bool) -> Iterator[Plain]:
    """Give the view that fits: live on a terminal, lines elsewhere, nothing when quiet."""
    if quiet:
        yield Plain(console, lines=False)
    elif console.is_terminal:
        lively = Lively(console, title)
        with Live(lively, console=console, refresh_per_second=4, transient=True):
            yield lively
    else:
        yield Plain(console)


_: type[View] = Plain  # it is one
