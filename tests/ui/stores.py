"""PostgreSQL and Redis of Debian's packages on free ports of loopback, in a folder of their own, no system services."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 60.0
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Stores:
    """Where both listen, and the database's address with its password."""

    redis_port: int
    database_url: str

    def query(self, sql: str) -> str:
        """Return what PostgreSQL itself answers to a statement."""
        url = self.database_url.replace("postgresql+asyncpg", "postgresql")
        return subprocess.run(("psql", url, "-Atc", sql), check=True, capture_output=True, text=True).stdout.strip()


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as link:
        link.bind((LOOPBACK, 0))
        return int(link.getsockname()[1])


def listening(port: int, process: subprocess.Popen[bytes], seconds: float = START_SECONDS) -> None:
    """Wait until the process listens; raises TimeoutError, or RuntimeError where it ended."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port} after {seconds:.0f} s: {process.args!r}")


@contextmanager
def process(
    words: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, how: int = signal.SIGTERM, **more: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process in a session of its own; it is ended in order, and killed where it does not end."""
    with log.open("ab") as file:
        made = subprocess.Popen(words, stdout=file, stderr=file, env=env, start_new_session=True, **more)
    try:
        yield made
    finally:
        ended(made, how)


def ended(made: subprocess.Popen[bytes], how: int = signal.SIGTERM) -> None:
    """End a process; what it started in its session goes with it."""
    if made.poll() is None:
        made.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            made.wait(20)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(made.pid, signal.SIGKILL)
    made.wait()


@contextmanager
def stores() -> Iterator[Stores]:
    """Yield both, running."""
    folder = Path(tempfile.mkdtemp(prefix="shipway-stores-"))
    try:
        with _postgres(folder) as url, _redis(folder) as port:
            yield Stores(port, url)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _postgres(folder: Path) -> Iterator[str]:
    """PostgreSQL refuses to run as root: then it runs as the user of Debian's package."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        who = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": ()}
    password, port, data = secrets.token_hex(24), free_port(), folder / "data"
    given = folder / "password"
    given.write_text(password, encoding="utf-8")
    given.chmod(0o644)  # the folder is shut
    make = ("initdb", "-D", str(data), "-U", "prefect", "--auth=scram-sha-256", "--encoding=UTF8", f"--pwfile={given}")
    subprocess.run((programs / make[0], *make[1:]), check=True, capture_output=True, cwd=folder, **who)
    words = ("-D", str(data), "-p", str(port), "-c", f"listen_addresses={LOOPBACK}", "-k", str(folder))
    with process(
        (str(programs / "postgres"), *words), folder / "postgres.log", how=signal.SIGINT, cwd=folder, **who
    ) as made:
        listening(port, made)
        env = {**os.environ, "PGPASSWORD": password}
        ask = ("psql", "-h", LOOPBACK, "-p", str(port), "-U", "prefect", "-d", "postgres", "-qc")
        ends = time.monotonic() + START_SECONDS
        while subprocess.run((*ask, "create database prefect"), env=env, check=False, capture_output=True).returncode:
            if time.monotonic() > ends:
                raise TimeoutError(f"PostgreSQL takes no statement after {START_SECONDS:.0f} s")
            time.sleep(0.3)
        yield f"postgresql+asyncpg://prefect:{password}@{LOOPBACK}:{port}/prefect"


@contextmanager
def _redis(folder: Path) -> Iterator[int]:
    """As the compose file starts it."""
    port, place = free_port(), folder / "redis"
    place.mkdir()
    words = ("redis-server", "--bind", LOOPBACK, "--port", str(port), "--dir", str(place), "--appendonly", "yes")
    with process((*words, "--maxmemory-policy", "noeviction"), folder / "redis.log") as made:
        listening(port, made)
        yield port
