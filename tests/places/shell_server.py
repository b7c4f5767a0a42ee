"""An SSH server on loopback that runs what it is sent in the machine's own `sh`: the real protocol, a real shell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from shipway.host.target import Target


@dataclass
class Server:
    """What tests need to know, and what they can ask of the server."""

    target: Target
    folder: Path
    cut_after: float | None = None  # seconds after which the next command's connection is cut


class _Tunnels(asyncssh.SSHServer):
    """Lets a client reach loopback ports through it, as sshd does by default."""

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        """Allow loopback alone."""
        del dest_port, orig_host, orig_port
        return dest_host == "127.0.0.1"


async def _fed(shell: asyncio.subprocess.Process, process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Hand the input on as it comes, and its end; a program that has ended takes no more of it."""
    assert shell.stdin
    with contextlib.suppress(OSError):
        while data := await process.stdin.read(65536):
            shell.stdin.write(data)
            await shell.stdin.drain()
        shell.stdin.write_eof()


@asynccontextmanager
async def shell_server(folder: Path) -> AsyncIterator[Server]:
    """Serve on a free port, with keys and known_hosts in `folder`."""
    host_key, user_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    (folder / "id").write_bytes(user_key.export_private_key())
    (folder / "id").chmod(0o600)

    shells: set[asyncio.subprocess.Process] = set()
    running: set[asyncio.Task[None]] = set()

    async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
        task = asyncio.current_task()
        assert task
        running.add(task)
        task.add_done_callback(running.discard)
        if server.cut_after is not None:
            delay, server.cut_after = server.cut_after, None
            await asyncio.sleep(delay)
            connection = process.get_extra_info("connection")
            connection.abort()
            return
        shell = await asyncio.create_subprocess_exec(
            "sh", "-c", process.command or "", stdin=-1, stdout=-1, stderr=-1, start_new_session=True
        )
        shells.add(shell)
        feeding = asyncio.create_task(_fed(shell, process))  # whoever needs no input does not even say that it ends
        assert shell.stdin
        assert shell.stdout
        assert shell.stderr
        out, err = await asyncio.gather(shell.stdout.read(), shell.stderr.read())
        await shell.wait()
        feeding.cancel()
        shell.stdin.close()
        shells.discard(shell)
        process.stdout.write(out)
        process.stderr.write(err)
        process.exit(shell.returncode or 0)

    listener = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=_Tunnels,
        server_host_keys=[host_key],
        authorized_client_keys=asyncssh.import_authorized_keys(user_key.export_public_key().decode()),
        process_factory=run,
        encoding=None,
    )
    port = listener.get_port()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key.export_public_key().decode()}")
    target = Target(
        "here", "127.0.0.1", port, "root", str(folder / "id"), str(folder / "known_hosts"), connect_seconds=5
    )
    server = Server(target, folder)
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()
        while running:  # a client that went away leaves its commands running, as with a real sshd; some only begin
            for shell in shells:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGKILL)
            await asyncio.wait(running, timeout=0.1)
