"""The run on the terminal while it lasts: a live row per host, or sparse lines where no terminal is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from shipway.redact import redact
from shipway.step import StepResult
from tasks.causes import list_hosts
from tasks.context import Run, View
from tasks.stage_result import CLUSTER, StageResult, causes

STYLES = {"ok": "green", "changed": "green", "drifted": "yellow", "unknown": "yellow", "failed": "bold red"}
SPARE_LINES = 5  # title, counts, header and caption of the table, and the cursor's line
MANY = 10  # hosts from which on lines count them instead of naming each
TICK_SECONDS = 10.0  # between two lines that count
FAILED_SHARE = 3  # one row of three is for hosts that failed, where there is not room for all
MOVES_SECONDS = 20.0  # how long a row counts as moving after its last event


def say_elapsed(seconds: float) -> str:
    """Return a duration as people say it: 42 s, 3 m 20 s, 1 h 05 m."""
    whole = int(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{whole} s"
    if whole < 3600:  # noqa: PLR2004 - seconds of an hour
        return f"{whole // 60} m {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} m"


class Plain:
    """One line for a stage's end and for what a wait sees; of many hosts, each cause once and counts now and then.

    Steps are in the report and in Prefect's log.
    """

    def __init__(self, console: Console, *, lines: bool = True) -> None:
        self._run: Run | None = None
        self._console, self._lines = console, lines
        self._began = self._ticked = time.monotonic()
        self._ended: dict[str, dict[str, bool]] = {}  # by stage and host, whether it stands: a later try counts
        self._shown: set[str] = set()

    def _print(self, text: str) -> None:
        if self._lines:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _line(self, host: str, stage: str, text: str) -> None:
        self._print(f"{host:<12} {stage:<20} {text}")

    def _counts(self, host: str) -> bool:
        """Say whether the host is one of so many that they are counted."""
        return self._run is not None and len(self._run.hosts) > MANY and host in {one.name for one in self._run.hosts}

    def begin_run(self, run: Run) -> None:
        """Count the hosts of this run from now on."""
        self._run = run

    def begin_stage(self, host: str, stage: str) -> None:
        """Say nothing: its end is near."""

    def show_step(self, host: str, stage: str, result: StepResult) -> None:
        """Say nothing: the stage's end tells what failed, and how many were changed."""

    def show_wait(self, host: str, stage: str, sentence: str) -> None:
        """Say what a wait sees."""
        if self._counts(host):
            self._tick()
        else:
            self._line(host, stage, redact(sentence))

    def end_stage(self, result: StageResult) -> None:
        """Say how the stage ended."""
        if not self._counts(result.host):
            self._line(result.host, result.stage, f"{result.outcome} in {result.seconds:.1f} s: {result.said}")
            return
        self._ended.setdefault(result.stage, {})[result.host] = result.stands
        for error in result.errors:
            if (key := f"{result.stage} {error.step} {error.code}") not in self._shown:
                self._shown.add(key)
                said = causes([error], host=False)
                more = "other hosts with the same cause are listed at the end"
                self._line(result.host, result.stage, f"failed: {said} ({more})")
        self._tick()

    def _tick(self) -> None:
        """Say how many hosts each stage is done with, where that was not said for a while."""
        if self._ended and time.monotonic() - self._ticked >= TICK_SECONDS:
            self._say_counts()

    def _say_counts(self) -> None:
        self._ticked = time.monotonic()
        total = len(self._run.hosts) if self._run else 0
        counts = [
            f"{stage} {len(ends)}" + (f" ({failed} failed)" if (failed := len(ends) - sum(ends.values())) else "")
            for stage, ends in self._ended.items()
        ]
        self._print(f"{say_elapsed(self._ticked - self._began)}: of {total} hosts: {', '.join(counts)}")

    def close(self) -> None:
        """Say the last counts."""
        if self._ended:
            self._say_counts()


@dataclass(slots=True)
class _Row:
    """What one host does now."""

    stage: str = ""
    sentence: str = ""
    outcome: str = ""
    began: float = field(default_factory=time.monotonic)
    moved: float = 0.0
    at_work: bool = False

    @property
    def elapsed(self) -> str:
        return say_elapsed(time.monotonic() - self.began) if self.at_work else ""


