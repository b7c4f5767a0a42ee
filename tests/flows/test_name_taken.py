"""A bare machine joins under no name that a node at another address has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from shipway.errors import ApiUnavailable, Blocked, Refused, ShipwayError
from shipway.step import Impact
from tasks import table
from tasks.context import Run
from tests.ownership.test_leading import cluster
from tests.retire.objects import Objects, node

HERE, ELSEWHERE = "10.9.0.9", "10.9.0.7"


def run_of(*nodes: Any, joined: bool | None = False, error: ShipwayError | None = None, host: str = "w1") -> Run:
    """Return a run on a cluster with these nodes; `joined` is what was seen of the host, None for nothing."""
    run = Run(cluster(), "bootstrap")
    if joined is not None:
        run.seen.surveys[host] = SimpleNamespace(joined=joined, evidence=None)  # type: ignore[assignment]

    async def kube() -> Any:
        if error is not None:
            raise error
        return Objects(*nodes)

    run.kube = kube  # type: ignore[method-assign]
    return run


def at(address: str, *, ready: bool = True) -> Any:
    """Return the worker's node at an address, "" for one that tells none."""
    one = node("w1", ready=ready)
    one["status"]["addresses"] = [{"type": "InternalIP", "address": address}] if address else []
    return one


async def refused(run: Run) -> str:
    """Return the code of the refusal, "" where it may join."""
    try:
        await table._refuse_name_taken(run, "w1")
    except Refused as error:
        return error.code if "shipway replace" in error.fix else "without a way on"
    return ""


@pytest.mark.parametrize("ready", [True, False])
async def test_a_node_of_the_name_at_another_address_may_be_at_work_also_where_it_is_not_ready(ready: bool) -> None:  # noqa: FBT001 - a table
    assert await refused(run_of(at(ELSEWHERE, ready=ready))) == "SHW-360"
    assert await refused(run_of(at(ELSEWHERE, ready=ready), joined=True)) == "", "the host itself, asked by its hosts"
    assert await refused(run_of(at(ELSEWHERE, ready=ready), joined=None)) == "", "its own steps look at it"


@pytest.mark.parametrize("nodes", [[at(HERE)], [at(HERE, ready=False)], [at("")], []])
async def test_a_machine_at_the_nodes_own_address_joins_anew(nodes: list[Any]) -> None:
    assert await refused(run_of(*nodes)) == ""


async def test_a_plan_asks_a_cluster_that_is_there_and_counts_what_goes_before() -> None:
    run = run_of(at(ELSEWHERE))
    run.allow = Impact.NOTHING
    assert await refused(run) == "SHW-360"
    run.replacement.old = run.cluster
    assert await refused(run) == ""
    run.allow = Impact.WORKLOADS
    assert await refused(run) == "SHW-360", "what was to go before has not gone"
    none = run_of(error=Blocked("no admin.conf"))
    with pytest.raises(Blocked):
        await refused(none)
    none.allow = Impact.NOTHING
    assert await refused(none) == ""
    away = run_of(error=ApiUnavailable("away"))
    away.allow = Impact.NOTHING
    with pytest.raises(ApiUnavailable):
        await refused(away)


async def test_a_control_plane_joins_under_no_other_machines_name_and_no_host_is_asked_before() -> None:
    taken = node("cp2")
    taken["status"]["addresses"] = [{"type": "InternalIP", "address": ELSEWHERE}]
    run = run_of(taken, host="cp2")
    run.session = lambda name: SimpleNamespace(name=name, forget=lambda: None)  # type: ignore[assignment,method-assign,misc,return-value]
    with pytest.raises(Refused) as raised:
        await table._join_control_plane(run, "join_control_plane", "cp2")
    assert raised.value.code == "SHW-360"
