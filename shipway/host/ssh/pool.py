"""All SSH connections of a run: one per host, and one per jump host for all the hosts behind it."""

from __future__ import annotations

import asyncio
import copy
from collections import defaultdict
from dataclasses import replace

import asyncssh

from shipway.errors import ShipwayError
from shipway.host.session import Host
from shipway.host.ssh.closing import shut
from shipway.host.ssh.config import Way, way
from shipway.host.ssh.connection import Connection
from shipway.host.ssh.handshake import connect
from shipway.host.ssh.sudo import Secret
from shipway.host.target import Target

HANDSHAKES = 64  # at once: a handshake is CPU on this side (2.8 ms measured), more at once only makes all late
# To one sshd at once: it drops some of what is not logged in yet from the tenth on (MaxStartups 10:30:100).
STARTUPS = 8


class Roads:
    """How connections come about: few handshakes at once, to each sshd fewer still, and jump hosts shared."""

    def __init__(self) -> None:
        self._handshakes = asyncio.Semaphore(HANDSHAKES)
        self._startups: defaultdict[tuple[str, str], asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(STARTUPS)
        )
        self._jumps: dict[Target, asyncio.Task[asyncssh.SSHClientConnection]] = {}
        # To jump hosts, each behind the one that it leads through.
        self._connections: list[asyncssh.SSHClientConnection] = []

    async def connection(self, target: Target) -> tuple[asyncssh.SSHClientConnection, Way]:
        """Make a connection, through its jump host where it has one; return it and where it led.

        Raises as `shipway.host.ssh.handshake.connect`, for the jump host too.
        """
        found = way(target)
        jump = found.target.jump
        through = await self._jump(jump) if jump else None
        startups = self._startups[jump.address if jump else "", found.target.address]
        async with startups, self._handshakes:
            return await connect(found, through), found

    async def _jump(self, target: Target) -> asyncssh.SSHClientConnection:
        """Return the one connection to a jump host; who asks while it is made shares the attempt and its failure."""
        key = replace(target, name="")
        made = self._jumps.get(key)
        if made is None or (made.done() and (made.cancelled() or made.exception() or made.result().is_closed())):
            made = self._jumps[key] = asyncio.create_task(self._make(key))
        try:
            return await asyncio.shield(made)
        except ShipwayError as error:
            own = copy.copy(error)  # each host's error names that host
            own.host = target.name
            raise own from error.__cause__

    async def _make(self, target: Target) -> asyncssh.SSHClientConnection:
        connection, _ = await self.connection(target)
        self._connections.append(connection)
        return connection

    async def close(self) -> None:
        """Close the connections to jump hosts, the last first: those that it leads through stand before it."""
        jumps, self._jumps = list(self._jumps.values()), {}
        for made in jumps:
            made.cancel()
        await asyncio.gather(*jumps, return_exceptions=True)
        connections, self._connections = self._connections, []
        for connection in reversed(connections):
            await shut(connection)


class Pool:
    """All connections of a run: one a target, however many tasks use it.

    `secret` returns what a named Secret block holds; without it no target may name one.
    """

    def __init__(self, secret: Secret | None = None) -> None:
        self._hosts: dict[Target, tuple[Connection, Host]] = {}
        self._roads = Roads()
        self._secret = secret

    def host(self, target: Target) -> Host:
        """Return the session of a host; it connects when first used."""
        if target not in self._hosts:
            connection = Connection(target, self._roads.connection, self._secret)
            self._hosts[target] = (connection, Host(target.name, connection))
        return self._hosts[target][1]

    async def hang_up(self, target: Target) -> None:
        """Close the connection of a host; its session connects anew when it is used again."""
        if target in self._hosts:
            await self._hosts[target][0].close()

    async def close(self) -> None:
        """Close every connection, those to jump hosts last."""
        connections = [connection for connection, _ in self._hosts.values()]
        self._hosts = {}
        await asyncio.gather(*(connection.close() for connection in connections))
        await self._roads.close()
