"""A cluster looked at by many workers: groups of its hosts go to one deployment, and one report comes back.

`python -m flows.fleet`.
"""

from __future__ import annotations

if __name__ == "__main__":  # first of all, as in flows.bootstrap
    import runpy

    runpy.run_module("flows.cli.fleet", run_name="__main__", alter_sys=True)

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Annotated
from uuid import UUID

from prefect import State, flow, get_client
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import arun_deployment
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelling, Completed, Failed
from pydantic import Field

from flows.fleet_group import FENCE, KEY, WELL, What, span, unfence
from flows.fleet_report import FleetReport, Group, join_reports
from flows.running import as_states, run_name
from shipway.cluster.model import Cluster
from shipway.cluster_file import load_cluster
from shipway.errors import Refused
from shipway.foreign.errors import describe_error
from tasks.prefect_quirks import tag_run

GROUP = 250
Count = Annotated[int, Field(ge=1, le=5000)]
POLL_SECONDS = 2.0
SENDING = "a run of the group"


def fleet_name() -> str:
    """Return the flow run's name: "fleet te (plan)"."""
    return run_name("fleet", str(flow_run.parameters.get("what", "look")))


@flow(name="fleet", flow_run_name=fleet_name, persist_result=False)
@as_states
async def fleet(
    cluster_file: str,
    what: What = "look",
    hosts: tuple[str, ...] = (),
    *,
    hosts_in_a_group: Count = GROUP,
    groups_at_once: Count = 8,
    minutes_a_group: Count = 60,
    deployment: str = "fleet-group/group",
    report_file: str | None = None,
) -> State[FleetReport]:
    """Look at a large cluster on many workers at once, and join what they report. It changes nothing.

    Args:
        cluster_file: Name of the cluster file in the workers' folder of cluster files, for example te.yaml.
        what: look says what drifted from the cluster file; plan says what a bootstrap would change.
        hosts: Only these hosts, as the cluster file names them; none given means all.
        hosts_in_a_group: How many hosts one worker looks at.
        groups_at_once: How many groups may run at the same time.
        minutes_a_group: A group that has not ended by then is cancelled, and its hosts are reported as unknown.
        deployment: The deployment that looks at one group, as flow name/deployment name.
        report_file: Where to write the joined report as JSON, on the machine that runs the fleet; none by default.
    """
    began = time.monotonic()
    cluster = load_cluster(Path(cluster_file))
    await tag_run(UUID(flow_run.id), (f"cluster:{cluster.name}", f"mode:{what}"))
    names = chosen(cluster, hosts)
    gate = asyncio.Semaphore(groups_at_once)

    async def send(group: tuple[str, ...]) -> Group:
        async with gate:
            parameters = {"cluster_file": cluster_file, "what": what, "hosts": list(group)}
            return await look_at(deployment, group, parameters, minutes_a_group * 60)

    groups = await asyncio.gather(*(send(group) for group in split(names, hosts_in_a_group)))
    report = join_reports(cluster.name, what, groups, time.monotonic() - began)
    await _leave(report, report_file)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in report.counted.items())
    message = f"{report.outcome}: {len(report.hosts)} hosts in {len(groups)} groups; {counts}"
    if report.outcome in WELL:
        return Completed(message=message, data=report)
    return Failed(name=report.outcome.capitalize(), message=message, data=report)


def chosen(cluster: Cluster, hosts: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the hosts to look at; raises Refused for one that the cluster file has not."""
    known = tuple(host.name for host in cluster.hosts)
    if unknown := [name for name in hosts if name not in known]:
        raise Refused(f"{', '.join(unknown)}: no such host in the cluster file; it has {span(known)}", code="SHW-100")
    return tuple(dict.fromkeys(hosts)) or known


def split(names: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Return groups of at most `size` names, as even as can be: the largest group ends last."""
    count = -(-len(names) // size)
    edges = [round(index * len(names) / count) for index in range(count + 1)]
    return [tuple(names[start:end]) for start, end in pairwise(edges)]


async def look_at(deployment: str, hosts: tuple[str, ...], parameters: Mapping[str, object], seconds: float) -> Group:
    """Hand one group to the deployment, wait for its end, and return what came back; a lost group stops no other."""
    began = time.monotonic()
    sent: FlowRun | None = None
    try:
        sent = await arun_deployment(
            deployment, parameters=dict(parameters), timeout=seconds, poll_interval=POLL_SECONDS
        )
        state = sent.state
        if state is None or not state.is_final():
            await _cancel(sent.id)
            why = f"not ended after {seconds:.0f} s (last seen {state.name if state else 'without a state'}); cancelled"
            return Group(hosts, str(sent.id), "late", time.monotonic() - began, why=why)
        report = await _report(sent.id)
    except Exception as error:  # noqa: BLE001 - whatever keeps one group away, the others' reports still come
        get_run_logger().warning("%s (%s): %s", SENDING, span(hosts), describe_error(error))
        known = str(sent.id) if sent else "none"
        return Group(hosts, known, "none", time.monotonic() - began, why=describe_error(error))
    why = "" if report else f"{state.name}: {state.message}"
    return Group(hosts, str(sent.id), state.name or state.type.value, time.monotonic() - began, report, why)


async def _report(flow_run_id: UUID) -> dict[str, object] | None:
    """Return the report that a group's run left with Prefect's API: workers need no storage in common."""
    async with get_client() as client:
        found = await client.read_artifacts(
            artifact_filter=ArtifactFilter(
                flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]), key=ArtifactFilterKey(any_=[KEY])
            )
        )
    return unfence(str(found[0].data)) if found else None


async def _cancel(flow_run_id: UUID) -> None:
    """End a group's run: Cancelling is what a worker acts on, Cancelled would only be written down."""
    async with get_client() as client:
        await client.set_flow_run_state(flow_run_id, Cancelling(message="the fleet waited long enough"))


async def _leave(report: FleetReport, report_file: str | None) -> None:
    """Leave the joined report: tables to look at, the whole as JSON, and the file that was asked for."""
    text = json.dumps(asdict(report), indent=2, ensure_ascii=False)
    key = f"fleet-{report.cluster}"
    await acreate_table_artifact([dict(row) for row in report.groups], key=f"{key}-groups", description="The groups")
    rows = [{**host, "steps": json.dumps(host["steps"])} for host in report.hosts]
    await acreate_table_artifact(rows, key=f"{key}-hosts", description="The hosts of all groups")
    await acreate_markdown_artifact(f"{FENCE}json\n{text}\n{FENCE}\n", key=f"{key}-report", description="As JSON")
    if report_file:
        await asyncio.to_thread(_write, Path(report_file), text)


def _write(path: Path, text: str) -> None:
    """Put the report in place; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