class Lively(Plain):
    """A table that is drawn anew: a row per host and one for the cluster, each with its stage and newest sentence."""

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console, lines=False)
        self.title = title
        self._rows: dict[str, _Row] = {}
        self._shared: dict[str, _Row] = {}  # the cluster's own stages, some at a time: they share its row

    def begin_run(self, run: Run) -> None:
        """Show every host from the beginning."""
        super().begin_run(run)
        for host in run.hosts:
            self._rows.setdefault(host.name, _Row(sentence="waits"))

    def _row(self, host: str, stage: str) -> _Row:
        """Return the row of a host, made where it is missing; the cluster's stages have one each."""
        if host in self._rows or (host != CLUSTER and self._run is None):
            return self._rows.setdefault(host, _Row(stage))
        return self._shared.setdefault(stage, _Row(stage))

    def begin_stage(self, host: str, stage: str) -> None:
        """Show the stage, and count its seconds from now."""
        row, now = self._row(host, stage), time.monotonic()
        row.stage, row.sentence, row.outcome = stage, "looks", ""
        row.began, row.moved, row.at_work = now, now, True

    def show_step(self, host: str, stage: str, result: StepResult) -> None:
        """Show the newest step."""
        self.show_wait(host, stage, f"{result.step}: {result.outcome}")

    def show_wait(self, host: str, stage: str, sentence: str) -> None:
        """Show the newest sentence."""
        row = self._row(host, stage)
        row.sentence, row.moved = redact(sentence), time.monotonic()

    def end_stage(self, result: StageResult) -> None:
        """Show the outcome."""
        row = self._row(result.host, result.stage)
        row.at_work, row.outcome, row.sentence, row.moved = False, result.outcome, result.said, time.monotonic()

    def _cluster(self) -> _Row | None:
        """Return the cluster's row: what failed, else what moved last of what is at work, else what ended last."""
        rows = list(self._shared.values())
        return max(rows, key=lambda row: (row.outcome == "failed", row.at_work, row.moved), default=None)

    def _counted(self) -> str:
        """Return how many hosts are where."""
        rows = list(self._rows.values())
        work = sum(row.at_work for row in rows)
        failed = sum(row.outcome == "failed" and not row.at_work for row in rows)
        ready = len(self._run.ready) if self._run else 0
        parts = [f"{work} at work", *([f"{failed} failed"] if failed else []), *([f"{ready} ready"] if ready else [])]
        return f"{len(rows)} hosts: {', '.join(parts)}; {say_elapsed(time.monotonic() - self._began)}"

    def __rich__(self) -> Table:
        """Draw the table; of many hosts only the cluster, those at work that move, and those that failed."""
        title = f"{escape(self.title)}\n{self._counted()}"
        table = Table(
            title=title, title_justify="left", title_style="bold", expand=True, box=None, padding=(0, 1, 0, 0)
        )
        table.pad_edge = False
        width = self._console.width
        table.add_column("host", no_wrap=True, overflow="ellipsis", max_width=max(12, width // 4))
        table.add_column("stage", no_wrap=True, overflow="ellipsis", max_width=20)
        table.add_column("now", ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column("", justify="right", no_wrap=True, min_width=8)
        shown, hidden = self._chosen(max(3, self._console.height - SPARE_LINES))
        for name, row in shown:
            style = "cyan" if row.at_work else STYLES.get(row.outcome, "dim")
            table.add_row(escape(name), row.stage, escape(row.sentence), row.elapsed, style=style)
        if hidden:
            ends = Counter("at work" if row.at_work else row.outcome or "waits" for row in hidden)
            table.caption = "not shown: " + ", ".join(f"{count} {what}" for what, count in ends.items())
            table.caption_justify = "left"
        return table

    def _chosen(self, room: int) -> tuple[list[tuple[str, _Row]], Sequence[_Row]]:
        """Return the rows that are shown, and those for which there is no room."""
        shared = self._cluster()
        top = [(CLUSTER, shared)] if shared else []
        rows = list(self._rows.items())
        if len(rows) + len(top) <= room:
            return [*rows, *top], ()
        now, room = time.monotonic(), room - len(top)
        newest = sorted(rows, key=lambda item: -item[1].moved)
        failed = [name for name, row in newest if row.outcome == "failed"]
        work = [name for name, row in newest if row.at_work]
        still = [
            n for n, row in newest if not row.at_work and row.outcome != "failed" and now - row.moved < MOVES_SECONDS
        ]
        # Failures never fill the table while hosts are at work, and never go without a row.
        chosen = {*[*failed[: room // FAILED_SHARE or 1], *work, *failed, *still][:room]}
        return [*top, *(item for item in rows if item[0] in chosen)], [row for name, row in rows if name not in chosen]

    def close(self) -> None:
        """Leave a summary behind: when the table goes, how many hosts ended how stays in the scrollback."""
        ends: dict[str, list[str]] = {}
        for name, row in self._rows.items():
            ends.setdefault(row.outcome or ("at work" if row.at_work else "not tried"), []).append(name)
        counts = "; ".join(f"{len(names)} {what} ({list_hosts(names)})" for what, names in ends.items())
        if counts:
            line = f"{self.title}: {say_elapsed(time.monotonic() - self._began)}; last stage of each host: {counts}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def show(console: Console, title: str, *, quiet: bool) -> Iterator[Plain]:
    """Show a run by the view that fits: live on a terminal, lines elsewhere, nothing when quiet."""
    if quiet:
        yield Plain(console, lines=False)
    elif console.is_terminal:
        lively = Lively(console, title)
        with Live(lively, console=console, refresh_per_second=4, transient=True):
            yield lively
        lively.close()
    else:
        plain = Plain(console)
        yield plain
        plain.close()


_: type[View] = Plain  # it is one
