"""A person's session on a simulated host: a prompt that takes one plain command a line."""

from __future__ import annotations

import asyncssh

from lab.simulated.commands.registry import Input, Write
from lab.simulated.host import SimulatedHost
from lab.simulated.shell import Terminal, serve


def _with_returns(write: Write, *, terminal: bool) -> Write:
    """Return a sink that ends lines as a terminal wants them."""
    return (lambda data: write(data.replace(b"\n", b"\r\n"))) if terminal else write


async def interactive(host: SimulatedHost, user: str, process: asyncssh.SSHServerProcess[bytes], ends: Terminal) -> int:
    """Read lines until exit or the end of input; return the last command's status."""
    terminal = process.get_terminal_type() is not None
    out, err = _with_returns(ends.out, terminal=terminal), _with_returns(ends.err, terminal=terminal)
    out(f"SIMULATED host {host.name}: {host.system.pretty}. One plain command a line; `exit` leaves.\n".encode())
    status = 0
    while not process.stdin.at_eof():
        out(f"{user}@{host.kernel.hostname}$ ".encode())
        line = (await process.stdin.readline()).decode(errors="replace").strip()
        if line in ("exit", "logout"):
            break
        if line:
            status = await serve(host, user, line, Terminal(Input(), out, err, ends.gone))
    return status
