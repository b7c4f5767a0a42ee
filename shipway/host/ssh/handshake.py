"""Making one SSH connection, and every way in which that fails as one of three: this machine, the account, the network.

What cannot be read here is Refused. What the host refuses (its key, the login) is permanent. The network may pass.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import socket

import asyncssh

from shipway.errors import (
    HostKeyMismatch,
    HostKeyUnknown,
    LoginRefused,
    Refused,
    ShipwayError,
    Unreachable,
)
from shipway.foreign.errors import describe_error
from shipway.host.ssh.config import Way
from shipway.host.ssh.keys import offer
from shipway.host.ssh.known_hosts import SSH_PORT, keep, known_hosts
from shipway.redact import tail
from shipway.retry import patiently

KEEPALIVE_SECONDS = 15  # four unanswered: a dead host is known after a minute, even while a command is silent
# First among those that are anyway allowed: asyncssh makes one call a packet of it, and four of its usual first choice,
# ChaCha20 (17 % and 45 % of a controller's CPU measured with 50 hosts).
CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
# Tries where sshd closed before it said its version, and the most seconds before the second of them: it has more
# unauthenticated connections than MaxStartups (10:30:100 by default), of whomever, and drops some of them at random.
ATTEMPTS = 5
FIRST_PAUSE = 1.0
# What pam_nologin(8) says while a host starts or goes down: that passes.
_BOOTING = re.compile(r"[Ss]ystem is (?:booting up|going down)|pam_nologin|not permitted to log in yet")


class _Dropped(Exception):
    """sshd closed before it said its version; `failure` is what that means where no try is left."""

    def __init__(self, failure: ShipwayError) -> None:
        self.failure = failure


class _Client(asyncssh.SSHClient):
    """Decides about host keys that known_hosts does not hold, and keeps what the server said before the login."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self.connection: asyncssh.SSHClientConnection | None = None
        self.banner = ""
        self.shown: asyncssh.SSHKey | None = None  # the key that was not taken
        self.known = False  # whether known_hosts has another key of this host

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        """Keep the connection, to see how far it came."""
        self.connection = conn

    def auth_banner_received(self, msg: str, lang: str) -> None:
        """Keep what is said before the login: PAM tells there why it refuses."""
        del lang
        self.banner += msg

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Accept only the key of a host never seen before, and only where the cluster file says accept-new.

        Another connection to the same new host (two runs, or two accounts of one jump host) may have kept its key since
        this one read the files.
        """
        said = known_hosts(self._way.known_hosts).match(host, addr, port if port != SSH_PORT else None)
        taken, _, revoked, *_ = said
        if key in taken and key not in revoked:
            return True
        self.shown, self.known = key, any(said)
        if self.known or not self._way.target.accept_new:
            return False
        keep(self._way.known_hosts[0], host, port, key)
        return True

    @property
    def greeted(self) -> bool:
        """Whether the server has said its version: before that, it was sshd that closed, or a device in between."""
        return self.connection is not None and self.connection.get_extra_info("server_version") is not None


async def connect(way: Way, through: asyncssh.SSHClientConnection | None) -> asyncssh.SSHClientConnection:
    """Make one connection. Raises Unreachable, HostKeyMismatch, HostKeyUnknown, LoginRefused or Refused."""
    host = way.target.name
    known = known_hosts(way.known_hosts)
    keys = await offer(way, host)
    limit = way.target.connect_seconds

    async def attempt() -> asyncssh.SSHClientConnection:
        client = _Client(way)
        try:
            return await asyncssh.connect(
                way.target.address,
                way.target.port,
                username=way.target.user,
                client_keys=list(keys.keys),
                client_certs=list(keys.certificates),
                agent_path=keys.agent or None,
                agent_identities=list(keys.identities) if keys.identities is not None else None,
                known_hosts=known,
                host_key_alias=way.alias or None,
                client_factory=lambda: client,
                tunnel=through or (),
                proxy_command=way.command or (),
                config=None,
                preferred_auth="publickey",
                encryption_algs=CIPHERS,
                keepalive_interval=KEEPALIVE_SECONDS,
                keepalive_count_max=4,
            )
        except TimeoutError:
            raise
        except (asyncssh.Error, OSError, ValueError) as error:
            failure = _failure(way, client, error)
            dropped = isinstance(error, asyncssh.ConnectionLost | ConnectionResetError | BrokenPipeError)
            raise (_Dropped(failure) if dropped and not client.greeted else failure) from error

    try:
        async with asyncio.timeout(limit):
            return await patiently(
                attempt,
                attempts=ATTEMPTS,
                first=FIRST_PAUSE,
                seconds=limit,
                when=lambda error: isinstance(error, _Dropped),
            )
    except TimeoutError as error:
        raise Unreachable(f"{way.where}: no SSH connection within {limit:.0f} s", host=host) from error
    except _Dropped as dropped:
        raise dropped.failure from dropped.__cause__


def _failure(way: Way, client: _Client, error: Exception) -> ShipwayError:
    """Return what a failed attempt means: the host's key, its account, this machine, else the network."""
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return _strange_key(way, client)
    return _of_account(way, client, error) or _of_this_machine(way, error) or _of_network(way, error)


