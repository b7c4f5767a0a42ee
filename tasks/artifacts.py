"""What a run leaves in Prefect: a progress bar while it lasts, then a report to read and a table of its hosts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.logging import get_run_logger

from shipway.errors import ErrorReport
from shipway.meanwhile import meanwhile
from tasks.causes import group_errors, list_hosts, name_no_host, shorten
from tasks.context import Run
from tasks.report import Report, say_follows

LONGEST = 1500  # characters of one text: a fix with its command has some hundred, and the report file has all
_CODE = re.compile(r"`([^`]+)`|((?:[^`]|`(?![^`]+`))+)")  # a span of code, or what stands outside
_SIGNS = re.compile(r"[<&*_|\[\]`~\\]")  # what Markdown would read
_LONG_WORD = re.compile(r"\S{28,}")  # a page of 390 pixels shows about 40 characters in a line
_BREAKS = re.compile(r"([./,=:@)-]|\\_)(?=[^\s./,=:@)-])")
EVERY_SECONDS = 2.0
STAGES_A_HOST = 7  # preflight, four of preparation, join or initialisation, settings; a bar need not be exact


@asynccontextmanager
async def progressing(run: Run) -> AsyncIterator[None]:
    """Keep a progress artifact up to date while the run lasts."""
    async with meanwhile(_follow(run)):
        yield


async def _follow(run: Run) -> None:
    """Make the artifact and raise it as stages end; Prefect's trouble is reported in its log and stops nothing."""
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
    """Return about how many stages a run has: a drift pass has one a host and the cluster's."""
    return len(run.hosts) + 1 if run.mode == "drift" else STAGES_A_HOST * len(run.hosts) + 7


def _key(run: Run, what: str) -> str:
    """Return an artifact's key; a plan's are the bootstrap's, a verification has its own."""
    return f"{'bootstrap' if run.kind == 'plan' else run.kind}-{run.cluster.name}-{what}"


async def leave(run: Run) -> None:
    """Leave the report and the table; Prefect's trouble is reported in its log and stops nothing."""
    if run.report is None:
        return
    try:
        await acreate_progress_artifact(100.0, key=_key(run, "progress"), description="the run has ended")
        await acreate_table_artifact(_table(run.report), key=_key(run, "hosts"), description="The hosts of this run")
        if run.figures.rows:
            said = f"What each GPU reaches: {run.figures.said}"
            await acreate_table_artifact(run.figures.table(), key=_key(run, "figures"), description=said)
        await acreate_markdown_artifact(
            markdown(run.report, run.kind), key=_key(run, "report"), description="What was done"
        )
    except Exception as error:  # noqa: BLE001 - as above
        get_run_logger().warning("no report artifact: %s", error)


def _table(report: Report) -> list[dict[str, str | int | float]]:
    """Return a row per host."""
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


def markdown(report: Report, kind: str = "") -> str:
    """Return the report as Markdown: outcome, GPUs, errors with their fixes, warnings, what changed or would change.

    Everything is a list, for a page of any width shows it whole; each cause and each step is there once for all hosts.
    """
    gpus = report.gpus
    lines = [
        f"# {(kind or report.mode).capitalize()} of {report.cluster}: {report.outcome}",
        "",
        f"Profile `{report.profile}`, {report.seconds:.0f} s, steps: "
        + ", ".join(f"{count} {outcome}" for outcome, count in report.counted.items()),
        "",
        f"GPUs: {gpus['expected']} expected, {gpus['allocatable']} allocatable, {gpus['verified']} verified.",
    ]
    if figures := gpus.get("figures"):
        counted = (f"{figures[key]} {key.replace('_', ' ')}" for key in ("good", "bad", "not_judged"))
        lines += ["", f"Figures ({figures['level']}): {', '.join(counted)}."]
    lines += section("Errors", tell_causes(report.errors) + [flat(line) for line in say_follows(report.stages)])
    lines += section("Warnings", [flat(warning) for warning in report.warnings])
    return "\n".join([*lines, *section("Steps that were not as wanted", _tell(report))]) + "\n"


def tell_causes(errors: Sequence[ErrorReport]) -> list[str]:
    """Return an entry of a Markdown list per cause: hosts and step, cause and code, the fix, and what differs."""
    return [
        f"**{flat(': '.join(part for part in (one.who, one.step) if part))}**: {flat(one.cause)} `{one.code}`. "
        f"Next: {flat(one.fix)}" + "".join(f"\n  - {flat(line)}" for line in one.each)
        for one in group_errors(errors)
    ]


def _tell(report: Report) -> list[str]:
    """Return an entry per step that was not as wanted: what was and what is wanted, then the hosts and its end."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for result in report.stages:
        for row in result.rows:
            if row.outcome != "ok" and not row.follows:
                why = "" if row.outcome == "failed" else row.why  # the errors above tell it
                key = (row.step, row.have, row.want, name_no_host(why, result.host), row.outcome, result.stage)
                groups.setdefault(key, []).append(result.host)
    return [
        f"**{flat(step)}**: {compare(have, want)}{flat(why) + '. ' if why else ''}"
        f"*{outcome}* on {flat(list_hosts(hosts))} ({flat(stage)})"
        for (step, have, want, why, outcome, stage), hosts in groups.items()
    ]


def compare(have: str, want: str) -> str:
    """Return what was and what is wanted as the beginning of a sentence, either left out where nothing is known."""
    known = (f"was {flat(have)}" if have else "", f"want {flat(want)}" if want else "")
    return "; ".join(part for part in known if part) + (". " if have or want else "")


def section(title: str, lines: Sequence[str]) -> list[str]:
    """Return a heading with a list below it; nothing where there is nothing to list."""
    return ["", f"## {title}", "", *(f"- {line}" for line in lines)] if lines else []


def flat(text: str) -> str:
    """Return foreign text on one line, harmless in Markdown; what stands between backticks stays code.

    A word that is longer than a phone is wide may break at its dots, slashes and the like (`<wbr>`, which is not
    copied with the text).
    """
    return _CODE.sub(_harmless, shorten(text, LONGEST))


def _harmless(match: re.Match[str]) -> str:
    code, plain = match.groups()
    if plain is not None:
        return _LONG_WORD.sub(_breakable, _escape(plain))
    return f"<code>{_LONG_WORD.sub(_breakable, _escape(code))}</code>" if _LONG_WORD.search(code) else f"`{code}`"


def _escape(text: str) -> str:
    return _SIGNS.sub(lambda sign: {"<": "&lt;", "&": "&amp;"}.get(sign[0], f"\\{sign[0]}"), text)


def _breakable(word: re.Match[str]) -> str:
    return _BREAKS.sub(r"\1<wbr>", word[0])
