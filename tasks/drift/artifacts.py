"""What a drift pass leaves in Prefect: the table of drift, the trend, the map of GPUs, and events to build on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from prefect.artifacts import acreate_markdown_artifact, acreate_progress_artifact, acreate_table_artifact
from prefect.events import emit_event
from prefect.logging import get_run_logger

from tasks.artifacts import compare, flat, section, tell_causes
from tasks.context import Run
from tasks.drift.gpu_map import figures_table, gpu_map, list_gpus
from tasks.drift.report import DriftReport, summarise
from tasks.findings import Finding, Shared, count_by_action, group_findings, sort_left

SHOWN = 500  # rows of the table: the report file has all
MOST_EVENTS = 50
BAR = 24


async def leave_drift(run: Run) -> None:
    """Leave artifacts and events; Prefect's trouble is reported in its log and stops nothing."""
    report = run.report
    if not isinstance(report, DriftReport):
        return
    key = f"drift-{run.cluster.name}"
    try:
        await acreate_progress_artifact(100.0, key=f"{key}-progress", description="the pass has ended")
        await acreate_markdown_artifact(drift_markdown(report), key=f"{key}-report", description=summarise(report))
        await acreate_table_artifact(table(report.findings), key=f"{key}-findings", description="What drifted")
        await acreate_markdown_artifact(trend_markdown(report.trend), key=f"{key}-trend", description="The last passes")
        gpus = list_gpus(run)
        if hosts := gpu_map(run, gpus):
            await acreate_table_artifact(hosts, key=f"{key}-gpus", description="GPUs by host")
        if figures := figures_table(gpus)[:SHOWN]:
            await acreate_table_artifact(figures, key=f"{key}-gpu-figures", description="What each GPU last reached")
    except Exception as error:  # noqa: BLE001 - an artifact is no reason to fail a pass
        get_run_logger().warning("no artifact of this pass: %s", error)
    _events(run, report)


def table(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return the drift table, worst first; what fits on a phone (host, action, most of the step) comes first."""
    done = [finding for finding in findings if finding.action == "repaired"]
    rows = [*sort_left(findings), *done][:SHOWN]
    return [
        {"host": f.host, "action": f.action, "step": f.step, "have": f.have, "want": f.want, "impact": f.impact}
        for f in rows
    ]


def drift_markdown(report: DriftReport) -> str:
    """Return the pass as Markdown: what is left with its command, what was repaired, fights, errors; each once."""
    lines = [f"# Drift of {report.cluster}: {report.outcome}", "", f"{summarise(report)}; {report.seconds:.0f} s."]
    lines += section("Left as it is", [_tell(one) for one in group_findings(sort_left(report.findings))[:SHOWN]])
    lines += section("Repaired", [_tell(one) for one in group_findings(_list_repaired(report))[:SHOWN]])
    lines += section("Repaired again and again", [flat(line) for line in report.fights])
    return "\n".join([*lines, *section("Not looked at, or failed", tell_causes(report.errors))]) + "\n"


def _list_repaired(report: DriftReport) -> list[Finding]:
    return [finding for finding in report.findings if finding.action == "repaired"]


def _tell(one: Shared) -> str:
    """Return a list's entry: what was and what is wanted, then hosts, why it was left, and what would do it."""
    f = one.first
    why = f": {flat(f.why)}" if f.why else "."
    command = f" `{f.command}`" if f.command else ""
    others = f" (for {flat(f.host)}, and likewise for each)" if command and len(one.hosts) > 1 else ""
    return f"**{flat(f.step)}**: {compare(f.have, f.want)}*{f.action}* on {flat(one.who)}{why}{command}{others}"


def trend_markdown(trend: Sequence[dict[str, Any]]) -> str:
    """Return the last passes as bars of text: found in all, and what is left of it."""
    head = ["# Drift over the last passes", "", "| pass | found | left | |", "|---|---|---|---|"]
    rows = []
    for one in trend:
        found = sum(count for name, count in one.items() if name != "when")
        rest = found - int(one.get("repaired", 0))
        bar = "█" * min(BAR, rest) + "░" * min(BAR - min(BAR, rest), found - rest)
        rows.append(f"| {str(one['when'])[5:16].replace('T', ' ')} | {found} | {rest} | {bar} |")
    return "\n".join([*head, *rows]) + "\n"


def _events(run: Run, report: DriftReport) -> None:
    """Tell Prefect's event stream: one event for what was found, one a repair, one for what is held back."""
    if not report.findings:
        return
    name = run.cluster.name
    resource = {"prefect.resource.id": f"shipway.cluster.{name}", "prefect.resource.name": name}
    rest = sort_left(report.findings)
    emit_event("shipway.drift.found", resource, payload={"counts": count_by_action(report.findings), "left": len(rest)})
    for finding in [*_list_repaired(report), *(f for f in rest if f.action == "held back")][:MOST_EVENTS]:
        what = "repaired" if finding.action == "repaired" else "held-back"
        fields = {"host": finding.host, "step": finding.step, "impact": finding.impact, "why": finding.why}
        emit_event(f"shipway.drift.{what}", resource, payload=json.loads(json.dumps(fields)))
