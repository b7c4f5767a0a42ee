"""kubeadm's certificates renewed on a control plane, by its own program, with the old ones kept beside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar

from shipway.errors import Blocked, Permanent, Refused
from shipway.facts.certificates import CertificateIn, CertificateInfo
from shipway.facts.commands import Says
from shipway.facts.files import Listing
from shipway.host.session import OPERATIONS, Host
from shipway.kubeadm.certificates import AUTHORITIES, DAY, LEAFS, WITHIN_DAYS, Leaf, authority_path
from shipway.kubeadm.writes import ETC, PARTS, PKI
from shipway.step import Drift, Impact
from shipway.survey.first_look import CLOCK

KEPT = "before-renewal-"  # names, below /etc/kubernetes, of folders with what there was
SCRIPT = f"{OPERATIONS}/renew-certificates.sh"
RENEWS = "kubeadm-certs"  # as `Host.operate` calls it
SECONDS = 300  # kubeadm asks the API for its configuration first, and goes on without it when nothing answers
SKEW_SECONDS = 300.0  # what is signed now would be refused by the others, or end too early (S2 holds hosts to 1 s)
KNOWN = Says(("kubeadm", "certs", "renew", "--help"))  # since 1.20; before, it is below `alpha`
# $1 what is copied (/etc/kubernetes), $2 where the copy is kept, then kubeadm's words.
# Only root reads the copy, and one that is not whole has another name.
RENEW = """
set -eu
etc=$1 keep=$2; shift 2
rm -rf -- "$keep.part"
mkdir -m 700 -- "$keep.part"
cp -a -- "$etc/pki" "$keep.part/"
for file in "$etc"/*.conf; do [ ! -f "$file" ] || cp -a -- "$file" "$keep.part/"; done
find "$keep.part" -type d -exec chmod 700 {} +
find "$keep.part" -type f -exec chmod 600 {} +
mv -T -- "$keep.part" "$keep"
exec "$@"
"""


@dataclass(frozen=True)
class ClockRight:
    """The host's clock is that of this machine: what is signed on it now is valid from now on."""

    name: str = "the clock is right enough to sign certificates"

    async def check(self, on: Host) -> Drift | None:
        """Compare. Raises Refused SHW-747 for more than five minutes."""
        try:
            apart = float((await on.read(CLOCK)).stdout) - time.time()
        except ValueError:
            return None
        if abs(apart) > SKEW_SECONDS:
            fix = f"Set the clock of {on.name} (`chronyc makestep`, `timedatectl`), or of this machine, then run again."
            message = f"its clock is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} this machine's"
            raise Refused(f"{message}: certificates signed there would be wrong", host=on.name, code="SHW-747", fix=fix)
        return None


@dataclass(frozen=True)
class CertificatesRenewed:
    """No certificate that kubeadm made on this host ends within so many days; with `everything`, none is of before.

    `before` keeps the serial numbers of a run's first look, by name: what differs from that was renewed since, also
    where its life is shorter than `within` (certificateValidityPeriod of ClusterConfiguration).
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    within: int = WITHIN_DAYS
    everything: bool = False
    before: dict[str, str] = field(default_factory=dict, hash=False, compare=False)

    @property
    def name(self) -> str:
        """The fact."""
        return "every certificate is new" if self.everything else f"certificates are valid for {self.within} days"

    async def check(self, on: Host) -> Drift | None:
        """Ask for serial numbers and ends. Raises Refused for what kubeadm cannot renew (SHW-741, SHW-742, SHW-743)."""
        leafs, authorities, (own, etcd) = await asyncio.gather(
            on.read_all([CertificateIn(leaf.path) for leaf in LEAFS]),
            on.read_all([CertificateIn(authority_path(name)) for name in AUTHORITIES]),
            on.read(Listing(PKI), Listing(f"{PKI}/etcd")),
        )
        if not own:
            raise Blocked("no control plane is initialised here", host=on.name)
        found = {leaf: info for leaf, info in zip(LEAFS, leafs, strict=True) if info is not None or not leaf.optional}
        due = self._due(found, on.name)
        if not due:
            return None
        signers = {leaf.authority for leaf in found}
        self._signable(signers, {*own, *(f"etcd/{name}" for name in etcd)}, on.name)
        _lasting({name: info for name, info in zip(AUTHORITIES, authorities, strict=True) if name in signers}, on.name)
        want = "new ones" if self.everything else f"{self.within} days and more"
        then = f"all are renewed, and {', '.join(PARTS)} started anew one by one"
        return Drift(", ".join(f"{name} {days}" for name, days in due.items()), f"{want}; {then}")

    def _due(self, found: Mapping[Leaf, CertificateInfo | None], host: str) -> dict[str, str]:
        """Return what is to be renewed, and when it ends. Raises Refused SHW-742 for what is lost or no certificate."""
        lost = [leaf for leaf, info in found.items() if info is None or not info.serial]
        if lost:
            names = ", ".join(leaf.name for leaf in lost)
            phases = "; ".join(f"`kubeadm init phase {_phase(leaf)}`" for leaf in lost)
            fix = f"On {host} move away what is left of it, make it anew by {phases}, then run again."
            raise Refused(f"{names} cannot be read as a certificate, or is gone", host=host, code="SHW-742", fix=fix)
        due = {}
        for leaf, info in found.items():
            if info is None:
                continue
            serial = self.before.setdefault(leaf.name, info.serial)
            if serial == info.serial and (self.everything or info.ends - time.time() < self.within * DAY):
                due[leaf.name] = left(info.ends)
        return due

    def _signable(self, signers: set[str], names: set[str], host: str) -> None:
        """Let a host pass that has the keys of its CAs. Raises Refused SHW-741: their owner signs elsewhere."""
        missing = [name for name in AUTHORITIES if name in signers and f"{name}.key" not in names]
        if missing:
            keys = ", ".join(f"{PKI}/{name}.key" for name in missing)
            fix = (
                f"`kubeadm certs generate-csr` on {host} makes requests; have them signed by whoever holds the CA, put "
                "the certificates into their places, then run again: what is not loaded yet is loaded then."
            )
            message = f"the CA is an external one ({keys} is not there): kubeadm cannot sign with it"
            raise Refused(message, host=host, code="SHW-741", fix=fix)

    async def apply(self, on: Host) -> None:
        """Copy all that is there, renew all; kubeadm needs no API for it."""
        known = await on.read(KNOWN)
        words = ("kubeadm", "certs", "renew", "all") if known.ok else ("kubeadm", "alpha", "certs", "renew", "all")
        keep = f"{ETC}/{KEPT}{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        await on.write(SCRIPT, RENEW.encode(), mode="700")
        await on.succeed(RENEWS, ("bash", SCRIPT, ETC, keep, *words), seconds=SECONDS)
        on.forget()
        again = await on.read_all([CertificateIn(leaf.path) for leaf in LEAFS])
        stale = [one.name for one, info in zip(LEAFS, again, strict=True) if info and info.ends < time.time() + DAY]
        if stale:
            fix = f"Run `kubeadm certs renew all` on {on.name} and read what it says; the old ones are in {keep}."
            message = f"kubeadm ended well, and yet {', '.join(stale)} ends within a day"
            raise Permanent(message, host=on.name, code="SHW-748", fix=fix)


def _phase(leaf: Leaf) -> str:
    """Return the phase of `kubeadm init` that makes a certificate or kubeconfig anew."""
    if leaf.name.endswith(".conf"):
        return f"kubeconfig {leaf.name.removesuffix('.conf')}"
    return f"certs {leaf.name.replace('/', '-')}"


def _lasting(authorities: Mapping[str, CertificateInfo | None], host: str) -> None:
    """Let CAs pass that are valid. Raises Refused SHW-743: what they sign is valid nowhere, and kubeadm renews none."""
    ended = [name for name, info in authorities.items() if info and info.serial and info.ends <= time.time()]
    if ended:
        fix = (
            "A CA is not renewed by kubeadm, nor by Shipway: everything that trusts it would need the new one. "
            "See kubernetes.io, `Manual Rotation of CA Certificates`, or build a new cluster beside this one."
        )
        message = f"the CA itself has expired ({', '.join(f'{PKI}/{name}.crt' for name in ended)})"
        raise Refused(message, host=host, code="SHW-743", fix=fix)


def left(ends: float) -> str:
    """Say when a certificate ends: "in 9 days", "has expired"."""
    days = (ends - time.time()) / DAY
    return f"in {days:.0f} days" if days > 0 else "has expired"
