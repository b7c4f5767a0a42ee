"""Shipway's engine without Prefect: the stage converged on all hosts over its own pool of connections."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from shipway.converge import converge
from shipway.host.ssh import Pool
from shipway.host.target import Target
from shipway.step import Impact
from tests.bench.stage import steps
from tests.bench.work import Door, Order, Work


async def main(order: Order) -> None:
    """Converge every host; tell the round trips (SSH exchanges) a host; raise when a step failed."""
    pool = Pool()

    async def one(door: Door, work: Work) -> int:
        host = pool.host(Target(door.name, door.address, door.port, "root", order.key, order.known_hosts))
        results = await converge(steps(work), host, Impact.WORKLOADS)
        if bad := [result for result in results if result.outcome not in ("ok", "changed")]:
            raise RuntimeError(f"{door.name}: {bad[0]}")
        return host.round_trips

    try:
        trips = await asyncio.gather(*map(one, order.doors, order.works))
    finally:
        await pool.close()
    sys.stdout.write(json.dumps({"exchanges": max(trips)}) + "\n")


if __name__ == "__main__":
    asyncio.run(main(Order.read(Path(sys.argv[1]))))
