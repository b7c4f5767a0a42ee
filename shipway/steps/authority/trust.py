"""Whom a host trusts as its cluster's authority: by ca.crt, by each kubeconfig, and by what its API server accepts."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from shipway.errors import Blocked, Refused
from shipway.facts.commands import Says
from shipway.facts.fact import Fact, Words
from shipway.facts.files import FileText
from shipway.foreign.addresses import in_url
from shipway.host.session import Command, Host
from shipway.ownership.evidence import AUTHORITY, KUBELET_CONF, decode_pem
from shipway.script import Output
from shipway.step import Drift, Impact
from shipway.steps.authority.pair import said, trusted_by, who
from shipway.steps.authority.which import CLUSTER_CA, Which
from shipway.steps.endpoint.kubeconfigs import EDIT, FILES, MARK
from shipway.steps.kubernetes.endpoint import proof

TRUSTED = Says(("grep", "-HsE", "^[ -]*certificate-authority(-data)?:", *FILES))
_LINE = re.compile(r"[ -]*certificate-authority(-data)?: *[\"']?([^\"'\s]*)")
# $0 the authority in PEM, $1 the place that is asked. An API server names whom it accepts clients of (RFC 8446,
# 4.2.4, and RFC 5246, 7.4.4), and etcd does before it turns us away; both names are written by one openssl.
_ACCEPTED = (
    'name=$(printf %s "$0" | openssl x509 -noout -subject | sed "s/^subject= *//; s/ //g"); [ -n "$name" ] || exit 1; '
    'heard=$(openssl s_client -connect "$1" </dev/null 2>/dev/null | '
    "sed -n '/^Acceptable client certificate CA names/,/^[A-Z][A-Za-z ]*:/p' | sed 's/ //g'); "
    '[ -n "$heard" ] || exit 1; '
    'if printf \'%s\\n\' "$heard" | grep -qxF -- "$name"; then echo accepted; else echo not accepted; fi'
)
# $0 the authority in PEM, $1 the place that is asked.
_SHOWN = (
    'openssl s_client -connect "$1" </dev/null 2>/dev/null | openssl x509 2>/dev/null | '
    'openssl verify -no_check_time -CAfile <(printf %s "$0") >/dev/null 2>&1'
)
_SECONDS = 10


def differs(have: Sequence[str], trusted: Sequence[str], *, exactly: bool) -> Drift | None:
    """Compare the hashes that are trusted with the authorities that are to be, in whatever order."""
    want = [who(one) for one in trusted]
    good = set(have) == set(want) and len(have) == len(set(have)) if exactly else set(want) <= set(have)
    return None if good else Drift(f"{said(have)} trusted", f"{said(want)} trusted")


@dataclass(frozen=True)
class AuthorityTrusted:
    """The public file holds these authorities; what is first in it stays first, for on a control plane that one signs.

    API servers and kubelets take clients by the cluster's, the controller manager tells it to all pods.
    """

    impact: ClassVar[Impact] = Impact.FILES
    trusted: tuple[str, ...] = field(repr=False)
    exactly: bool = True
    of: Which = CLUSTER_CA
    name: str = "the host trusts the CA that is wanted"

    async def check(self, on: Host) -> Drift | None:
        """Compare."""
        text = await on.read(FileText(self.of.path))
        if text is None:
            raise Blocked(f"no {self.of.path}", host=on.name, fix="Run a bootstrap: it says what the host has lost.")
        return differs(trusted_by(text), self.trusted, exactly=self.exactly)

    async def apply(self, on: Host) -> None:
        """Write them."""
        text = await on.read(FileText(self.of.path))
        have = trusted_by(text or "")
        ordered = sorted(self.trusted, key=lambda pem: who(pem) != have[0] if have else False)
        await on.write(self.of.path, "".join(ordered).encode(), mode=self.of.mode)


@dataclass(frozen=True)
class KubeconfigTrusts:
    """A kubeconfig that kubeadm wrote trusts these authorities; one that is not there trusts nobody.

    Only that line is changed, on the host: no key is read. A kubelet's change is marked, as its server's is.
    """

    impact: ClassVar[Impact] = Impact.FILES
    together: ClassVar[bool] = True
    path: str
    trusted: tuple[str, ...] = field(repr=False)
    exactly: bool = True

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.path} trusts the CA that is wanted"

    async def check(self, on: Host) -> Drift | None:
        """Read what it trusts. Raises Refused SHW-852 where that is no line of kubeadm's."""
        lines = (await on.read(TRUSTED)).stdout.splitlines()
        own = [line.removeprefix(f"{self.path}:") for line in lines if line.startswith(f"{self.path}:")]
        found = {(match[1] or "", match[2]) for line in own if (match := _LINE.match(line))}
        if not found or found == {("", AUTHORITY)}:
            return None
        data = next((value for kind, value in found if kind), "")
        if len(found) > 1 or not data:
            fix = "Leave this cluster alone in it, with its CA in `certificate-authority-data`, then run again."
            message = f"{self.path} names several authorities, or one in a file of its own"
            raise Refused(message, host=on.name, code="SHW-852", fix=fix)
        return differs(trusted_by(decode_pem(data)), self.trusted, exactly=self.exactly)

    async def apply(self, on: Host) -> None:
        """Put them in the place of what is there."""
        data = base64.b64encode("".join(self.trusted).encode()).decode()
        words = f"s|^\\([ -]*certificate-authority-data:\\).*|\\1 {data}|"
        mark = MARK if self.path == KUBELET_CONF else ""
        hashes = said(sorted(who(one) for one in self.trusted))
        await on.do(Command(("sh", "-c", EDIT, "sh", self.path, words, mark, hashes)))


