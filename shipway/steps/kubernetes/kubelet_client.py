"""The kubelet's own client certificate: it renews that itself, unless it was off for longer than the certificate lived.

The kubelet looks for `bootstrap-kubelet.conf` then, as it did when it joined, and kubeadm has removed that: it is given
one with a token of its own for as long as it needs to ask for a certificate. Its key never leaves the host, and its
pods go on. (The other way, a certificate made on the control plane by `kubeadm kubeconfig user`, lies in kubelet.conf
afterwards, where nobody renews it: kubeadm#1361.)
"""

from __future__ import annotations

import asyncio
import base64
import time
from dataclasses import dataclass
from typing import Any, ClassVar

from shipway.converge import wait_until
from shipway.errors import Blocked, Permanent, Refused
from shipway.facts.certificates import CertificateIn, CertificateInfo
from shipway.facts.files import FileText
from shipway.foreign.yaml import write_yaml
from shipway.host.session import Command, Host
from shipway.kubeadm.certificates import KUBELET_CLIENT
from shipway.ownership.evidence import AUTHORITY, BOOTSTRAP, KUBELET_CONF, Evidence, authorities, evidence
from shipway.step import Drift, Impact
from shipway.steps.kubernetes.health import KUBELET_FILES, kubelet_config
from shipway.steps.kubernetes.join.worker import forget_token, make_token
from shipway.steps.system.loaded import restart

ASK_SECONDS = 120.0  # a kubelet asks within seconds of its start, and the controller manager signs at once
HTTPS = "https://"


@dataclass(frozen=True)
class KubeletRotates:
    """The kubelet renews its client certificate itself, as kubeadm sets it up."""

    name: str = "the kubelet renews its own client certificate"

    async def check(self, on: Host) -> Drift | None:
        """Look at its configuration. Raises Permanent SHW-750 where that is off: it would be cut off within a year."""
        if (await kubelet_config(on)).get("rotateCertificates") is True:
            return None
        fix = (
            "Run `python -m flows.drift_repair FILE`: it sets the field, where the cluster file does not say otherwise."
        )
        message = "rotateCertificates is not on: the kubelet is cut off from the cluster when its certificate ends"
        raise Permanent(message, host=on.name, code="SHW-750", fix=fix)


@dataclass(frozen=True)
class KubeletClientValid:
    """The kubelet's client certificate has not expired; `control` is the session of a control plane's host."""

    impact: ClassVar[Impact] = Impact.SERVICE
    restarts: ClassVar[str] = "kubelet"
    node: str
    control: Host
    name: str = "the kubelet's client certificate is valid"

    async def check(self, on: Host) -> Drift | None:
        """Ask for its end. Raises Refused SHW-751 where the host is not provably this cluster's node."""
        info, own = await on.read(CertificateIn(KUBELET_CLIENT), CertificateIn(KUBELET_CONF))
        # Where the newest is valid, a copy in kubelet.conf that ended is KubeletConfPoints' to mend, without a token.
        ended = _ended(info if info and info.serial else own)
        if not (info and info.serial) and not (own and own.serial):
            raise Blocked(
                f"no certificate that can be read in {KUBELET_CLIENT}",
                host=on.name,
                fix="Run a bootstrap: it says what the host has lost.",
            )
        if not ended:
            return None
        await self._ours(on)
        return Drift(f"expired {ended:.0f} days ago: the kubelet is cut off from the cluster", "a valid one")

    async def _ours(self, on: Host) -> Evidence:
        """Return the host's evidence; raises Refused unless it shows this cluster's authority and its own name."""
        seen, ca = await asyncio.gather(evidence(on), self.control.read(FileText(AUTHORITY)))
        if not seen.authorities & authorities(ca or "") or seen.node != self.node or not seen.server.startswith(HTTPS):
            message = (
                f"its kubelet's certificate has expired, and it cannot be shown that it is the node {self.node} of "
                f"this cluster: it says node {seen.node or 'unknown'} of {seen.whose}"
            )
            fix = f"Compare {KUBELET_CONF} and the CA in it on {on.name} with the control plane's, then run again."
            raise Refused(message, host=on.name, code="SHW-751", fix=fix)
        return seen

    async def apply(self, on: Host) -> None:
        """Let the kubelet ask for a new one by a token that is deleted afterwards.

        Raises DeadlineExceeded where it has none after two minutes, Refused SHW-751 as the look does.
        """
        seen, ca = await asyncio.gather(self._ours(on), self.control.read(FileText(AUTHORITY)))
        token = await make_token(self.control, self.node)
        try:
            content = bootstrap_kubeconfig(seen.server, ca or "", token)
            await on.write(BOOTSTRAP, content.encode(), mode="600")
            await restart(on, "kubelet", KUBELET_FILES)
            await wait_until(_Renewed(), on, seconds=ASK_SECONDS)
        finally:
            await forget_token(self.control, token, on, BOOTSTRAP)


