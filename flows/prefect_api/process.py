"""Prefect's API as a process beside one run, `python -m flows.prefect_api.process`: it ends when its input closes.

So it ends in order whatever ends the run, SIGKILL included, and what was sent to it is still recorded.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import TYPE_CHECKING

from flows.prefect_api.loading import uncollected

if TYPE_CHECKING:
    import uvicorn


def main() -> None:
    """Bind a free port of loopback, say which on standard output at once, then serve."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)  # from here on a request waits instead of being refused
    serving: list[uvicorn.Server] = []
    threading.Thread(target=_end_with_parent, args=(serving,), daemon=True).start()
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()

    with uncollected():
        import uvicorn  # noqa: PLC0415 - the port is printed first: the run that waits for it imports Prefect meanwhile
        from prefect.server.api.server import create_app  # noqa: PLC0415

        app = create_app(final=True)
    config = uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=5)
    serving.append(uvicorn.Server(config))
    serving[0].run(sockets=[listener])


def _end_with_parent(serving: list[uvicorn.Server]) -> None:
    """End in order when standard input closes; at once where nothing is served yet."""
    sys.stdin.buffer.read()
    if not serving:
        os._exit(0)
    serving[0].should_exit = True


if __name__ == "__main__":
    main()
