"""The API server's certificate is good for the API's name, and for all that it was good for before.

kubeadm keeps a certificate that is there, whatever names its configuration has (kubeadm#1447): so it makes the new one
in a folder of its own, and both halves are moved into their places.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from shipway.cluster.model import Cluster, node_ip
from shipway.cluster.parts import HostSpec
from shipway.errors import Blocked, Permanent, Refused
from shipway.facts.certificates import NO_PROGRAM
from shipway.facts.commands import Says
from shipway.facts.files import Listing
from shipway.foreign.addresses import as_address
from shipway.host.session import OPERATIONS, Host
from shipway.kubeadm.config import as_yaml, init_documents
from shipway.kubeadm.writes import ETC, PKI
from shipway.step import Check, Drift, Impact
from shipway.steps.kubernetes.renewal import KEPT

CERTIFICATE, KEY = f"{PKI}/apiserver.crt", f"{PKI}/apiserver.key"
NEW = f"{ETC}/{KEPT}new"
SCRIPT, CONFIG = f"{OPERATIONS}/new-apiserver-certificate.sh", f"{OPERATIONS}/new-apiserver-certificate.yaml"
SECONDS = 180
# Of the key only the public half is looked at: a host that went down between the two moves has halves of two pairs.
_LOOK = (
    "command -v openssl >/dev/null || exit 127; "
    'openssl x509 -noout -ext subjectAltName -in "$1" && '
    '[ "$(openssl x509 -noout -pubkey -in "$1")" = "$(openssl pkey -pubout -in "$2")" ]'
)
NAMES = Says(("sh", "-c", _LOOK, "sh", CERTIFICATE, KEY))
# $1 the folder of the new pair, $2 where the old one is kept, $3 the folder of both, then kubeadm's words.
MAKE = """
set -eu
new=$1 keep=$2 pki=$3; shift 3
rm -rf -- "$new" "$keep.part"
mkdir -m 700 -- "$new" "$keep.part"
ln -s -- "$pki/ca.crt" "$pki/ca.key" "$new/"
"$@"
test -s "$new/apiserver.crt"
test -s "$new/apiserver.key"
cp -a -- "$pki/apiserver.crt" "$pki/apiserver.key" "$keep.part/" || :
chmod -R go= -- "$keep.part"
mv -T -- "$keep.part" "$keep"
mv -fT -- "$new/apiserver.key" "$pki/apiserver.key"
mv -fT -- "$new/apiserver.crt" "$pki/apiserver.crt"
rm -rf -- "$new"
"""


def names_in(said: str) -> frozenset[str]:
    """Return the names and addresses of a certificate as openssl lists them: `DNS:cp1, IP Address:10.0.0.11`."""
    words = [word.strip() for line in said.splitlines() for word in line.split(",")]
    return frozenset(
        _spelt(word.partition(":")[2].strip()) for word in words if word.startswith(("DNS:", "IP Address:"))
    )


def _spelt(name: str) -> str:
    """Return an address in its one spelling, a name as it is."""
    return str(as_address(name) or name)


def names_of(cluster: Cluster) -> list[str]:
    """Return the names that each API server's certificate is to have, beside those that kubeadm gives it by itself."""
    return [*filter(None, (cluster.api_name or cluster.balancer, cluster.api_vip)), "127.0.0.1", "localhost"]


@dataclass(frozen=True)
class CertificateNames:
    """The certificate in the API server's file is good for the endpoint, the host's own address and the loopback.

    The addresses of the others are no need of it: a control plane that joined later is in none of those made before.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    cluster: Cluster = field(hash=False)
    host: HostSpec = field(hash=False)
    name: str = "the API server's certificate is good for the API's name"

    @property
    def wanted(self) -> list[str]:
        """The names that it is to have."""
        return [*names_of(self.cluster), node_ip(self.host)]

    async def check(self, on: Host) -> Drift | None:
        """Ask openssl. Raises Refused SHW-772 where the CA's key is elsewhere: nothing can be signed there."""
        said, own = await on.read(NAMES), await on.read(Listing(PKI))
        if said.status == NO_PROGRAM:
            raise Blocked("no openssl there", host=on.name, fix=f"Install openssl on {on.name}.")
        missing = [one for one in self.wanted if _spelt(one) not in names_in(said.stdout)]
        if said.ok and not missing:
            return None
        if "ca.key" not in own:
            fix = (
                f"Have a certificate signed that is good for {', '.join(missing) or 'its names'} as well, by whoever "
                f"holds the CA; put both halves into {PKI} (apiserver.crt, apiserver.key), then run again."
            )
            message = f"the CA is an external one ({PKI}/ca.key is not there), so no certificate can be made"
            raise Refused(message, host=on.name, code="SHW-772", fix=fix)
        have = f"not for {', '.join(missing)}" if missing else "its key is another one's"
        return Drift(have, f"good for {', '.join(self.wanted)}, and all that it is good for now")

    async def apply(self, on: Host) -> None:
        """Let kubeadm make a new pair that has the old one's names too, and move it into its place."""
        kept = names_in((await on.read(NAMES)).stdout)
        keep = f"{ETC}/{KEPT}{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        await on.write(CONFIG, as_yaml(self._documents(kept)).encode(), mode="600")
        await on.write(SCRIPT, MAKE.encode(), mode="700")
        kubeadm = ("kubeadm", "init", "phase", "certs", "apiserver", "--config", CONFIG)
        await on.succeed("kubeadm-certs", ("bash", SCRIPT, NEW, keep, PKI, *kubeadm), seconds=SECONDS)

    def _documents(self, kept: frozenset[str]) -> list[dict[str, Any]]:
        """Return kubeadm's configuration for the one certificate."""
        documents = init_documents(self.cluster, self.host)
        documents[1]["certificatesDir"] = NEW
        server = documents[1].setdefault("apiServer", {})
        given = list(dict.fromkeys([*server.get("certSANs", ()), *names_of(self.cluster)]))
        server["certSANs"] = [*given, *sorted(kept - {_spelt(one) for one in given})]
        return documents


@dataclass(frozen=True)
class CertificateGood:
    """The API server's certificate is good for an address that clients outside reach it by."""

    address: str
    name: str = "the API server's certificate is good for the address of clients outside"

    async def check(self, on: Host) -> Drift | None:
        """Ask openssl. Raises Permanent SHW-842 where a running control plane's is not: kubeadm makes none anew."""
        said = await on.read(NAMES)
        if said.status == NO_PROGRAM or not (names := names_in(said.stdout)):
            raise Blocked(f"no certificate that can be read in {CERTIFICATE}", host=on.name)
        if self.address in names:
            return None
        fix = "Run `shipway move-endpoint FILE`: it makes the certificates of the control planes anew, one at a time."
        message = f"the certificate of this running API server is not good for {self.address}"
        raise Permanent(message, host=on.name, code="SHW-842", fix=fix)


def certified(cluster: Cluster) -> list[Check[Host]]:
    """Return the check of a control plane's certificate where clients outside have an address; none without one."""
    return [CertificateGood(cluster.api_vip)] if cluster.api_vip else []
