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
from shipway.steps.authority.pair import paired, trusted_by
from shipway.steps.authority.which import ALL, CLUSTER_CA, Which


@dataclass(frozen=True)
class KeyThere:
    """A control plane has the key that it signs with, of a CA or of tokens."""

    of: Which = CLUSTER_CA
    name: str = "the CA's key is there"

    async def check(self, on: Host) -> Drift | None:
        """Look for it, and compare both halves. Raises Refused SHW-851 for an external CA, or a strange key."""
        of, (folder, _, file) = self.of, self.of.key.rpartition("/")
        names, inside, fits = await on.read(Listing(folder), Listing(PKI), paired(of.path, of.key))
        if file in names and (fits.ok or of.inside in inside):  # a kill between two moves leaves halves: both are kept
            return None
        message = f"{of.key} is not there" if file not in names else f"{of.key} is not the key of {of.path}"
        if of.half == "pub":
            fix = f"Let {of.path} begin with the public half of {of.key}, as kubeadm wrote them, then run again."
            raise Refused(f"what signs tokens is not kubeadm's pair: {message}", host=on.name, code="SHW-851", fix=fix)
        fix = "Whoever holds the CA replaces it (kubernetes.io, `Manual Rotation of CA Certificates`): Shipway cannot."
        raise Refused(f"the CA is an external one: {message}", host=on.name, code="SHW-851", fix=fix)


@dataclass(frozen=True)
class NoRotation:
    """No rotation of a CA (but of one, `besides`) is under way: kubeadm knows of one CA alone, and would break it off.

    It would write a control plane that does not start beside two of the cluster's.
    """

    besides: Which | None = None
    name: str = "no other rotation of a CA is under way"

    async def check(self, on: Host) -> Drift | None:
        """Look for the folders of two CAs, and count what ca.crt holds. Raises Refused SHW-856."""
        text, names = await on.read(FileText(AUTHORITY), Listing(PKI))
        begun = [one for one in ALL.values() if one.inside in names]
        if len(trusted_by(text or "")) > 1:
            begun.append(CLUSTER_CA)
        for one in begun:
            if one != self.besides:
                fix = f"End it first: `{one.command}` goes on with it; `{one.command} --back` undoes it."
                message = (
                    f"a rotation of {one.said} is under way, and one thing at a time is done beside two {one.noun}s"
                )
                raise Refused(message, host=on.name, code="SHW-856", fix=fix)
        return None


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
