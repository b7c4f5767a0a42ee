"""A site's load balancer as a host meets it: whether its name is known there, and whose API servers stand behind it.

Which of them answered is told by its certificate: each control plane has one of its own, and a handshake proves that
the key is there too. So it is seen before any certificate has the load balancer's name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from shipway.errors import Refused
from shipway.facts.certificates import NO_PROGRAM
from shipway.facts.commands import Says
from shipway.foreign.addresses import in_url
from shipway.kube.client import Kube
from shipway.kube.nodes import few
from shipway.redact import tail
from shipway.script import Output
from shipway.step import Drift

UNKNOWN, SILENT = 3, 4  # how the look ends where the name is not known, or a connection comes to nothing
TRIES = 4  # connections for each control plane: one that takes turns, or draws lots, hardly hides one of them then
SECONDS, ALL_SECONDS = 5, 60  # of one connection, and of all
# $1 the host, $2 that and its port, $3 how many connections, $4 the limit of each in seconds, $5 the name that is asked
# for (SNI: some balancers choose by it). Each connection counts: one in three fails by a balancer that cannot send a
# host back to itself.
SHOW = (
    'getent ahosts "$1" >/dev/null || exit 3; command -v openssl >/dev/null || exit 127; set -o pipefail; '
    'for n in $(seq "$3"); do timeout -k 2 "$4" openssl s_client -connect "$2" -servername "$5" </dev/null '
    "2>/dev/null | openssl x509 -noout -fingerprint -sha256 2>/dev/null || "
    '{ echo "connection $n of $3" >&2; exit 4; }; done'
)


@dataclass(frozen=True)
class Shown:
    """The certificates (SHA-256) that so many connections showed, how the look ended, and what was said of that."""

    prints: tuple[str, ...] = ()
    status: int = 0
    said: str = ""


def shown(host: str, port: int, times: int, name: str) -> Says:
    """Return the fact of which certificates a port of a host shows to so many connections that ask for a name."""
    place = f"{in_url(host)}:{port}"
    return Says(("bash", "-c", SHOW, "bash", host, place, str(times), str(SECONDS), name), ALL_SECONDS)


def read_shown(output: Output) -> Shown:
    """Return what was shown; openssl says `sha256 Fingerprint=AA:BB`, older ones `SHA256 Fingerprint=AA:BB`."""
    lines = [line.partition("Fingerprint=")[2] for line in output.stdout.splitlines() if "Fingerprint=" in line]
    return Shown(tuple(line.replace(":", "").strip().lower() for line in lines), output.status, tail(output.stderr, 1))


@dataclass(frozen=True)
class BalancerAnswers:
    """The load balancer answers a machine (`who`), each time with an API server of this cluster.

    `planes` are the control planes by the SHA-256 of the certificate that each of them shows on its own address.
    """

    who: str
    endpoint: str
    seen: Shown = field(hash=False)
    planes: Mapping[str, str] = field(hash=False)

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.endpoint} answers {self.who} with this cluster's API servers"

    async def check(self, on: Kube) -> Drift | None:
        """Judge what was seen. Raises Refused SHW-844 to SHW-846."""
        del on
        name = self.endpoint.rpartition(":")[0]
        if self.seen.status == UNKNOWN:
            fix = (
                f"Let the site's DNS lead {name} to the load balancer, for {self.who} too (`getent ahosts {name}`), "
                "then run again."
            )
            raise Refused(f"{self.who} does not know the name {name}", host=self.who, code="SHW-844", fix=fix)
        if self.seen.status == NO_PROGRAM:
            fix = f"Install openssl on {self.who}, then run again."
            raise Refused(f"no openssl on {self.who}, which shows who answers", host=self.who, code="SHW-845", fix=fix)
        if self.seen.status:
            said = self.seen.said or "no answer in time"
            fix = (
                f"Open the path from {self.who} to it (`openssl s_client -connect {self.endpoint}`). Where only some "
                "connections fail, one of its servers is down, or it cannot send a host back to itself."
            )
            message = f"{self.endpoint} does not answer {self.who} each time: {said}"
            raise Refused(message, host=self.who, code="SHW-845", fix=fix)
        if foreign := [one for one in self.seen.prints if one not in self.planes]:
            fix = (
                "Let the load balancer pass TCP on (it must not end TLS) to the control planes of this cluster alone: "
                f"{few(sorted(set(self.planes.values())))}."
            )
            message = f"{self.endpoint} shows {self.who} a certificate of none of them (SHA-256 {foreign[0][:12]}…)"
            raise Refused(message, host=self.who, code="SHW-846", fix=fix)
        return None


def unseen(seen: Collection[Shown], planes: Mapping[str, str]) -> tuple[list[str], bool]:
    """Return the control planes that no connection came to, and whether some machine was led to more than one.

    Where none was, each machine may be kept at one server on purpose: then nothing is known of those not seen.
    """
    met = [{planes[one] for one in shown.prints if one in planes} for shown in seen]
    missing = sorted(set(planes.values()).difference(*met))
    return missing, any(len(some) > 1 for some in met)


@dataclass(frozen=True)
class EveryPlaneBehind:
    """Behind a load balancer that leads one machine to several control planes are all of them."""

    endpoint: str
    seen: Collection[Shown] = field(hash=False)
    planes: Mapping[str, str] = field(hash=False)
    name: str = "every control plane is behind the load balancer"

    async def check(self, on: Kube) -> Drift | None:
        """Compare. Raises Refused SHW-847 naming those that are not."""
        del on
        missing, several = unseen(self.seen, self.planes)
        if missing and several:
            count = sum(len(one.prints) for one in self.seen)
            fix = f"Add {few(missing)} to the servers behind it, and see what its check of them says; then run again."
            message = f"none of {count} connections to {self.endpoint} came to {few(missing)}"
            raise Refused(message, code="SHW-847", fix=fix)
        return None
