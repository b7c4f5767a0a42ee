"""What the cluster's CA has signed is signed by the new one: kubeadm's certificates, and those of kubelets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar

from shipway.converge import wait_until
from shipway.errors import Blocked, Refused
from shipway.facts.certificates import NO_PROGRAM
from shipway.facts.commands import Says
from shipway.facts.fact import Fact, Words
from shipway.facts.files import FileText
from shipway.host.session import OPERATIONS, Command, Host
from shipway.kubeadm.certificates import KUBELET_CLIENT, KUBELET_PKI, KUBELET_SERVER
from shipway.kubeadm.writes import ETC
from shipway.ownership.evidence import AUTHORITY, BOOTSTRAP, authorities, evidence, node_of
from shipway.script import Output
from shipway.step import Drift, Impact
from shipway.steps.authority.pair import Pair, said, who
from shipway.steps.authority.which import ETCD_CA
from shipway.steps.kubernetes.health import KUBELET_FILES
from shipway.steps.kubernetes.join.worker import forget_token, make_token
from shipway.steps.kubernetes.kubelet_client import ASK_SECONDS, HTTPS, bootstrap_kubeconfig
from shipway.steps.kubernetes.renewal import KEPT, KNOWN, RENEW, RENEWS, SECONDS
from shipway.steps.system.loaded import restart

SCRIPT = f"{OPERATIONS}/renew-certificates.sh"
_EACH = 'renew=$1; shift; for one in "$@"; do $renew "$one" || exit 1; done'
# $0 the authority in PEM, $1 the file: a certificate, one with its key behind it, or a kubeconfig. Whether it has
# ended is another question.
_VERIFY = (
    'command -v openssl >/dev/null || exit 127; [ -e "$1" ] || { echo absent; exit 0; }; '
    'case $1 in *.conf) sed -n "s/^ *client-certificate-data: *//p" -- "$1" | head -n 1 | base64 -d ;; '
    '*) cat -- "$1" ;; esac | openssl x509 2>/dev/null | '
    'openssl verify -no_check_time -CAfile <(printf %s "$0") >/dev/null 2>&1 && echo signed || echo other'
)
# The kubelet keeps each certificate in a dated file; the link that leads to the newest is gone while it asks anew.
NEWEST = Says(
    (
        "sh",
        "-c",
        'for one in "$0"/kubelet-client-2*.pem; do :; done; sed -n "/^-----BEGIN CERT/,/^-----END CERT/p" -- "$one"',
        KUBELET_PKI,
    )
)


@dataclass(frozen=True)
class SignedBy(Fact[bool | None]):
    """Whether an authority has signed the certificate in a file; None where there is no such file."""

    authority: str = field(repr=False)
    path: str

    def words(self) -> Words:
        """Ask openssl on the host; nothing of the file leaves it."""
        return ("bash", "-c", _VERIFY, self.authority, self.path)

    def parse(self, output: Output) -> bool | None:
        """Return what was said; raises Blocked where the host has no openssl."""
        if output.status == NO_PROGRAM:
            raise Blocked("no openssl there", fix="Install openssl on this host.")
        return None if "absent" in output.stdout else "signed" in output.stdout


@dataclass(frozen=True)
class LeafsSigned:
    """Every certificate that kubeadm had a CA sign on a control plane is of the CA that is wanted."""

    impact: ClassVar[Impact] = Impact.SERVICE
    pair: Pair
    name: str = "kubeadm's certificates are signed by the CA that is wanted"

    async def _others(self, on: Host) -> list[str]:
        leafs = self.pair.of.leafs
        answers = await on.read_all([SignedBy(self.pair.wanted, leaf.path) for leaf in leafs])
        return [
            leaf.name.replace("/", "-")  # as kubeadm's command has it
            for leaf, signed in zip(leafs, answers, strict=True)
            if signed is False or (signed is None and (not leaf.optional or self.pair.of is ETCD_CA))
        ]

    async def check(self, on: Host) -> Drift | None:
        """Ask openssl of each."""
        others = await self._others(on)
        return Drift(", ".join(others), f"signed by {said([who(self.pair.wanted)])}") if others else None

    async def apply(self, on: Host) -> None:
        """Copy what is there, and have kubeadm renew what is another's: names and addresses stay."""
        known, others = await asyncio.gather(on.read(KNOWN), self._others(on))
        words = "kubeadm certs renew" if known.ok else "kubeadm alpha certs renew"
        keep = f"{ETC}/{KEPT}{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        await on.write(SCRIPT, RENEW.encode(), mode="700")
        renew = ("bash", SCRIPT, ETC, keep, "sh", "-c", _EACH, "sh", words, *others)
        await on.succeed(RENEWS, renew, seconds=SECONDS)


