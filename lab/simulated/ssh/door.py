"""The door of a simulated host: who may log in, and where a forwarded connection may lead."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

import asyncssh

from lab.simulated.host import SimulatedHost
from lab.simulated.ssh.limits import OPEN_FAILED, SshLimits

USERS = ("ops", "root")
Way = Callable[[SimulatedHost, str, int], tuple[str, int] | None]
Run = Callable[[SimulatedHost, asyncssh.SSHServerProcess[bytes]], Awaitable[None]]


@dataclass
class Listening:
    """One host's end: its listening socket, key and connections; options are made at the first connection."""

    host: SimulatedHost
    key: asyncssh.SSHKey
    listener: socket.socket | None = None
    options: asyncssh.SSHServerConnectionOptions | None = None
    connections: set[asyncssh.SSHServerConnection] = field(default_factory=set)
    limits: SshLimits = field(default_factory=SshLimits)
    logins: int = 0
    refused: int = 0  # sessions above MaxSessions and connections above MaxStartups
    startups: set[object] = field(default_factory=set)  # peers that have not logged in, by address and port
    silent: set[socket.socket] = field(default_factory=set)


class Session(asyncssh.SSHServerProcess[bytes]):
    """One session of a connection. As in sshd it counts until its channel is closed AND its command has ended."""

    def __init__(self, host: SimulatedHost, run: Run, over: Callable[[Session], None]) -> None:
        super().__init__(self._run, None, 3, False)
        self._host, self._serve, self._over = host, run, over
        self._closed, self._running = False, False

    async def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        self._running = True
        try:
            await self._serve(self._host, process)
        finally:
            self._running = False
            if self._closed:
                self._over(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that the channel is closed."""
        super().connection_lost(exc)
        self._closed = True
        if not self._running:
            self._over(self)


class Door(asyncssh.SSHServer):
    """Lets in the lab's key for ops and root, and forwards to addresses of the lab alone."""

    def __init__(self, end: Listening, client_key: asyncssh.SSHKey, way: Way, run: Run) -> None:
        self._end, self._client_key, self._way, self._run = end, client_key, way, run
        self._sessions: set[Session] = set()

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Keep the connection, so that it can be cut."""
        self._conn = conn
        self._peer = conn.get_extra_info("peername")
        self._end.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._end.connections.discard(self._conn)
        self._end.startups.discard(self._peer)

    def auth_completed(self) -> None:
        """Take the connection off those that MaxStartups counts."""
        self._end.startups.discard(self._peer)

    def session_requested(self) -> Session:
        """Open one more session. Raises ChannelOpenError above MaxSessions, and the connection lives on."""
        if len(self._sessions) >= self._end.limits.max_sessions:
            self._end.refused += 1
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, OPEN_FAILED)
        session = Session(self._end.host, self._run, self._sessions.discard)
        self._sessions.add(session)
        return session

    def begin_auth(self, username: str) -> bool:
        """Count a client that took the host's key and wants to log in."""
        self._end.logins += 1
        return True

    def public_key_auth_supported(self) -> bool:
        """Keys are the only way in."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Take the lab's own key for the users that there are."""
        return username in USERS and key.public_data == self._client_key.public_data

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Awaitable[asyncssh.SSHTCPSession[bytes]]:
        """Forward to what the host reaches: other hosts and the simulated API; nothing outside the lab."""
        target = self._way(self._end.host, dest_host, dest_port)
        if target is None:
            message = (
                f"SIMULATED host {self._end.host.name}: connect to {dest_host} port {dest_port}: Connection refused"
            )
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, message)
        return cast("Awaitable[asyncssh.SSHTCPSession[bytes]]", self._conn.forward_connection(*target))
