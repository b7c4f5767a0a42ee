"""SSH: one connection a host for a whole run, and every asyncssh error as ours; nothing else imports asyncssh."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from functools import lru_cache
from pathlib import Path

import asyncssh

from shipway.errors import (
    ConnectionLost,
    DeadlineExceeded,
    HostKeyMismatch,
    LoginRefused,
    Refused,
    ShipwayError,
    Unreachable,
)
from shipway.host import Host
from shipway.redact import tail
from shipway.ssh_target import Target

HANDSHAKES = 64  # at once: a handshake is CPU on this side (2.8 ms measured), more at once only makes all late
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


def _fed(process: asyncssh.SSHClientProcess[bytes], stdin: bytes) -> None:
    """Hand a script its input; one that has failed and ended before it could is no broken connection: it tells why."""
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(stdin)
        process.stdin.write_eof()


class Connection:
    """One SSH connection, made when first needed and made again after it broke; a Shell for host sessions."""

    def __init__(self, target: Target, handshakes: asyncio.Semaphore) -> None:
        self.target = target
        self._handshakes = handshakes
        self._making = asyncio.Lock()
        self._connection: asyncssh.SSHClientConnection | None = None
        self._through: asyncssh.SSHClientConnection | None = None
        self._listeners: dict[tuple[str, int], asyncssh.SSHListener] = {}

    async def _open(self) -> asyncssh.SSHClientConnection:
        """Give the living connection, or make one."""
        async with self._making:
            if self._connection is None or self._connection.is_closed():
                self._listeners = {}
                async with self._handshakes:
                    if self.target.jump:
                        self._through = await _connect(self.target.jump, None)
                    self._connection = await _connect(self.target, self._through)
            return self._connection

    async def script(self, text: str, *, stdin: bytes | None = b"", seconds: float) -> tuple[str, str]:
        """Run the script as root; give standard output and error. Raises as `shipway.host.Shell` says."""
        sudo = ("sudo", "-n", "--") if self.target.user != "root" else ()
        connection = await self._open()
        try:
            async with asyncio.timeout(seconds):
                # An empty input's end must be told: an open one lets a command that reads it wait for ever.
                feed = asyncssh.DEVNULL if stdin == b"" else asyncssh.PIPE
                command = shlex.join((*sudo, "sh", "-c", text))
                process = await connection.create_process(command, encoding=None, stdin=feed)
                if stdin:
                    _fed(process, stdin)
                done = await process.wait()
        except TimeoutError as error:
            message = f"no answer within {seconds:.0f} s"
            raise DeadlineExceeded(message, host=self.target.name) from error
        except (asyncssh.Error, OSError) as error:
            self._drop()
            message = f"the connection broke while a command ran ({error})"
            raise ConnectionLost(message, host=self.target.name) from error
        out, err = _text(done.stdout), _text(done.stderr)
        if done.exit_status is None:
            self._drop()
            raise ConnectionLost("the connection broke while a command ran", host=self.target.name)
        if done.exit_status != 0:
            raise self._unable(done.exit_status, err)
        return out, err

    def _unable(self, status: int, err: str) -> ShipwayError:
        """Give the error for a script that the host did not even run: sudo or the shell refused."""
        said = tail(err, 3) or f"exit status {status}"
        if "sudo" in err or "a password is required" in err or "tty" in err:
            message = f"user {self.target.user} may not run commands as root without a password: {said}"
            return LoginRefused(message, host=self.target.name, code="SHW-305")
        return ConnectionLost(f"the host did not run the script: {said}", host=self.target.name)

    def _drop(self) -> None:
        """Close what is broken, so that the next use connects anew."""
        for connection in (self._connection, self._through):
            if connection is not None:
                connection.abort()
        self._connection = self._through = None

    async def forward(self, address: str, port: int) -> int:
        """Give a local port on loopback that leads through this connection; one listener a destination."""
        connection = await self._open()
        key = (address, port)
        if key not in self._listeners:
            try:
                self._listeners[key] = await connection.forward_local_port("127.0.0.1", 0, address, port)
            except (asyncssh.Error, OSError) as error:
                raise ConnectionLost(f"no tunnel to {address}:{port} ({error})", host=self.target.name) from error
        return self._listeners[key].get_port()

    async def close(self) -> None:
        """Close the connection in order."""
        for connection in (self._connection, self._through):
            if connection is not None:
                connection.close()
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(2):
                        await connection.wait_closed()


def _text(data: object) -> str:
    """Give a command's output as text; bytes that are no UTF-8 are replaced."""
    return data.decode(ENCODING, errors="replace") if isinstance(data, bytes) else str(data or "")


def _files(target: Target) -> tuple[Path, list[str] | tuple[()]]:
    """Give the known_hosts file and the private keys to try; none named means the usual ones."""
    path = Path(target.known_hosts or "~/.ssh/known_hosts").expanduser()
    return path, [str(Path(target.key).expanduser())] if target.key else ()


async def _connect(target: Target, through: asyncssh.SSHClientConnection | None) -> asyncssh.SSHClientConnection:
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


class Pool:
    """All connections of a run: one a target, however many tasks use it."""

    def __init__(self) -> None:
        self._hosts: dict[Target, tuple[Connection, Host]] = {}
        self._handshakes = asyncio.Semaphore(HANDSHAKES)

    def host(self, target: Target) -> Host:
        """Give the session of a host; it connects when first used."""
        if target not in self._hosts:
            connection = Connection(target, self._handshakes)
            self._hosts[target] = (connection, Host(target.name, connection))
        return self._hosts[target][1]

    async def hang_up(self, target: Target) -> None:
        """Close the connection of a host; its session connects anew when it is used again."""
        if target in self._hosts:
            await self._hosts[target][0].close()

    async def close(self) -> None:
        """Close every connection."""
        connections = [connection for connection, _ in self._hosts.values()]
        self._hosts = {}
        await asyncio.gather(*(connection.close() for connection in connections))
