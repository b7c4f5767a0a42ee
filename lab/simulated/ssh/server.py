"""A real SSH server on loopback in front of all simulated hosts: one address a host, one port, one key a host."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Callable

import asyncssh

from lab.simulated.commands.registry import Input
from lab.simulated.host import SimulatedHost
from lab.simulated.login_shell import startup_output
from lab.simulated.shell import Cut, Terminal, serve
from lab.simulated.ssh.door import Door, Listening, Way
from lab.simulated.ssh.limits import DROPPED, SshLimits

log = logging.getLogger("lab.simulated")
_BACKLOG = 128


class Gathering:
    """What a session writes to one stream: all of one turn of the event loop goes out at once, as through a pipe."""

    def __init__(
        self, host: SimulatedHost, process: asyncssh.SSHServerProcess[bytes], write: Callable[[bytes], None]
    ) -> None:
        self._host, self._process, self._write = host, process, write
        self._kept = bytearray()

    def __call__(self, data: bytes) -> None:
        """Take some bytes."""
        if not self._kept:
            asyncio.get_running_loop().call_soon(self.flush)
        self._kept += data

    def flush(self) -> None:
        """Send what was taken; a host that cannot be reached, and a session that is over, send nothing."""
        kept, self._kept = bytes(self._kept), bytearray()
        if kept and self._host.reachable and not self._process.is_closing():
            with contextlib.suppress(BrokenPipeError, OSError):
                self._write(kept)


class SshServer:
    """All hosts' listening sockets in one event loop; a host costs a socket until somebody connects."""

    def __init__(self, port: int, client_key: asyncssh.SSHKey, way: Way, limits: SshLimits, seed: int) -> None:
        self.port = port
        self._limits, self._dice = limits, random.Random(seed)
        self._client_key = client_key
        self._way = way
        self._ends: dict[str, Listening] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, host: SimulatedHost, key: asyncssh.SSHKey) -> None:
        """Listen for a host. Raises OSError where its address and port are taken."""
        end = self._ends[host.name] = Listening(host, key, limits=self._limits)
        self.listen(end)

    def listen(self, end: Listening) -> None:
        """Open the host's socket."""
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setblocking(False)
            made.bind((end.host.address, self.port))
            made.listen(_BACKLOG)
        except OSError:
            made.close()
            raise
        end.listener = made
        asyncio.get_running_loop().add_reader(made, self._accept, end)

    def refuse(self, name: str) -> None:
        """Close the host's socket: who connects is refused, as by a machine whose sshd is down."""
        end = self._ends[name]
        if end.listener is not None:
            asyncio.get_running_loop().remove_reader(end.listener)
            end.listener.close()
            end.listener = None

    def up(self, name: str) -> None:
        """Listen again, and let go of who waited on a silent host."""
        end = self._ends[name]
        for waiting in end.silent:
            waiting.close()
        end.silent.clear()
        if end.listener is None:
            self.listen(end)

    def rekey(self, name: str) -> None:
        """Replace a host's key, as a machine that was set up anew or another one at its address has."""
        end = self._ends[name]
        end.key = asyncssh.generate_private_key("ssh-ed25519", comment="SIMULATED host")
        end.options = None

    def logins(self, name: str) -> int:
        """Return how many connections came as far as a login on a host: the client had taken its key then."""
        return self._ends[name].logins

    def refused(self) -> int:
        """Return how many sessions and connections all hosts refused by the limits of their sshd."""
        return sum(end.refused for end in self._ends.values())

    def connected(self) -> int:
        """Return how many connections are open, of all hosts."""
        return sum(len(end.connections) for end in self._ends.values())

    def cut(self, name: str, *, stall: bool = False) -> None:
        """End a host's connections; with `stall` they stay and nothing moves on them, as on a cut cable."""
        for connection in list(self._ends[name].connections):
            transport = connection._transport  # noqa: SLF001 - the one way to stop reading
            if not stall:
                connection.abort()
            elif transport is not None:
                transport.pause_reading()

    def _accept(self, end: Listening) -> None:
        if end.listener is None:
            return
        try:
            accepted, peer = end.listener.accept()
        except (BlockingIOError, OSError):
            return
        if not end.host.reachable:
            end.silent.add(accepted)
            return
        accepted.setblocking(False)
        if self._limits.drops(len(end.startups), self._dice):
            end.refused += 1
            with contextlib.suppress(OSError):
                accepted.send(DROPPED)
            accepted.close()
            return
        end.startups.add(peer)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.get_running_loop().create_task(self._greet(end, accepted, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _greet(self, end: Listening, accepted: socket.socket, peer: object) -> None:
        """Speak SSH on an accepted socket, which counts for MaxStartups until somebody has logged in on it."""
        if end.options is None:
            end.options = asyncssh.SSHServerConnectionOptions(
                server_factory=lambda: Door(end, self._client_key, self._way, self._session),
                server_host_keys=[end.key],
                encoding=None,
                server_version="SIMULATED_host",
                config=None,
                login_timeout=self._limits.login_seconds,
                keepalive_interval=0,
                agent_forwarding=False,
            )
        try:
            await asyncssh.run_server(accepted, options=end.options)
        except (asyncssh.Error, OSError):
            end.startups.discard(peer)

    async def _session(self, host: SimulatedHost, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """Run what one session asks for."""
        user = str(process.get_extra_info("username") or "ops")

        out, err = (Gathering(host, process, stream.write) for stream in (process.stdout, process.stderr))
        ends = Terminal(Input(process.stdin.read), out, err, process.is_closing)
        for stream, said in zip((out, err), startup_output(host, user), strict=True):
            stream(said)
        try:
            if process.command is None:
                err(f"SIMULATED host {host.name}: {host.system.pretty}; name one plain command to run\n".encode())
                status = 1
            else:
                status = await serve(host, user, process.command, ends)
        except Cut:
            process.channel.get_connection().abort()
            return
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("SIMULATED host %s: the simulation itself failed", host.name)
            host.not_simulated.append("the simulation itself failed, see its log")
            err(b"SIMULATED host: the simulation itself failed, see the lab's log\n")
            status = 70
        out.flush()
        err.flush()
        if host.reachable and not process.is_closing():
            with contextlib.suppress(BrokenPipeError, OSError):
                process.exit(status)

    def drop(self) -> None:
        """Close every socket at once; nobody has connected yet."""
        for name in self._ends:
            self.refuse(name)

    async def close(self) -> None:
        """Close every socket and connection."""
        connections = [connection for end in self._ends.values() for connection in end.connections]
        for name in self._ends:
            self.refuse(name)
            for waiting in self._ends[name].silent:
                waiting.close()
        for connection in connections:
            connection.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in connections:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(2):
                    await connection.wait_closed()
