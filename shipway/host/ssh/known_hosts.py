"""The known_hosts files: what they say of a host, and keeping the key of a new one."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import asyncssh

from shipway.errors import Refused

SSH_PORT = 22  # the port that known_hosts leaves out
EVERYWHERE = "/etc/ssh/ssh_known_hosts"  # ssh_config(5), GlobalKnownHostsFile


def known_hosts(files: Sequence[str]) -> asyncssh.SSHKnownHosts:
    """Return what the files say together; one that is not there says nothing. Raises Refused for an unreadable one.

    A line that is none (left by a merge, a hash that is cut short) is passed over, as OpenSSH does (sshd(8),
    SSH_KNOWN_HOSTS FILE FORMAT): it can only make a host unknown, never let another one in.
    """
    there = []
    for file in files:
        path = Path(file).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            now = path.stat()
            there.append((str(path), now.st_mtime_ns, now.st_size))
    return _parse(tuple(there))


@lru_cache(maxsize=8)
def _parse(files: tuple[tuple[str, int, int], ...]) -> asyncssh.SSHKnownHosts:
    """Parse the files once, not once per connection (17 ms each at 1,000 lines), until their time or size is another.

    A key that is kept within a tick of the file system's clock shows in the size alone.
    """
    known = asyncssh.import_known_hosts("")
    for file, *_ in files:
        try:
            text = Path(file).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            message = f"known_hosts file {file} cannot be read ({error.strerror})"
            fix = "Make it readable for you, or name another one as ssh.known_hosts in the cluster file."
            raise Refused(message, code="SHW-348", fix=fix) from error
        for line in text.splitlines():
            with contextlib.suppress(Exception):  # of a line that is none, whatever asyncssh makes of it
                known.load(line)
    return known


def keep(file: str, host: str, port: int, key: asyncssh.SSHKey) -> None:
    """Add a host's key to a known_hosts file, which is made where it is missing."""
    path = Path(file).expanduser()
    name = host if port == SSH_PORT else f"[{host}]:{port}"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as kept:  # it begins at the end (open(2), O_APPEND)
        start = "" if kept.tell() == 0 or _ends_a_line(path) else "\n"
        kept.write(f"{start}{name} {key.export_public_key().decode().strip()}\n")


def _ends_a_line(path: Path) -> bool:
    """Tell whether the last line of a file is a whole one: what is appended must not become a part of it."""
    with path.open("rb") as kept:
        kept.seek(-1, 2)
        return kept.read(1) == b"\n"
