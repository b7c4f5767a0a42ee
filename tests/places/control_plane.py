"""A control plane that is nothing but its certificates: files, ports, processes; renewed and restarted by a word."""

from __future__ import annotations

import time
from typing import Any

from shipway.facts.certificates import CertificateAt, CertificateIn, CertificateInfo
from shipway.facts.fact import Fact
from shipway.facts.files import Listing
from shipway.facts.static_pods import PARTS, Running, StaticPodsRunning
from shipway.kubeadm.certificates import AUTHORITIES, LEAFS, authority_path, doors_of
from shipway.kubeadm.writes import MANIFESTS, PKI
from shipway.script import Output
from shipway.survey.first_look import CLOCK
from tests.places.facts import KnownFacts, said

DAY = 86400
ADDRESS, PORT = "10.9.0.11", 6443


class ControlPlane(KnownFacts):
    """A control plane whose certificates all end in so many days, and are what its ports show."""

    def __init__(self, days: float = 300, **of: float) -> None:
        ends = time.time() + days * DAY
        facts: dict[Fact[Any], Any] = {
            CertificateIn(leaf.path): CertificateInfo(f"A{number}", ends, 1000)
            for number, leaf in enumerate(LEAFS)
            if leaf.name != "super-admin.conf"
        }
        facts |= {CertificateIn(authority_path(name)): CertificateInfo("CA", ends + 900 * DAY) for name in AUTHORITIES}
        facts[Listing(PKI)] = ("ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key")
        facts[Listing(f"{PKI}/etcd")] = ("ca.crt", "ca.key")
        facts[Listing(MANIFESTS)] = tuple(f"{part}.yaml" for part in PARTS)
        facts[StaticPodsRunning()] = Running(5000, dict.fromkeys(PARTS, 2000))
        facts[CLOCK] = said(f"{time.time()}")
        super().__init__(facts)
        for part in PARTS:
            for door in doors_of(part, PORT):
                leaf = next(one for one in LEAFS if one.name == door.leaf)
                self.facts[CertificateAt(ADDRESS, door.port)] = self.facts[CertificateIn(leaf.path)]
        for name, left in of.items():
            self.set(name.replace("_", "-"), ends=time.time() + left * DAY)

    def set(self, name: str, **changes: Any) -> None:
        """Change what is known of a certificate's file."""
        (leaf,) = [one for one in LEAFS if one.name == name]
        info = self.facts[CertificateIn(leaf.path)]
        values = {"serial": info.serial, "ends": info.ends, "changed": info.changed, **changes}
        self.facts[CertificateIn(leaf.path)] = CertificateInfo(**values)

    async def settled(self, *names: str, seconds: int) -> None:
        """Nothing of an earlier run is at work."""
        self.done.append(f"settled {' '.join(names)} {seconds}")

    async def succeed(self, name: str, words: Any, **_: int) -> Output:
        """Renew, as kubeadm does, or restart."""
        self.done.append(f"{name}: {' '.join(words[2:])}")
        if name == "kubeadm-certs":
            for number, leaf in enumerate(LEAFS):
                if CertificateIn(leaf.path) in self.facts:
                    self.set(leaf.name, serial=f"B{number}", ends=time.time() + 365 * DAY, changed=3000)
        return Output(0, "", "")
