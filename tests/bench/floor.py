"""The floor: one tuned script in one channel a host over raw asyncssh; no engine can do with less."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import asyncssh

from tests.bench.script import script
from tests.bench.work import Door, Order, Work

AT_ONCE = 64


async def main(order: Order, known: asyncssh.SSHKnownHosts) -> None:
    """Run the script on all hosts at once."""
    key = asyncssh.read_private_key(order.key)
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(door: Door, work: Work) -> None:
        async with turn:
            link = await asyncssh.connect(
                door.address,
                door.port,
                username="root",
                client_keys=[key],
                known_hosts=known,
                config=None,
                preferred_auth="publickey",
            )
        async with link:
            done = await link.run(script(work), check=True)
            if not str(done.stdout).endswith("done\n"):
                raise RuntimeError(f"{door.name}: {done.stderr!r}")

    await asyncio.gather(*map(one, order.doors, order.works))


if __name__ == "__main__":
    asked = Order.read(Path(sys.argv[1]))
    parsed = asyncssh.import_known_hosts(Path(asked.known_hosts).read_text(encoding="utf-8"))
    asyncio.run(main(asked, parsed))