@dataclass(frozen=True)
class Accepts(Fact[Literal["accepted", "not accepted", ""]]):
    """Whether an API server or etcd accepts clients of an authority, by the names it shows; "" where it shows none."""

    authority: str = field(repr=False)
    address: str
    port: int

    def words(self) -> Words:
        """Begin a handshake, as anyone may."""
        place = f"{in_url(self.address)}:{self.port}"
        return ("timeout", "-k", "2", str(_SECONDS), "bash", "-c", _ACCEPTED, self.authority, place)

    def parse(self, output: Output) -> Literal["accepted", "not accepted", ""]:
        """Return the answer."""
        word = output.stdout.strip()
        return "accepted" if word == "accepted" else "not accepted" if word == "not accepted" else ""


@dataclass(frozen=True)
class ClientsAccepted:
    """A port of the host accepts clients of these authorities, and of those no more."""

    yes: tuple[str, ...] = field(repr=False)
    no: tuple[str, ...] = field(repr=False)
    address: str
    port: int

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.port} accepts clients of the CA that is wanted"

    async def check(self, on: Host) -> Drift | None:
        """Ask its port."""
        facts = [Accepts(one, self.address, self.port) for one in (*self.yes, *self.no)]
        answers = await on.read_all(facts)
        want = ["accepted"] * len(self.yes) + ["not accepted"] * len(self.no)
        wrong = [
            f"{said([who(fact.authority)])} {have or 'not told'}"
            for fact, have, good in zip(facts, answers, want, strict=True)
            if have != good
        ]
        return Drift("; ".join(wrong), f"{said(map(who, self.yes))} alone" if self.no else "both") if wrong else None


@dataclass(frozen=True)
class Serves:
    """A port of the host shows a certificate of this authority, to one who trusts nobody else.

    With `asks` it wants a client's certificate, as etcd does, and shows its own before that.
    """

    authority: str = field(repr=False)
    address: str
    port: int
    asks: bool = False

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.port} shows a certificate of the CA that is wanted"

    async def check(self, on: Host) -> Drift | None:
        """Ask as a client does; what else is answered than a handshake says nothing."""
        place = f"{in_url(self.address)}:{self.port}"
        shown = Says(("bash", "-c", _SHOWN, self.authority, place), seconds=_SECONDS)
        answer = await on.read(shown if self.asks else proof(f"https://{place}/livez", self.authority))
        if answer.ok:
            return None
        have = "another's, or none" if self.asks else f"curl {answer.status}: {answer.stderr.strip()[-200:]}"
        return Drift(have, said([who(self.authority)]))
