"""All SSH connections of a run."""

from __future__ import annotations

import asyncio

from shipway.host import Host
from shipway.ssh.connection import Connection
from shipway.ssh_target import Target

HANDSHAKES = 64  # at once: a handshake is CPU on this side (2.8 ms measured), more at once only makes all late


class Pool:
    """All connections of a run: one a target, however many tasks use it."""

    def __init__(self) -> None:
        self._hosts: dict[Target, tuple[Connection, Host]] = {}
        self._handshakes = asyncio.Semaphore(HANDSHAKES)

    def host(self, target: Target) -> Host:
        """Give the session of a host; it connects when first used."""
        if target not in self._hosts:
            connection = Connection(target, self._handshakes)
            self._hosts[target] = (connection, Host(target.name, connection))
        return self._hosts[target][1]

    async def hang_up(self, target: Target) -> None:
        """Close the connection of a host; its session connects anew when it is used again."""
        if target in self._hosts:
            await self._hosts[target][0].close()

    async def close(self) -> None:
        """Close every connection."""
        connections = [connection for connection, _ in self._hosts.values()]
        self._hosts = {}
        await asyncio.gather(*(connection.close() for connection in connections))
