"""The stage that measures collectives across hosts, and searches for what is slow where one is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shipway.errors import Blocked, PostconditionFailed
from shipway.facts.files import Listing
from shipway.gpu.across.pods import VERBS, Collectives, find_rails
from shipway.gpu.across.search import Fault, Search, search
from shipway.gpu.figures.faults import FAULTS
from shipway.gpu.figures.judge import Row
from shipway.gpu.figures.model import UNITS
from shipway.gpu.offers import see_offers
from shipway.gpu.proof import own_space
from shipway.kube.nodes import nodes_by_name
from shipway.step import Impact, StepResult
from shipway.steps.gpu.plugin_mode import proven_as
from tasks.context import Run
from tasks.stage_result import CLUSTER
from tasks.stages.verify import count_expected
from tasks.waiting import hear_results, hear_waits

NAME = "collectives across hosts reach what they should"
FIGURE = "across hosts"
SECONDS = 4 * 3600.0  # some ten rounds; one takes as long as the network does for the bytes
UNIT = "GB/s per GPU"
TCP = "socket"  # NCCL's name for it, as the probe writes names


async def measure_across(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001 - a stage's signature
    """Measure pairs of hosts, then all of them, and name what is slow.

    Hosts with a bad figure of their own are left out. Only GPUs that were just measured take part: they were free. A
    host with fewer GPUs than others sets the number.
    """
    if run.allow is Impact.NOTHING:
        return [StepResult(NAME, "unknown", error=Blocked("a plan starts no test pods"))]
    hosts = _fit(run)
    if len(hosts) < 2:  # noqa: PLR2004 - a pair
        return []
    rows = await _search(run, stage, hosts)
    run.figures.rows += rows
    run.warned += [f"figures: {row.said}" for row in rows if row.word == "not judged"]
    found = [_result(row) for row in rows]
    for result in found:
        hear_results(run, stage, CLUSTER)(result)
    return found


def _fit(run: Run) -> list[str]:
    """Return the hosts of which every GPU reached what it should, in the file's order."""
    bad = {row.host for row in run.figures.rows if row.word == "bad"}
    told = {row.host for row in run.figures.rows if row.figure in UNITS and row.got is not None}
    return [one.name for one in run.hosts if one.name in told - bad]


async def _search(run: Run, stage: str, hosts: Sequence[str]) -> list[Row]:
    kube = await run.kube()
    on_wait = hear_waits(run, stage, kube.name)
    cluster, _ = await proven_as(kube, run.cluster)
    counts = {name: count for name, count in count_expected(run).items() if name in hosts}
    devices = await asyncio.gather(*(run.session(name).read(Listing(VERBS)) for name in hosts))
    verbs = frozenset(
        name for name, names in zip(hosts, devices, strict=True) if any(one.startswith("uverbs") for one in names)
    )
    offers, nodes = await asyncio.gather(see_offers(kube, counts), nodes_by_name(kube))
    rails = {name: find_rails(nodes[name]) for name in hosts if name in nodes}
    asks = {name: next(iter(offers[name].asks(count)), "") for name, count in counts.items()}
    collectives = Collectives(kube, cluster, counts, verbs, on_wait, asks=asks, rails=rails)
    try:
        async with own_space(kube, on_wait):
            found = await search(hosts, min(counts.values()), collectives.measure)
    except PostconditionFailed as error:
        return [Row(CLUSTER, "", f"{len(hosts)} hosts", FIGURE, "not judged", error.message)]
    by = "/".join(sorted({one or "not told" for one in collectives.networks.values()}))
    run.figures.notes.append(
        f"{FIGURE}: {found.rounds} rounds over {len(hosts)} hosts of {min(counts.values())} GPUs, network {by}"
    )
    return _rows(hosts, found, collectives)


def _rows(hosts: Sequence[str], found: Search, collectives: Collectives) -> list[Row]:
    """Return a row for each fault; without any one row for all hosts, good or not judged.

    Hosts that fell back to TCP are all equally slow, so none is by its equals: each is a fault by what NCCL says.
    """
    if rows := [*(_row(fault, collectives) for fault in found.faults), *_over_tcp(collectives)]:
        return rows
    lowest = min((rate for rate in (*found.pairs.values(), found.ring) if rate is not None), default=None)
    who = f"{len(hosts)} hosts, {len(found.pairs)} pairs"
    if found.wanted is None:
        return [Row(CLUSTER, "", who, FIGURE, "not judged", found.why, lowest, UNIT)]
    margins = {} if lowest is None else {"equals": lowest / found.wanted - 1}
    return [Row(CLUSTER, "", who, FIGURE, "good", "", lowest, UNIT, margins)]


def _over_tcp(collectives: Collectives) -> list[Row]:
    """Return a row for each host that has RDMA devices, and whose collectives went over TCP all the same."""
    why = (
        "NCCL went over TCP (network Socket), though it has RDMA devices: see what RDMA needs (memlock, GIDs, ports), "
        "and NCCL_DEBUG=INFO"
    )
    there = [host for host in collectives.counts if host in collectives.verbs]
    return [Row(one, "", one, FIGURE, "bad", why) for one in there if collectives.networks.get(one) == TCP]


def _row(fault: Fault, collectives: Collectives) -> Row:
    why = collectives.why.get(fault.hosts, "")
    wanted = f"{fault.wanted:.4g} {UNIT} is {'wanted' if fault.rate is not None else 'what others reach'}"
    said = f"{fault} is slow: {wanted}" if fault.rate is not None else f"{fault} does not work: {why or wanted}"
    return Row(fault.hosts[0], "", str(fault), FIGURE, "bad", said, fault.rate, UNIT)


def _result(row: Row) -> StepResult:
    """Return what a row is to the run: what was measured and has no equals is no fault, and told as a warning."""
    if row.word == "bad":
        _, code, fix = FAULTS[FIGURE]
        error = PostconditionFailed(row.said, host=row.host, step=NAME, code=code, fix=fix)
        return StepResult(f"{FIGURE}: {row.who}", "failed", error=error)
    if row.word == "not judged" and row.got is None:
        return StepResult(NAME, "unknown", error=Blocked(f"not judged: {row.why}"))
    return StepResult(NAME, "ok")
