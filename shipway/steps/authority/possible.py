"""What forbids a rotation of the CA, and what a rotation forbids to others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shipway.errors import Refused
from shipway.facts.files import FileText, Listing
from shipway.host.session import Host
from shipway.kubeadm.writes import PKI
from shipway.ownership.evidence import AUTHORITY
from shipway.step import Drift
from shipway.steps.authority.pair import KEY, NAME, paired, trusted_by

UNDER_WAY = "`shipway rotate-ca FILE` goes on with it; `shipway rotate-ca FILE --back` undoes it."


@dataclass(frozen=True)
class KeyThere:
    """A control plane has the key of the CA that it signs with."""

    name: str = "the CA's key is there"

    async def check(self, on: Host) -> Drift | None:
        """Look for it, and compare it with ca.crt. Raises Refused SHW-851 for an external CA, or another's key."""
        names, fits = await on.read(Listing(PKI), paired(AUTHORITY, KEY))
        if "ca.key" in names and (fits.ok or NAME in names):  # a kill between two moves leaves halves: both are kept
            return None
        message = f"{KEY} is not there" if "ca.key" not in names else f"{KEY} is not the key of {AUTHORITY}"
        fix = "Whoever holds the CA replaces it (kubernetes.io, `Manual Rotation of CA Certificates`): Shipway cannot."
        raise Refused(f"the CA is an external one: {message}", host=on.name, code="SHW-851", fix=fix)


@dataclass(frozen=True)
class NoRotation:
    """No rotation of the CA is under way: kubeadm would write a control plane that does not start beside two CAs."""

    name: str = "no rotation of the CA is under way"

    async def check(self, on: Host) -> Drift | None:
        """Count what ca.crt holds. Raises Refused SHW-856."""
        text, names = await on.read(FileText(AUTHORITY), Listing(PKI))
        if NAME not in names and len(trusted_by(text or "")) <= 1:
            return None
        message = "a rotation of the CA is under way: kubeadm knows of one CA alone, and would break it off"
        raise Refused(message, host=on.name, code="SHW-856", fix=f"End it first: {UNDER_WAY}")


@dataclass(frozen=True)
class NotBesideGpuPods:
    """Kubelets are restarted, so hosts on which pods hold GPUs are named, and wait for a word."""

    busy: Mapping[str, str] = field(hash=False)
    allowed: bool
    name: str = "kubelets may be restarted"

    async def check(self, on: object) -> Drift | None:
        """Raise Refused SHW-854 naming each host, where that was not allowed."""
        del on
        if not self.busy or self.allowed:
            return None
        said = "; ".join(f"{host}: {why}" for host, why in sorted(self.busy.items()))
        fix = "Give `--beside-gpu-pods`: pods go on while their kubelet restarts; or wait until they have ended."
        message = f"each kubelet is restarted three times, and none may be left out: {said}"
        raise Refused(message, host=next(iter(sorted(self.busy))), code="SHW-854", fix=fix)