def _of_account(way: Way, client: _Client, error: Exception) -> ShipwayError | None:  # noqa: PLR0911 - one per kind
    """Return the error where the host answered and said no; None where it did not."""
    host, said = way.target.name, tail(client.banner, 3)
    words = f": {said}" if said else ""
    if _BOOTING.search(client.banner):
        return Unreachable(f"{way.where}: the host lets nobody in yet{words}", host=host)
    match error:
        case asyncssh.KeyExchangeFailed():
            fix = (
                f"Compare `ssh-keygen -F {way.target.address}` with the keys in /etc/ssh on the host: where known_hosts"
                " names only kinds of keys that the host no longer has, verify its new one and add that."
            )
            return HostKeyMismatch(f"{way.where}: no algorithm in common ({error})", host=host, fix=fix)
        case asyncssh.PermissionDenied():
            return LoginRefused(f"{way.where}: the SSH key is not accepted{words}", host=host)
        case asyncssh.DisconnectError() if "too many authentication failures" in str(error).lower():
            message = f"{way.where}: too many keys were offered before the right one (MaxAuthTries)"
            fix = "Name the right key as ssh.key in the cluster file: then no other one of the agent is offered."
            return LoginRefused(message, host=host, fix=fix)
        case asyncssh.DisconnectError() if said and client.greeted:
            return LoginRefused(f"{way.where}: the account is refused{words}", host=host)
        case asyncssh.ChannelOpenError() if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
            message = f"{way.where}: the jump host forwards no connections ({error})"
            fix = "On the jump host: `AllowTcpForwarding yes` (or `local`) and a fitting PermitOpen in sshd_config."
            return LoginRefused(message, host=host, fix=fix)
    return None


def _of_this_machine(way: Way, error: Exception) -> ShipwayError | None:
    """Return the error where something here is wrong; None where it is not."""
    host = way.target.name
    if way.command and isinstance(error, FileNotFoundError | PermissionError):
        message = f"ProxyCommand {way.command.split()[0]} cannot be started ({describe_error(error)})"
        return Refused(message, host=host, code="SHW-348", fix="Correct it in the SSH configuration.")
    if isinstance(error, ValueError):
        fix = "Correct what is named in the SSH configuration or the cluster file's ssh section."
        message = f"{way.where}: the SSH settings are refused ({describe_error(error)})"
        return Refused(message, host=host, code="SHW-348", fix=fix)
    return None


def _of_network(way: Way, error: Exception) -> ShipwayError:
    """Return the error of an attempt that may go better next time."""
    host = way.target.name
    if isinstance(error, socket.gaierror):
        message = f"{way.where}: the name cannot be resolved ({error.strerror})"
        fix = "Check hosts[].address in the cluster file, and `getent hosts` for it on this machine."
        return Unreachable(message, host=host, fix=fix)
    return Unreachable(f"{way.where}: no SSH connection ({describe_error(error)})", host=host)


def _strange_key(way: Way, client: _Client) -> ShipwayError:
    """Return the error for a host key that is not taken: an alarm where another one is known, else news of a host."""
    files, host, target = " and ".join(way.known_hosts), way.target.name, way.target
    shown = f"{client.shown.algorithm.decode()} {client.shown.get_fingerprint()}" if client.shown else "its key"
    if client.shown is None or client.known:
        message = f"{way.where}: the host's SSH key is not the one in {files}; it shows {shown}"
        return HostKeyMismatch(message, host=host)
    jump = target.jump
    through = ("-J", f"{jump.user}@{jump.address}:{jump.port}") if jump else ()
    known = ("-o", f"UserKnownHostsFile={way.known_hosts[0]}")
    login = shlex.join(("ssh", *through, "-p", str(target.port), *known, f"{target.user}@{target.address}"))
    return HostKeyUnknown(
        f"{way.where}: the host is in no known_hosts file ({files}); it shows {shown}",
        host=host,
        fix="Compare that with `ssh-keygen -lf` of the key in /etc/ssh at the host's console; where it is the same, "
        f"either log in once (`{login}`), or set ssh.host_keys: accept-new in the cluster file.",
    )
