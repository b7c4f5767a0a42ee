"""The stage that measures: a pod on each node whose GPUs are free, the host beside it, then the judgement."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TypeVar

from shipway.converge import wait_until
from shipway.errors import Blocked, DeadlineExceeded, PostconditionFailed, ShipwayError
from shipway.gpu.beside import Holds
from shipway.gpu.chosen import VENDOR
from shipway.gpu.evidence import count_taken, see_nodes
from shipway.gpu.figures.faults import FAULTS
from shipway.gpu.figures.history import History, find_swapped, record_of, with_record
from shipway.gpu.figures.judge import Row, judge
from shipway.gpu.figures.measured import keep_verdicts
from shipway.gpu.figures.model import UNITS, Heard
from shipway.gpu.measuring import (
    BURN_SECONDS,
    IMAGE_SECONDS,
    PROBE_SECONDS,
    FiguresHeard,
    burn_host,
    held_back,
    look_at_needs,
    measure_host,
    pod_that_measures,
)
from shipway.gpu.pods import NAMESPACE, apply_pods
from shipway.gpu.proof import own_space
from shipway.gpu.seen import NodeSeen
from shipway.kube.client import Kube, Object
from shipway.step import Impact, StepResult
from shipway.steps.gpu.plugin_mode import proven_as
from tasks.context import Run
from tasks.figures.kept import keep_history, read_history
from tasks.passes.figures import unjudged
from tasks.stage_result import CLUSTER
from tasks.stages.verify import count_expected
from tasks.waiting import hear_results, hear_waits

NAME = "each GPU reaches what it should"
LOOK_SECONDS = 2.0
T = TypeVar("T")
BESIDE = ("all-reduce", "burn")  # of a host: what is not judged of these leaves its GPUs judged
SECONDS = IMAGE_SECONDS + 2.0 * PROBE_SECONDS + max(BURN_SECONDS.values()) + 900


async def measure(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001 - a stage's signature
    """Measure every GPU of nodes whose GPUs are all free, judge what was measured, and keep it for the next time."""
    if run.allow is Impact.NOTHING:
        return [StepResult(NAME, "unknown", error=Blocked("a plan starts no test pods"))]
    if run.proof and run.proof.outcome == "failed":
        return [StepResult(NAME, "unknown", error=Blocked("the proof before it failed, and its pods stay as evidence"))]
    expected = {name: count for name, count in count_expected(run).items() if count}
    if VENDOR.figures is None or not expected:
        return []
    heard, needs = await asyncio.gather(
        _hear(run, stage, expected), asyncio.gather(*(look_at_needs(run.session(name)) for name in expected))
    )
    history = read_history(run.folder)
    run.figures.rows += judge(heard, history, run.cluster.gpu.figures.least)
    run.figures.needs += [row for some in needs for row in some]
    rows = run.figures.rows
    _keep(run, heard, rows, history)
    try:
        await keep_verdicts(await run.kube(), heard, rows)
    except ShipwayError as error:
        run.warned.append(f"figures: it was not written on every node what was bad, or good: {error.message}")
    run.warned += [f"figures: {line}" for line in unjudged(rows)]
    run.warned += [f"{row.host}: {row.said}" for row in run.figures.needs if row.word == "bad"]
    run.warned += [f"figures: {note}" for note in run.figures.notes]
    found = [result for name in expected for result in _results(name, rows)]
    for result in found:
        hear_results(run, stage, CLUSTER)(result)
    return found


async def _hear(run: Run, stage: str, expected: Mapping[str, int]) -> list[Heard]:
    """Return what was heard of each node: its pod's figures and its host's, or why there are none."""
    kube = await run.kube()
    kube.forget()
    nodes, taken = await asyncio.gather(see_nodes(kube, expected, {}), count_taken(kube, expected))
    kept = {node.name: why for node in nodes if (why := _keeps(node, taken.get(node.name, 0)))}
    pods = {f"gpu-figures-{number}": node.name for number, node in enumerate(nodes, 1) if node.name not in kept}
    heard = held_back(list(kept), kept)
    if not pods:
        return heard
    asked = {node.name: next(iter(node.offer.asks(node.expected)), "") for node in nodes}
    each = {name: (node, expected[node], asked[node]) for name, node in pods.items()}
    async with _holding(run, stage, kube, each) as said:
        found = {pod["metadata"]["name"]: pod for pod in await kube.list_("v1", "Pod", NAMESPACE) if _runs(pod)}
        there = {node: found[name] for name, node in pods.items() if name in found}
        hosts = [(run.session(node), _holds(kube, pod)) for node, pod in there.items() if node in said.heard]
        bare = await _all(measure_host(on, holds) for on, holds in hosts)
        if burns := run.figures.burns:
            burned = await _all(burn_host(on, burns, holds) for on, holds in hosts)
            run.figures.rows += [row for rows in burned for row in rows]
    return [*heard, *said.heard.values(), *held_back(list(said.lost), said.lost), *bare]


async def _all(works: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """Return what each comes to; cancelled, only when each has ended: what it began on its host is ended then, too."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
    return [task.result() for task in tasks]


