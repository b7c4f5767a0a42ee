"""Every error that Shipway raises: its type says whether trying again can help, its text who, what, why and what next.

ShipwayError
├── Refused            bad input or an unsafe request: nothing was changed, exit code 1
├── Transient          may pass by itself: retried with back-off
│   ├── Unreachable        no SSH connection (refused, timed out, no route)
│   ├── ConnectionLost     the connection broke while a command ran: its effect is not known
│   ├── Stopped            a long command was ended from outside (a shutdown), or its end was not seen
│   ├── DeadlineExceeded   a wait or a command ran out of time
│   └── ApiUnavailable     the Kubernetes API did not answer, or asked to try again
├── Permanent          stays wrong until a person changes something: never retried
│   ├── HostKeyMismatch    the host's SSH key is not the known one
│   ├── HostKeyUnknown     the host's SSH key is in no known_hosts file
│   ├── LoginRefused       the SSH key, user or sudo right is not accepted
│   ├── PostconditionFailed  applied without error, and yet not as wanted
│   └── ApiRefused         the Kubernetes API says no (forbidden, invalid, conflict with another owner)
├── CommandFailed      a command ended with a non-zero exit code; the catalogue decides whether to retry
└── Blocked            cannot be determined or done yet: something before it is missing
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

Lost = Literal["", "host", "api"]  # what no longer answered: the host of the error, or the API of the cluster


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """One error as a row of the report; `retryable` says whether trying again can help."""

    host: str
    step: str
    code: str
    cause: str
    fix: str
    retryable: bool

    def as_dict(self) -> dict[str, str | bool]:
        """Return the row as plain data for JSON."""
        return asdict(self)


class ShipwayError(Exception):
    """The root: a message, the host and step it belongs to, a catalogue code, the fix, and whether to try again.

    `lost` says what no longer answered, so that a run can wait for it.
    """

    retryable: ClassVar[bool] = False
    default_code: ClassVar[str] = "SHW-000"
    default_lost: ClassVar[Lost] = ""
    default_fix: ClassVar[str] = "Read the message and the log of the step, then run again."

    def __init__(
        self,
        message: str,
        *,
        host: str = "",
        step: str = "",
        code: str = "",
        fix: str = "",
        retry: bool | None = None,
        lost: Lost = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.host = host
        self.step = step
        self.code = code or self.default_code
        self.fix = fix or self.default_fix
        self.may_retry = self.retryable if retry is None else retry
        self.lost = lost or self.default_lost

    def explain(self, message: str, *, code: str, fix: str, retry: bool, lost: Lost = "") -> None:
        """Tell what was found out since: a message that names the cause, its code and fix, and what was lost."""
        self.message = message
        self.code, self.fix, self.may_retry = code, fix, retry
        self.lost = lost or self.lost

    def at(self, *, host: str = "", step: str = "") -> ShipwayError:
        """Fill in where it happened, where that is not known yet; gives itself."""
        self.host = self.host or host
        self.step = self.step or step
        return self

    def report(self) -> ErrorReport:
        """Return the error as a row of the report."""
        return ErrorReport(self.host, self.step, self.code, self.message, self.fix, self.may_retry)

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.host, self.step) if part)
        return f"{where + ': ' if where else ''}{self.message} [{self.code}] Next: {self.fix}"


class Refused(ShipwayError):
    """Bad input or an unsafe request: nothing was changed."""

    default_code = "SHW-100"
    default_fix = "Correct what is named, then run again."


class Transient(ShipwayError):
    """May pass by itself."""

    retryable = True
    default_code = "SHW-200"


class Unreachable(Transient):
    """No SSH connection could be made."""

    default_code = "SHW-201"
    default_lost = "host"
    default_fix = "Check that the host is up and that its SSH port is open from here, then run again."


class ConnectionLost(Transient):
    """The connection broke while a command ran: whether it took effect must be looked at."""

    default_code = "SHW-202"
    default_lost = "host"
    default_fix = "Check the host and the network between, then run again: every step looks before it changes."


class Stopped(Transient):
    """A long command on a host was ended from outside, or its end was not seen: how far it came must be looked at."""

    default_code = "SHW-211"
    default_lost = "host"
    default_fix = "See whether the host hung or restarted (`last -x`, `journalctl -b -1 -n 50`), then run again."


class DeadlineExceeded(Transient):
    """A wait or a command ran out of time; the message holds the last thing seen."""

    default_code = "SHW-203"
    default_fix = "See the last thing seen; if the host is only slow, run again."


class ApiUnavailable(Transient):
    """The Kubernetes API did not answer, or asked to try again."""

    default_code = "SHW-204"
    default_lost = "api"
    default_fix = (
        "Check the control plane (`journalctl -u kubelet` and `ctr -n k8s.io tasks ls` on its host), then run again."
    )


class Permanent(ShipwayError):
    """Stays wrong until a person changes something."""

    default_code = "SHW-300"


class HostKeyMismatch(Permanent):
    """The host's SSH key is not the known one, as after a new installation or in an attack: nothing was sent to it."""

    default_code = "SHW-301"
    default_fix = (
        "Find out why it changed. Only where the host was set up anew: verify its key at its console "
        "(`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`), then replace the line in the known_hosts file."
    )


class HostKeyUnknown(Permanent):
    """The host is in no known_hosts file: nothing was sent to it."""

    default_code = "SHW-346"
    default_fix = "Compare the fingerprint with the host's, then log in once by ssh, or set ssh.host_keys: accept-new."


class LoginRefused(Permanent):
    """The SSH key, the user or the right to use sudo is not accepted."""

    default_code = "SHW-302"
    default_fix = "Check ssh.user and ssh.key in the cluster file, and that the user may run `sudo -n true`."


class PostconditionFailed(Permanent):
    """A step applied without error, and yet looking again did not show what it wanted."""

    default_code = "SHW-303"
    default_fix = "Something else owns this setting: find it (configuration management, cloud-init), then run again."


class ApiRefused(Permanent):
    """The Kubernetes API says no."""

    default_code = "SHW-304"
    default_fix = "Read the API's reason; correct the object or the rights it names."


class CommandFailed(ShipwayError):
    """A command ended with a non-zero exit code; `output` is its last output, free of secrets."""

    default_code = "SHW-400"

    def __init__(
        self,
        message: str,
        *,
        exit_status: int,
        output: str = "",
        host: str = "",
        step: str = "",
        code: str = "",
        fix: str = "",
        retry: bool | None = None,
        lost: Lost = "",
    ) -> None:
        super().__init__(message, host=host, step=step, code=code, fix=fix, retry=retry, lost=lost)
        self.exit_status = exit_status
        self.output = output


class Blocked(ShipwayError):
    """Cannot be determined or done yet; the message says what is missing."""

    default_code = "SHW-500"
    default_fix = "Bring about what is missing first; a bootstrap does so in its order."
