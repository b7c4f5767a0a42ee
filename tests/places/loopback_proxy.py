"""A real HTTP proxy on loopback: it answers for every address itself, and may ask for a password."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class LoopbackProxy:
    """Answers `GET http://...` with 200 and CONNECT with 502, for there is no internet behind it; 407 without login."""

    login: str = ""
    port: int = 0
    heard: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its address, without credentials."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            head = ""
        if head:
            self.heard.append(head.splitlines()[0])
            wanted = base64.b64encode(self.login.encode()).decode()
            if self.login and wanted not in head:
                status = '407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"'
            else:
                status = "502 Bad Gateway" if head.startswith("CONNECT") else "200 OK"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
        writer.close()


@asynccontextmanager
async def loopback_proxy(login: str = "") -> AsyncIterator[LoopbackProxy]:
    """Run one on a free port."""
    proxy = LoopbackProxy(login)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    async with server:
        yield proxy
