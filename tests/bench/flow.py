"""Shipway's flow with Prefect: the same stage as a task run per host, with all that surrounds a run of Shipway's."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import yaml

from flows.prefect_api.loading import uncollected

with uncollected():  # as every command does (flows/cli/verb.py)
    from prefect import State, flow
    from prefect.states import Completed

    from flows.running import running
    from shipway.converge import converge
    from shipway.step import StepResult
    from tasks.context import Run
    from tasks.report import Report
    from tasks.run_stage import on
    from tasks.stage import Stage
    from tasks.table import STAGES
    from tasks.waiting import hear_results
    from tests.bench.stage import steps
    from tests.bench.work import Order

NAME = "bench_node"


def cluster_file(order: Order, folder: Path) -> Path:
    """Write the hosts as a cluster file."""
    hosts = [
        {"name": door.name, "address": door.address, "gpus": 0, **({"roles": ["control_plane"]} if not at else {})}
        for at, door in enumerate(order.doors)
    ]
    ssh = {"user": "root", "port": order.doors[0].port, "key": order.key, "known_hosts": order.known_hosts}
    wide = {"pod_network": "10.128.0.0/13"} if len(hosts) > 16 else {}  # the guide's /20 ends there
    data = {
        "name": "bench",
        "profile": "seed",
        "hosts": hosts,
        "ssh": ssh,
        "state_dir": str(folder / "state"),
        "kubernetes": wide,
    }
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def work_of(order: Order) -> Stage:
    """Return the stage for the table of stages."""
    works = {door.name: work for door, work in zip(order.doors, order.works, strict=True)}

    async def work(run: Run, stage: str, host: str) -> list[StepResult]:
        session = run.session(host)
        session.forget()
        return await converge(steps(works[host]), session, run.allow, hear_results(run, stage, host))

    return Stage(NAME, work, lambda _: 600.0, terse=True)  # as the stages of a scan of drift are


@flow(name="bench", persist_result=False)
async def bench(cluster: str) -> State[Report]:
    """Run the stage on every host; raises when it did not stand on one (verdict() would ask for a joined node)."""
    async with running(cluster, "bootstrap", (), (), None) as run, asyncio.TaskGroup() as together:
        for host in run.hosts:
            together.create_task(on(NAME, host.name))
    if bad := [result for result in run.results if not result.stands]:
        raise RuntimeError(bad[0].said)
    trips = max(result.round_trips for result in run.results)
    sys.stdout.write(json.dumps({"exchanges": trips}) + "\n")
    return Completed(data=run.report)


if __name__ == "__main__":
    asked = Order.read(Path(sys.argv[1]))
    STAGES[NAME] = work_of(asked)
    asyncio.run(bench(str(cluster_file(asked, Path(sys.argv[1]).parent))))