def _holds(kube: Kube, pod: Object) -> Holds:
    """Return what asks whether this very pod still runs, and so holds the GPUs of its node."""

    async def look() -> bool:
        meta = pod["metadata"]
        now = await kube.get("v1", "Pod", meta["name"], NAMESPACE, fresh=True)
        return now is not None and now["metadata"]["uid"] == meta["uid"] and _runs(now)

    return look


def _keeps(node: NodeSeen, taken: int) -> str:
    """Return what keeps a pod from taking all GPUs of a node; "" where nothing does."""
    if node.why_not_ready or node.barred:
        return node.why_not_ready or node.barred
    if node.offer.way != "exclusive":
        return f"its GPUs are shared by {node.offer.way}, and figures are of whole ones"
    if taken:
        return f"busy: pods hold {taken} of its {node.expected} GPUs"
    return "" if node.allocatable == node.expected else f"{node.allocatable} of {node.expected} GPUs are offered"


def _runs(pod: Object) -> bool:
    ends = "deletionTimestamp" in pod["metadata"]
    return not ends and (pod.get("status") or {}).get("phase") == "Running"


@asynccontextmanager
async def _holding(
    run: Run, stage: str, kube: Kube, pods: Mapping[str, tuple[str, int, str]]
) -> AsyncIterator[FiguresHeard]:
    """Yield what the measuring pods have said; they hold the GPUs of their nodes until the end, and go then."""
    cluster, _ = await proven_as(kube, run.cluster)
    on_wait, burns = hear_waits(run, stage, kube.name), run.figures.burns
    async with own_space(kube, on_wait):
        made = [
            pod_that_measures(cluster, name, node, count, burns=burns, resource=resource)
            for name, (node, count, resource) in pods.items()
        ]
        await apply_pods(kube, made)
        said = FiguresHeard({name: node for name, (node, _, _) in pods.items()})
        with contextlib.suppress(DeadlineExceeded):
            limit = IMAGE_SECONDS + PROBE_SECONDS
            await wait_until(said, kube, seconds=limit, every=LOOK_SECONDS, on_wait=on_wait)
        said.give_up()
        yield said


def _keep(run: Run, heard: Sequence[Heard], rows: Sequence[Row], history: History) -> None:
    """Keep what sound GPUs reached, and note where a slot has another GPU than before."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    bad = {(row.uuid, row.figure) for row in rows if row.word == "bad"}
    for one in (one for one in heard if one.where == "pod"):
        for gpu in one.gpus:
            if before := find_swapped(history, gpu, one.host):
                run.figures.notes.append(f"{one.host}: {gpu.title} is where {before} was: its history begins anew")
            if {(gpu.uuid, "checksum"), (gpu.uuid, "clocks")} & bad:
                continue
            record = record_of(gpu, one.host, at, [figure for figure in UNITS if (gpu.uuid, figure) not in bad])
            if record.rates and (
                why := keep_history(run.folder, gpu.uuid, with_record(history.get(gpu.uuid, ()), record))
            ):
                run.warned.append(why)
    run.figures.notes += [f"{row.host}: {row.who}: {row.note}" for row in rows if row.note]


def _results(host: str, rows: Sequence[Row]) -> list[StepResult]:
    """Return a host's results: each bad figure as a failure; where nothing was judged, that nothing is known."""
    own = [row for row in rows if row.host == host]
    bad = [
        StepResult(f"{row.figure.replace('_', ' ')} of {row.who} on {host}", "failed", error=_error(row))
        for row in own
        if row.word == "bad"
    ]
    if bad:
        return bad
    rates = {row.uuid for row in own if row.figure in UNITS and row.word == "good"}
    lacking = [row for row in own if row.word == "not judged" and row.uuid not in rates and row.figure not in BESIDE]
    if lacking or not rates:
        why = f"not judged: {lacking[0].why if lacking else 'there are no figures'}"
        return [StepResult(f"{NAME} ({host})", "unknown", error=Blocked(why, host=host))]
    return [StepResult(f"{NAME} ({host})", "ok")]


def _error(row: Row) -> PostconditionFailed:
    _, code, fix = FAULTS[row.figure]
    return PostconditionFailed(f"{row.who}: {row.said}", host=row.host, step=NAME, code=code, fix=fix)