@dataclass(frozen=True)
class KubeletClientSigned:
    """The kubelet's client certificate is signed by the CA that is wanted; `control` is a control plane's session.

    It asks for one as it did when it joined, by a token that lives for minutes: its key is made on the host and stays
    there, and its pods go on. Until it has the new one it is known by none, so the old one stays beside.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    restarts: ClassVar[str] = "kubelet"
    pair: Pair
    node: str
    control: Host
    name: str = "the kubelet's client certificate is signed by the CA that is wanted"

    async def check(self, on: Host) -> Drift | None:
        """Ask openssl."""
        if await on.read(SignedBy(self.pair.wanted, KUBELET_CLIENT)):
            return None
        return Drift("by another, or it asks for one", f"signed by {said([who(self.pair.wanted)])}")

    async def apply(self, on: Host) -> None:
        """Let it ask by a token that is deleted afterwards.

        Raises Refused SHW-751 where the host is not provably this cluster's node, DeadlineExceeded after two minutes.
        """
        seen, ca, newest = await asyncio.gather(evidence(on), self.control.read(FileText(AUTHORITY)), on.read(NEWEST))
        node = seen.node or node_of(newest.stdout)
        if not seen.authorities & authorities(ca or "") or node != self.node or not seen.server.startswith(HTTPS):
            message = (
                f"it cannot be shown that it is the node {self.node}: it says node {node or 'unknown'} of {seen.whose}"
            )
            fix = f"Compare {ETC}/kubelet.conf and the CA in it on {on.name} with the control plane's, then run again."
            raise Refused(message, host=on.name, code="SHW-751", fix=fix)
        token = await make_token(self.control, self.node)
        try:
            content = bootstrap_kubeconfig(seen.server, ca or "", token)
            await on.write(BOOTSTRAP, content.encode(), mode="600")
            await on.do(Command(("rm", "-f", "--", KUBELET_CLIENT)))  # a link: what it leads to stays
            await restart(on, "kubelet", KUBELET_FILES)
            await wait_until(self, on, seconds=ASK_SECONDS)
        finally:
            await forget_token(self.control, token, on, BOOTSTRAP)


@dataclass(frozen=True)
class KubeletServingSigned:
    """What the kubelet serves with is signed by the CA that is wanted, where any CA has signed it.

    It asks for a new one when it starts without; who approves that is asked afterwards.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    restarts: ClassVar[str] = "kubelet"
    pair: Pair
    name: str = "the kubelet serves with a certificate of the CA that is wanted"

    async def check(self, on: Host) -> Drift | None:
        """Ask openssl; one that signs its own asks nobody."""
        if await on.read(SignedBy(self.pair.wanted, KUBELET_SERVER)) is not False:
            return None
        return Drift("by another", f"signed by {said([who(self.pair.wanted)])}")

    async def apply(self, on: Host) -> None:
        """Take the link to the old one away, and restart it."""
        await on.do(Command(("rm", "-f", "--", KUBELET_SERVER)))
        await restart(on, "kubelet", KUBELET_FILES)
