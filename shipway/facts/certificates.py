"""Facts about certificates: serial number and end of one in a file or a kubeconfig, and of one that a port shows.

Only public parts leave the host: what openssl says of a certificate, never the file, which may hold a key beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from shipway.errors import Blocked
from shipway.facts.fact import Fact, Words
from shipway.facts.files import ABSENT
from shipway.foreign.addresses import in_url
from shipway.foreign.numbers import whole
from shipway.script import Output

NO_PROGRAM = 127  # a shell's exit status for a program that is not there (POSIX, 2.8.2); its words differ by shell
# $1 the file: when it was written, then its certificate, which a kubeconfig holds in base64.
_FILE = (
    "command -v openssl >/dev/null || exit 127; "
    'stat -Lc changed=%Y -- "$1" && case $1 in *.conf) sed -n "s/^ *client-certificate-data: *//p" -- "$1" | '
    'head -n 1 | base64 -d ;; *) cat -- "$1" ;; esac | openssl x509 -noout -serial -enddate'
)
# etcd wants a client's certificate and ends the handshake without one, but shows its own before that.
_PORT = 'openssl s_client -connect "$1" </dev/null 2>/dev/null | openssl x509 -noout -serial -enddate'
SECONDS = 10


def expires(said: str) -> float | None:
    """Return seconds since 1970 of `notAfter=Nov 24 08:03:27 2027 GMT`, openssl's words; None for anything else."""
    _, found, stamp = said.strip().partition("notAfter=")
    try:
        when = datetime.strptime(stamp.split("\n")[0].removesuffix(" GMT"), "%b %d %H:%M:%S %Y").replace(tzinfo=UTC)
    except ValueError:
        return None
    return when.timestamp() if found else None


def _after(said: str, key: str) -> str:
    return next((line.removeprefix(key).strip() for line in said.splitlines() if line.startswith(key)), "")


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """A certificate's serial number (hex), its end and when its file was written (seconds since 1970; 0 for a port).

    Where a file holds none that can be read, `serial` is empty.
    """

    serial: str
    ends: float
    changed: int = 0


def _parse(output: Output) -> CertificateInfo:
    ends, serial = expires(output.stdout), _after(output.stdout, "serial=")
    changed = whole(_after(output.stdout, "changed=")) or 0
    return CertificateInfo(serial, ends, changed) if ends and serial else CertificateInfo("", 0.0, changed)


@dataclass(frozen=True)
class CertificateIn(Fact[CertificateInfo | None]):
    """The first certificate in a file, or the client's in a kubeconfig; None where there is no such file."""

    path: str

    def words(self) -> Words:
        """Ask openssl."""
        return ("sh", "-c", _FILE, "sh", self.path)

    def parse(self, output: Output) -> CertificateInfo | None:
        """Return what was said; raises Blocked where the host has no openssl."""
        if output.status == NO_PROGRAM:
            raise Blocked("no openssl there", fix="Install openssl on this host.")
        if any(self.path in line and line.endswith(ABSENT) for line in output.stderr.splitlines()):
            return None
        return _parse(output)


@dataclass(frozen=True)
class CertificateAt(Fact[CertificateInfo | None]):
    """The certificate that a TLS port of the host shows; None where nothing shows one within ten seconds."""

    address: str
    port: int

    def words(self) -> Words:
        """Begin a handshake, as anyone may."""
        place = f"{in_url(self.address)}:{self.port}"
        return ("timeout", "-k", "2", str(SECONDS), "sh", "-c", _PORT, "sh", place)

    def parse(self, output: Output) -> CertificateInfo | None:
        """Return what was shown."""
        found = _parse(output)
        return found if found.serial else None
