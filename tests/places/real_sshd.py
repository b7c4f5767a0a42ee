"""OpenSSH's own sshd on loopback with stock settings, for what only the real one shows; it serves this user's login."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest

from shipway.host.target import Target

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")


def what_lacks(sshd: str | None, user: int) -> str:
    """Return why nothing can be done as root through an sshd of this user's own; empty where it can."""
    if sshd is None:
        return "OpenSSH's sshd is not installed here (openssh-server)."
    asked = ("sudo", "-n", "true")
    if user != 0 and (not shutil.which("sudo") or subprocess.run(asked, capture_output=True, check=False).returncode):
        return "sudo asks this user for a password: what is done as root through sshd cannot be tried."
    return ""


LACKS = what_lacks(SSHD, os.geteuid())
needs_sshd = pytest.mark.skipif(bool(LACKS), reason=LACKS or "sshd is there")


@dataclass
class RealSshd:
    """One sshd: how to reach it, where its files are, and what it has logged."""

    target: Target
    folder: Path
    log: Path

    def said(self, text: str) -> int:
        """Return how often a text stands in its log."""
        return self.log.read_text(errors="replace").count(text)


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@asynccontextmanager
async def real_sshd(folder: Path, *options: str, name: str = "here") -> AsyncIterator[RealSshd]:
    """Serve on a free port with stock settings and these lines of sshd_config(5) in front of them."""
    assert SSHD
    host_key, user_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    for file, key in (("host", host_key), ("id", user_key)):
        (folder / file).write_bytes(key.export_private_key("openssh"))
        (folder / file).chmod(0o600)
    (folder / "authorized_keys").write_bytes(user_key.export_public_key())
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # noqa: ASYNC240 - sshd(8) separates privileges there
    port, log = free_port(), folder / "log"
    lines = (
        *options,
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {folder}/host",
        f"AuthorizedKeysFile {folder}/authorized_keys",
        "PermitRootLogin prohibit-password",
        "StrictModes no",
        "PidFile none",
        "LogLevel VERBOSE",
    )
    (folder / "sshd_config").write_text("\n".join(lines) + "\n")
    with log.open("wb") as file:
        server = await asyncio.create_subprocess_exec(
            SSHD, "-D", "-e", "-f", str(folder / "sshd_config"), stdin=asyncio.subprocess.DEVNULL, stderr=file
        )
    try:
        async with asyncio.timeout(20):
            while "Server listening" not in log.read_text(errors="replace"):
                assert server.returncode is None, log.read_text(errors="replace")
                await asyncio.sleep(0.02)
        known = folder / "known_hosts"
        known.write_text(f"[127.0.0.1]:{port} {host_key.export_public_key().decode()}")
        target = Target(name, "127.0.0.1", port, getpass.getuser(), str(folder / "id"), str(known), connect_seconds=20)
        yield RealSshd(target, folder, log)
    finally:
        if server.returncode is None:
            server.terminate()
        await server.wait()
