"""One host, nothing to change: the controller's CPU and the round trips, on a new connection and on a warm one.

`python -m tests.bench.one_host DIRECT.json RELAYED.json DELAY` prints JSON: milliseconds of CPU a look (medians), and
round trips as the time of a look over the round-trip time of the relay, which is long enough that nothing else counts.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

from shipway.converge import converge
from shipway.host.session import Host
from shipway.host.ssh import Pool
from shipway.host.target import Target
from shipway.step import Impact
from tests.bench.stage import steps
from tests.bench.work import Door, Order, Work

COLD, WARM, THROUGH = 40, 200, 5
Look = Callable[[Host], Awaitable[None]]


def target(order: Order, door: Door) -> Target:
    """Return how the product reaches a host."""
    return Target(door.name, door.address, door.port, "root", order.key, order.known_hosts)


async def looked(work: Work, host: Host) -> None:
    """Look at all of the work; raises RuntimeError where something had to be changed."""
    host.forget()
    results = await converge(steps(work), host, Impact.NOTHING)
    if bad := [result for result in results if result.outcome != "ok"]:
        raise RuntimeError(str(bad[0]))


async def cold(order: Order, times: int) -> list[tuple[float, float]]:
    """Return (wall, CPU) in seconds of a look on a new connection, each time."""
    found = []
    for _ in range(times):
        pool, started, used = Pool(), time.monotonic(), time.process_time()
        await looked(order.works[0], pool.host(target(order, order.doors[0])))
        found.append((time.monotonic() - started, time.process_time() - used))
        await pool.close()
    return found


async def warm(order: Order, times: int) -> list[tuple[float, float]]:
    """Return (wall, CPU) in seconds of a look on a connection that is there, each time."""
    pool, found = Pool(), []
    host = pool.host(target(order, order.doors[0]))
    await looked(order.works[0], host)
    for _ in range(times):
        started, used = time.monotonic(), time.process_time()
        await looked(order.works[0], host)
        found.append((time.monotonic() - started, time.process_time() - used))
    await pool.close()
    return found


async def main(order: Order, relayed: Order, delay: float) -> dict[str, Any]:
    """Return the figures of one host."""
    walls = [median(wall for wall, _ in await way(relayed, THROUGH)) / delay for way in (cold, warm)]
    await cold(order, 3)  # what is imported and compiled once is no cost of a host
    return {
        "cold_ms": 1000 * median(cpu for _, cpu in await cold(order, COLD)),
        "warm_ms": 1000 * median(cpu for _, cpu in await warm(order, WARM)),
        "cold_round_trips": walls[0],
        "warm_round_trips": walls[1],
    }


if __name__ == "__main__":
    direct, through = (Order.read(Path(path)) for path in sys.argv[1:3])
    sys.stdout.write(json.dumps(asyncio.run(main(direct, through, float(sys.argv[3])))) + "\n")
