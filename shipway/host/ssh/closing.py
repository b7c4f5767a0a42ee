"""How a connection ends in order."""

from __future__ import annotations

import asyncio
import contextlib

import asyncssh


async def shut(connection: asyncssh.SSHClientConnection) -> None:
    """Close a connection in order, and wait at most two seconds for that."""
    connection.close()
    with contextlib.suppress(Exception):
        async with asyncio.timeout(2):
            await connection.wait_closed()