# $1 kubelet.conf, $2 the file that the kubelet keeps its newest certificate and key in. Nothing is shown of either.
_POINT = """
set -eu
umask 077
sed -e "s|^\\( *\\)client-certificate-data:.*|\\1client-certificate: $2|" \\
  -e "s|^\\( *\\)client-key-data:.*|\\1client-key: $2|" -- "$1" > "$1.shipway-new"
chown --reference="$1" -- "$1.shipway-new"
chmod --reference="$1" -- "$1.shipway-new"
mv -fT -- "$1.shipway-new" "$1"
"""


@dataclass(frozen=True)
class KubeletConfPoints:
    """kubelet.conf names the file that the kubelet renews, in place of a certificate of its own that nobody renews.

    A kubelet that starts after that one's end asks for a new one by credentials that are gone (kubeadm#1361, #2054).
    """

    impact: ClassVar[Impact] = Impact.FILES
    name: str = "kubelet.conf names the certificate that the kubelet renews"

    async def check(self, on: Host) -> Drift | None:
        """Look for a certificate in it; where the kubelet keeps no valid one beside, it is all that it has."""
        own, kept = await on.read(CertificateIn(KUBELET_CONF), CertificateIn(KUBELET_CLIENT))
        if own is None or not own.serial or kept is None or not kept.serial or _ended(kept):
            return None
        return Drift("it holds one of its own, which nobody renews", KUBELET_CLIENT)

    async def apply(self, on: Host) -> None:
        """Put the path in place of both, on the host: its key is not read. The kubelet reads it at its next start."""
        await on.do(Command(("sh", "-c", _POINT, "sh", KUBELET_CONF, KUBELET_CLIENT)))


def _ended(info: CertificateInfo | None) -> float:
    """Return how many days ago a certificate ended; 0 for one that did not, and for none."""
    ago = time.time() - info.ends if info and info.serial else 0.0
    return max(ago / 86400, 0.01) if ago > 0 else 0.0


@dataclass(frozen=True)
class _Renewed:
    """The kubelet has a certificate that is valid."""

    name: str = "the kubelet has a new client certificate"

    async def check(self, on: Host) -> Drift | None:
        """Ask for its end."""
        info = await on.read(CertificateIn(KUBELET_CLIENT))
        return None if info and info.serial and not _ended(info) else Drift("still the old one", "a new one")


def bootstrap_kubeconfig(server: str, ca: str, token: str) -> str:
    """Return the kubeconfig by which a kubelet asks for its first certificate, as kubeadm writes it for a join."""
    name, user = "kubernetes", "tls-bootstrap-token-user"
    made: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": name,
                "cluster": {
                    "certificate-authority-data": base64.b64encode(ca.encode()).decode(),
                    "server": server,
                },
            }
        ],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": f"{user}@{name}", "context": {"cluster": name, "user": user}}],
        "current-context": f"{user}@{name}",
    }
    return write_yaml(made)
