"""Making one SSH connection: keys, known_hosts, and every way in which that fails as an error of ours."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from pathlib import Path

import asyncssh

from shipway.errors import HostKeyMismatch, LoginRefused, Refused, Unreachable
from shipway.ssh_target import Target

KEEPALIVE_SECONDS = 15  # four unanswered: a dead host is known after a minute, even while a command is silent
ENCODING = "utf-8"
# First among those that are anyway allowed: asyncssh makes one call a packet of it, and four of its usual first choice,
# ChaCha20 (17 % and 45 % of a controller's CPU measured with 50 hosts).
CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"


@lru_cache(maxsize=8)
def _parsed(path: str, changed: int) -> asyncssh.SSHKnownHosts:  # noqa: ARG001 - part of the cache key
    """Parse known_hosts once, not once a connection (17 ms each at 1,000 lines)."""
    return asyncssh.import_known_hosts(Path(path).read_text(encoding=ENCODING, errors="replace"))


def _known_hosts(path: Path) -> asyncssh.SSHKnownHosts:
    """Give the parsed file; an empty set where there is none."""
    if not path.exists():
        return asyncssh.import_known_hosts("")
    return _parsed(str(path), path.stat().st_mtime_ns)


class _Client(asyncssh.SSHClient):
    """Decides about host keys that known_hosts does not hold: refuse, or take a NEW host's key and keep it."""

    def __init__(self, target: Target, path: Path) -> None:
        self._target, self._path = target, path

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Accept only the key of a host never seen before, and only where the cluster file says accept-new."""
        if not self._target.accept_new or any(_known_hosts(self._path).match(host, addr, port)[:3]):
            return False
        name = host if port == 22 else f"[{host}]:{port}"  # noqa: PLR2004 - the port known_hosts leaves out
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._path.open("a", encoding=ENCODING) as file:
            file.write(f"{name} {key.export_public_key().decode().strip()}\n")
        return True


def _files(target: Target) -> tuple[Path, list[str] | tuple[()]]:
    """Give the known_hosts file and the private keys to try; none named means the usual ones."""
    path = Path(target.known_hosts or "~/.ssh/known_hosts").expanduser()
    return path, [str(Path(target.key).expanduser())] if target.key else ()


async def connect(target: Target, through: asyncssh.SSHClientConnection | None) -> asyncssh.SSHClientConnection:
    """Make one connection; every failure becomes Unreachable, HostKeyMismatch, LoginRefused or Refused."""
    where = f"{target.user}@{target.address}:{target.port}"
    path, keys = _files(target)
    try:
        async with asyncio.timeout(target.connect_seconds):
            return await asyncssh.connect(
                target.address,
                target.port,
                username=target.user,
                client_keys=keys,
                known_hosts=_known_hosts(path),
                client_factory=lambda: _Client(target, path),
                tunnel=through or (),
                config=None,
                preferred_auth="publickey",
                encryption_algs=CIPHERS,
                keepalive_interval=KEEPALIVE_SECONDS,
                keepalive_count_max=4,
            )
    except asyncssh.HostKeyNotVerifiable as error:
        message = f"{where}: the host's SSH key is not the one in {path}"
        raise HostKeyMismatch(message, host=target.name) from error
    except asyncssh.PermissionDenied as error:
        raise LoginRefused(f"{where}: the SSH key is not accepted", host=target.name) from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, FileNotFoundError, PermissionError) as error:
        raise Refused(f"SSH key {target.key or '~/.ssh'} cannot be read ({error})", host=target.name) from error
    except TimeoutError as error:
        message = f"{where}: no SSH connection within {target.connect_seconds:.0f} s"
        raise Unreachable(message, host=target.name) from error
    except (asyncssh.Error, OSError) as error:
        raise Unreachable(f"{where}: no SSH connection ({error})", host=target.name) from error
