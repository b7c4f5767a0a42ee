"""A site's load balancer as this machine meets it, which is no host of the cluster."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from typing import cast

from shipway.steps.endpoint.balancer import SECONDS, SILENT, UNKNOWN, Shown

NAME_SECONDS = 30  # three name servers that do not answer are given up after that (resolv.conf(5))


async def meet_here(name: str, port: int, times: int) -> Shown:
    """Return which certificates so many connections from this machine showed; their worth is judged by the caller."""
    try:
        async with asyncio.timeout(NAME_SECONDS):
            await asyncio.get_running_loop().getaddrinfo(name, port)
    except (socket.gaierror, UnicodeError, TimeoutError):
        return Shown(status=UNKNOWN)
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE  # it is compared with the control planes' own
    prints: list[str] = []
    for number in range(1, times + 1):
        try:
            async with asyncio.timeout(SECONDS):
                prints.append(await _print_of(name, port, anyone))
        except (OSError, TimeoutError) as error:
            why = f": {error}" if str(error) else ""
            return Shown(tuple(prints), SILENT, f"connection {number} of {times}{why}")
    return Shown(tuple(prints))


async def _print_of(name: str, port: int, anyone: ssl.SSLContext) -> str:
    _, writer = await asyncio.open_connection(name, port, ssl=anyone, server_hostname=name)
    try:
        shown = cast("ssl.SSLObject", writer.get_extra_info("ssl_object")).getpeercert(binary_form=True)
    finally:
        writer.transport.abort()  # nothing more is said, so nobody's farewell is waited for
    return hashlib.sha256(shown or b"").hexdigest()
