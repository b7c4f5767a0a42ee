"""What a run leaves in Prefect: a progress bar while it lasts, then a report to read and a table of its hosts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.logging import get_run_logger

from tasks.context import Run
from tasks.report import Report

EVERY_SECONDS = 2.0
STAGES_A_HOST = 7  # preflight, four of preparation, join or initialisation, settings; a bar need not be exact


@asynccontextmanager
async def progressing(run: Run) -> AsyncIterator[None]:
    """Keep a progress artifact up to date while the run lasts."""
    following = asyncio.create_task(_follow(run))
    try:
        yield
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


async def _follow(run: Run) -> None:
    """Make the artifact and raise it as stages end; Prefect's trouble is told in its log and stops nothing."""
    shown = 0.0
    try:
        made = await acreate_progress_artifact(0.0, key=_key(run, "progress"), description="stages that have ended")
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            share = min(99.0, 100.0 * len(run.results) / _stages(run))
            if share > shown:
                shown = share
                await aupdate_progress_artifact(made, share)
    except Exception as error:  # noqa: BLE001 - an artifact is no reason to end a bootstrap
        get_run_logger().warning("no progress artifact: %s", error)


def _stages(run: Run) -> int:
    """Give about how many stages a run has: a drift pass has one a host and the cluster's."""
    return len(run.hosts) + 1 if run.mode == "drift" else STAGES_A_HOST * len(run.hosts) + 7


def _key(run: Run, what: str) -> str:
    return f"{'drift' if run.mode == 'drift' else 'bootstrap'}-{run.cluster.name}-{what}"


async def leave(run: Run) -> None:
    """Leave the report and the table; Prefect's trouble is told in its log and stops nothing."""
    if run.report is None:
        return
    try:
        await acreate_progress_artifact(100.0, key=_key(run, "progress"), description="the run has ended")
        await acreate_table_artifact(_table(run.report), key=_key(run, "hosts"), description="The hosts of this run")
        await acreate_markdown_artifact(markdown(run.report), key=_key(run, "report"), description="What was done")
    except Exception as error:  # noqa: BLE001 - as above
        get_run_logger().warning("no report artifact: %s", error)


def _table(report: Report) -> list[dict[str, str | int | float]]:
    """Give a row a host."""
    return [
        {
            "host": host.name,
            "role": host.role,
            "outcome": host.outcome,
            **host.steps,
            "round trips": host.round_trips,
            "seconds": host.seconds,
        }
        for host in report.hosts
    ]


def markdown(report: Report) -> str:
    """Give the report as Markdown: outcome, cards, errors with their fixes, warnings, what changed or would change."""
    gpus = report.gpus
    lines = [
        f"# {report.mode.capitalize()} of {report.cluster}: {report.outcome}",
        "",
        f"Profile `{report.profile}`, {report.seconds:.0f} s, steps: "
        + ", ".join(f"{count} {outcome}" for outcome, count in report.counted.items()),
        "",
        f"GPUs: {gpus['expected']} expected, {gpus['allocatable']} allocatable, {gpus['verified']} verified.",
    ]
    lines += ["", "## Errors", ""] if report.errors else []
    lines += [f"- **{e.host}: {e.step}**: {_flat(e.cause)} `{e.code}`. Next: {_flat(e.fix)}" for e in report.errors]
    lines += ["", "## Warnings", ""] if report.warnings else []
    lines += [f"- {_flat(warning)}" for warning in report.warnings]
    told = [
        f"| {result.host} | {result.stage} | {row.step} | {row.outcome} "
        f"| {_flat(row.have or row.why)} | {_flat(row.want)} |"
        for result in report.stages
        for row in result.rows
        if row.outcome != "ok"
    ]
    columns = "| host | stage | step | outcome | was | want |"
    head = ["", "## Steps that were not as wanted", "", columns, "|" + "---|" * 6]
    return "\n".join([*lines, *(head + told if told else [])]) + "\n"


def _flat(text: str) -> str:
    """Give foreign text on one line, harmless in a Markdown table."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())[:400]
