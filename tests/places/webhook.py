"""A receiver of webhooks on loopback, for the tests of notifications."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class Heard:
    """What came in: its address, and the bodies in order."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[dict[str, Any]] = []

    def wait(self, count: int, seconds: float = 60) -> list[dict[str, Any]]:
        """Return what came in once so many bodies have, or when the time is over."""
        ends = time.monotonic() + seconds
        while len(self.got) < count and time.monotonic() < ends:
            time.sleep(0.1)
        return list(self.got)


@contextmanager
def webhook() -> Iterator[Heard]:
    """Yield a receiver that answers every POST with 204."""
    heard = Heard()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    heard.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
