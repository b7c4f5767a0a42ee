"""A TCP relay on loopback that delays each direction by half a round-trip time, and counts turns of the talk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.bench.place import relayed
from tests.bench.work import Door, Order


class Relay:
    """Listens on each host's relayed address; `turns` counts a host's times of data from the client after its own.

    Turns are an upper bound of the round trips waited for: what a client sends unasked counts too.
    """

    def __init__(self, delay: float) -> None:
        self._delay = delay  # seconds, one way
        self.turns: Counter[str] = Counter()

    async def listen(self, door: Door) -> None:
        """Open the relay to one host."""
        near = relayed(door)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.CancelledError):  # the relay ends before a client hangs up: no news
                await self._carry(door, reader, writer)

        await asyncio.start_server(serve, near.address, near.port, backlog=128)

    async def _carry(self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * self._delay)  # the TCP handshake's own round trip
        self.turns[door.name] += 1
        far_reader, far_writer = await asyncio.open_connection(door.address, door.port)
        answered = [False]

        def sent() -> None:
            self.turns[door.name] += answered[0]
            answered[0] = False

        def came() -> None:
            answered[0] = True

        try:
            ways = self._way(reader, far_writer, sent), self._way(far_reader, writer, came)
            await asyncio.gather(*ways)
        finally:
            writer.close()
            far_writer.close()

    async def _way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Callable[[], None]) -> None:
        """Carry one direction: bytes leave in order, each `delay` seconds after it came."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def leave() -> None:
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not data:
                    with contextlib.suppress(OSError):
                        writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()

        leaving = asyncio.create_task(leave())
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                seen()
                queue.put_nowait((loop.time() + self._delay, data))
        queue.put_nowait((loop.time() + self._delay, b""))
        with contextlib.suppress(ConnectionError):
            await leaving


async def main(order: Order, delay: float) -> None:
    """Relay until standard input ends; a line on it is answered with the turns since the last one, as JSON."""
    relay = Relay(delay)
    for door in order.doors:
        await relay.listen(door)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def asked() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            ended.set()
            return
        sys.stdout.write(json.dumps(relay.turns) + "\n")
        sys.stdout.flush()
        relay.turns = Counter()

    loop.add_reader(sys.stdin.fileno(), asked)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main(Order.read(Path(sys.argv[1])), float(sys.argv[2])))
