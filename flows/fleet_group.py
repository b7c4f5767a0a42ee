"""One group of hosts of a fleet run: the ordinary flow on some hosts, its report left where the fleet finds it."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import import_module
from typing import Any, Literal

from prefect import State, flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from shipway.errors import Refused
from tasks.prefect_quirks import name_or_typed

What = Literal["plan", "look"]
FENCE = "```"
# What a group runs: the flow, and the parameters that keep it from changing anything.
FLOWS: dict[What, tuple[str, dict[str, Any]]] = {
    "plan": ("flows.bootstrap:bootstrap", {"mode": "plan"}),
    "look": ("flows.drift_repair:drift_repair", {"repair": "none"}),
}
WELL = ("ok", "planned")


def group_name() -> str:
    """Return the run's name: "plan te1 ... te250"."""
    given = flow_run.parameters
    hosts = given.get("hosts") or ("all hosts",)
    return name_or_typed(f"{given.get('what', 'plan')} {span(hosts)}")


def span(hosts: list[str] | tuple[str, ...]) -> str:
    """Return a group's hosts in a few words."""
    return hosts[0] if len(hosts) == 1 else f"{hosts[0]} ... {hosts[-1]}"


@flow(name="fleet-group", flow_run_name=group_name, persist_result=False)
async def fleet_group(cluster_file: str, what: What = "plan", hosts: tuple[str, ...] = ()) -> State[None]:
    """Run the flow on these hosts, and leave its report as an artifact for the fleet.

    Args:
        cluster_file: Name of the cluster file in the worker's folder of cluster files.
        what: plan says what a bootstrap would change; look says what drifted. Neither changes anything.
        hosts: The hosts of this group, as the cluster file names them.
    """
    place, fixed = FLOWS[what]
    module, name = place.split(":")
    asked = getattr(import_module(module), name)  # by name: a worker needs only the flow that is asked for
    state: State[Any] = await asked(cluster_file=cluster_file, hosts=tuple(hosts), **fixed, return_state=True)
    report = await state.aresult(raise_on_failure=False)
    if isinstance(report, BaseException):
        return Failed(name="Refused" if isinstance(report, Refused) else None, message=str(report))
    sent = short(asdict(report))
    await acreate_markdown_artifact(fence(sent), key=KEY, description=f"Report of {span(hosts or ('all hosts',))}")
    message = f"{sent['outcome']}: {len(sent['hosts'])} hosts"
    if state.is_completed():
        return Completed(message=message)
    return Failed(name=str(sent["outcome"]).capitalize(), message=message)


KEY = "fleet-group-report"


def short(report: dict[str, Any]) -> dict[str, Any]:
    """Return a report without the steps that are as wanted: at 250 hosts they are a megabyte that nobody reads."""
    stages = []
    for stage in report.get("stages", ()):
        rows = [row for row in stage["rows"] if row["outcome"] != "ok"]
        if rows:
            stages.append({**stage, "rows": rows})
    return {**report, "stages": stages}


def fence(report: dict[str, Any]) -> str:
    """Return a report as Markdown that a person and a program can read."""
    return f"{FENCE}json\n{json.dumps(report, default=str, ensure_ascii=False)}\n{FENCE}\n"


def unfence(markdown: str) -> dict[str, Any]:
    """Return the report of an artifact; raises ValueError where it holds none."""
    text = markdown.strip().removeprefix(f"{FENCE}json").removesuffix(FENCE)
    report = json.loads(text)
    if not isinstance(report, dict) or "hosts" not in report:
        raise ValueError("the artifact of a group holds no report")
    return report
