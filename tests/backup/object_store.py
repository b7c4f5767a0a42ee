"""An object store on loopback that speaks S3: moto's server, and before it what S3 does and moto does not.

moto keeps the SHA-256 that an object is sent with, and takes one that is wrong; here a body that is not its own SHA-256
is refused as S3 refuses it (BadDigest). `faults` change what passes: a byte of a body, a checksum of an answer.
"""

from __future__ import annotations

import base64
import hashlib
import io
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

BAD = (
    b"<Error><Code>BadDigest</Code><Message>The SHA256 you specified did not match the calculated checksum.</Message>"
    b"</Error>"
)
SUM = "HTTP_X_AMZ_CHECKSUM_SHA256"
Start = Callable[..., Any]


@dataclass
class ObjectServer:
    """The server: where it listens, what it was asked for, and what it does wrong."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    faults: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        """Answer a request."""
        self.asked.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}")
        if "busy" in self.faults:
            start("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"]
        if environ["REQUEST_METHOD"] == "PUT" and SUM in environ:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            if "a byte is lost" in self.faults and b"snapshot" in environ["PATH_INFO"].encode():
                body = body[:-1] + bytes([body[-1] ^ 1])  # another one, whatever it was
            if base64.b64encode(hashlib.sha256(body).digest()).decode() != environ[SUM]:
                start("400 Bad Request", [("Content-Type", "application/xml")])
                return [BAD]
            environ["wsgi.input"] = io.BytesIO(body)
        return self.app(environ, self._started(environ, start))

    def _started(self, environ: dict[str, Any], start: Start) -> Start:
        def begin(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            name, other = "x-amz-checksum-sha256", base64.b64encode(bytes(32)).decode()
            if environ["REQUEST_METHOD"] == "HEAD" and "no sums" in self.faults:
                headers = [one for one in headers if one[0].lower() != name]
            if environ["REQUEST_METHOD"] == "HEAD" and "other sums" in self.faults:
                headers = [(key, other if key.lower() == name else value) for key, value in headers]
            return start(status, headers, *rest)

        return begin

    @property
    def app(self) -> Any:
        """Moto's application, one for all."""
        return _app()


@cache
def _app() -> Any:
    from moto.server import DomainDispatcherApplication, create_backend_app  # noqa: PLC0415 - 0.8 s, for these alone

    return DomainDispatcherApplication(create_backend_app)


@contextmanager
def serving() -> Iterator[ObjectServer]:
    """Yield a server that listens on loopback."""
    from werkzeug.serving import make_server  # noqa: PLC0415 - as moto

    made = ObjectServer()
    server = make_server("127.0.0.1", 0, made, threaded=True)
    made.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
