"""The SSH connection to one host: made when first needed, made again after it broke, and what is asked over it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import asyncssh

from shipway.errors import ConnectionLost, DeadlineExceeded, LoginRefused, ShipwayError, Transient
from shipway.foreign.errors import describe_error
from shipway.host.ssh import sudo
from shipway.host.ssh.channels import Answer, ChannelRefused, Channels
from shipway.host.ssh.closing import shut
from shipway.host.ssh.config import Way
from shipway.host.ssh.sudo import Secret
from shipway.host.target import Target
from shipway.redact import tail
from shipway.script import READER, frame, strip_noise

# Whether the host could not start the account's shell or sh for want of memory, processes or disk: that passes.
_SHORT_OF = re.compile(r"Resource temporarily unavailable|Cannot allocate memory|Too many open files|Text file busy")
# A line that sudo itself begins, or the shell's line that there is no sudo (dash, bash, zsh, fish and tcsh say it so).
_SUDO = re.compile(
    r"^sudo(?:-rs)?: |^\S+ is not in the sudoers file|^Sorry, user \S+ (?:is not allowed to|may not)|"
    r"\bsudo: (?:command )?not found|command not found: sudo|Unknown command: '?sudo|^sudo: Command not found",
    re.MULTILINE,
)


SUDO_SECONDS = 30.0  # for sudo to say yes or no to a password: PAM waits some seconds after a wrong one

Connect = Callable[[Target], Awaitable[tuple[asyncssh.SSHClientConnection, Way]]]


class Connection:
    """One SSH connection, made when first needed and made again after it broke; a Shell for host sessions."""

    def __init__(self, target: Target, connect: Connect, secret: Secret | None = None) -> None:
        self.target = target
        self._connect, self._secret = connect, secret
        self._making = asyncio.Lock()
        self._user = target.user  # as whom it logged in: the SSH configuration may name another one
        self._password = b""  # sudo's, with the end of its line
        self._refused: LoginRefused | None = None  # sudo's no to the password, which is asked for once
        self._connection: asyncssh.SSHClientConnection | None = None
        self._channels: Channels | None = None
        self._retired: list[asyncssh.SSHClientConnection] = []  # open no session any more, and still carry tunnels
        self._listeners: dict[tuple[str, int], asyncssh.SSHListener] = {}

    async def _open(self) -> tuple[asyncssh.SSHClientConnection, Channels]:
        """Return the living connection and its channels, or make one; sudo has taken the password then."""
        async with self._making:
            if self._connection is None or self._channels is None or self._connection.is_closed():
                if self._refused is not None:
                    raise self._refused
                self._listeners = {}
                connection, way = await self._connect(self.target)
                channels, self._user = Channels(connection), way.target.user
                try:
                    await self._admitted(channels)
                except BaseException:
                    connection.abort()
                    raise
                self._connection, self._channels = connection, channels
            return self._connection, self._channels

    async def _admitted(self, channels: Channels) -> None:
        """Try sudo's password once, with nothing behind it that sudo could take for a second try.

        A refusal is kept for the whole run: pam_faillock(8) locks an account after three wrong ones.
        """
        password = "" if self._user == "root" else await sudo.password(self.target, self._secret)
        if not password:
            return
        self._password = f"{password}\n".encode()
        answer = await self._run(channels, sudo.WITH, self._password, end=True, seconds=SUDO_SECONDS)
        if answer.status == sudo.ACCEPTED:
            return
        error = self._unable(answer)
        if isinstance(error, LoginRefused):
            self._refused = error
        raise error

    async def script(self, text: str, *, stdin: bytes | None = b"", seconds: float) -> tuple[str, str]:
        """Run the script as root; return standard output and error. Raises as `shipway.host.session.Shell` says.

        What the account's login shell, PAM or sudo print before the script begins is not part of what is returned.
        """
        _, channels = await self._open()
        token, feed = frame(text, stdin or b"")
        command = READER if self._user == "root" else sudo.WITH if self._password else sudo.WITHOUT
        answer = await self._run(channels, command, self._password + feed, end=stdin is not None, seconds=seconds)
        out, err = strip_noise(token, _text(answer.out)), strip_noise(token, _text(answer.err))
        if out is None:
            raise self._unable(answer)
        return out, err or ""

    async def _run(self, channels: Channels, command: str, feed: bytes, *, end: bool, seconds: float) -> Answer:
        """Run one command on a channel of its own; every failure of the connection is one of ours."""
        connection = channels.connection
        try:
            answer = await channels.run(command, feed, end=end, seconds=seconds)
        except TimeoutError as error:
            raise DeadlineExceeded(f"no answer within {seconds:.0f} s", host=self.target.name) from error
        except ChannelRefused as error:
            self._retire(connection)
            raise self._full(error) from error
        except (asyncssh.Error, OSError) as error:
            self._drop(connection)
            message = f"the connection broke while a command ran ({describe_error(error)})"
            raise ConnectionLost(message, host=self.target.name) from error
        except (AssertionError, AttributeError) as error:  # asyncssh's own, where a connection ends as a channel opens
            if not connection.is_closed():
                raise
            self._drop(connection)
            raise ConnectionLost("the connection broke while a command was sent", host=self.target.name) from error
        if answer.status is None and not answer.signal:
            if connection.is_closed():
                self._drop(connection)
            raise ConnectionLost("the connection broke while a command ran", host=self.target.name)
        return answer

    def _retire(self, connection: asyncssh.SSHClientConnection) -> None:
        """Ask for no more sessions on a connection; it lives on for the tunnels that lead through it."""
        if self._connection is connection:
            self._retired.append(connection)
            self._connection = None

    def _full(self, error: ChannelRefused) -> ShipwayError:
        """Return the error for an sshd that opens no session although we have none open."""
        who = f"{self._user}@{self.target.address}"
        if error.ever:
            return Transient(
                f"sshd opens no further session for {who} ({error}): commands that ran out of their time still run",
                host=self.target.name,
                code="SHW-212",
                fix="Run again in a few minutes; on the host `ps -ef --forest` shows what still runs under sshd.",
            )
        return LoginRefused(
            f"sshd let {who} in and opens no session ({error})",
            host=self.target.name,
            code="SHW-347",
            fix="On the host: `sudo sshd -T | grep -i maxsessions`; MaxSessions 0 in sshd_config allows none.",
        )

    def _unable(self, answer: Answer) -> ShipwayError:
        """Return the error for a script that never began: the account's shell, PAM or sudo did not start it."""
        said = _text(answer.err) + _text(answer.out)
        how = f"signal {answer.signal}" if answer.signal else f"exit status {answer.status}"
        last = f"{tail(said, 3) or 'nothing was printed'} ({how})"
        user = self._user
        if _SHORT_OF.search(said):
            return Transient(
                f"the host could not start a shell for {user}: {last}",
                host=self.target.name,
                code="SHW-213",
                fix="On the host: `free -m; ulimit -u`; then run again.",
            )
        if self._password and sudo.WRONG.search(said):
            return LoginRefused(
                f"sudo does not take the password of user {user}: {last}",
                host=self.target.name,
                code="SHW-349",
                fix="Correct the password in the file or Secret block that ssh.sudo_password_* names, then run again; "
                "it is tried once per host and run.",
            )
        if user != "root" and _SUDO.search(said):
            return LoginRefused(
                f"user {user} may not run commands as root without a password: {last}",
                host=self.target.name,
                code="SHW-305",
                fix=f"On the host: `echo '{user} ALL=(ALL) NOPASSWD: ALL' | sudo tee /etc/sudoers.d/shipway`; or, "
                "where sudo asks for a password, name its file as ssh.sudo_password_file in the cluster file.",
            )
        return LoginRefused(
            f"the account {user} on the host runs no commands: {last}",
            host=self.target.name,
            code="SHW-347",
            fix=f"On the host: `getent passwd {user}` (a shell that is no nologin) and `sudo chage -l {user}` "
            "(not expired); a forced command must run what is asked.",
        )

    def _drop(self, broken: asyncssh.SSHClientConnection) -> None:
        """Close what is broken, so that the next use connects anew; what was made since is left alone."""
        if broken is self._connection:
            broken.abort()
            self._connection = None

    async def forward(self, address: str, port: int) -> int:
        """Return a local port on loopback that leads through this connection; one listener per destination."""
        connection, _ = await self._open()
        key = (address, port)
        if key not in self._listeners:
            try:
                self._listeners[key] = await connection.forward_local_port("127.0.0.1", 0, address, port)
            except (asyncssh.Error, OSError) as error:
                message = f"no tunnel to {address}:{port} ({describe_error(error)})"
                raise ConnectionLost(message, host=self.target.name) from error
        return self._listeners[key].get_port()

    async def close(self) -> None:
        """Close the connection in order."""
        for connection in (*self._retired, self._connection):
            if connection is not None:
                await shut(connection)
        self._retired = []


def _text(data: bytes | bytearray) -> str:
    """Return a command's output as text; bytes that are no UTF-8 are replaced."""
    return data.decode("utf-8", errors="replace")
