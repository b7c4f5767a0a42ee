"""The name servers that pods are given: never the host's own stub, which a pod's CoreDNS would take for itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from shipway.facts.files import FileState, FileText
from shipway.host.session import Command, Host
from shipway.step import Drift, Impact
from shipway.steps.kubernetes.health import edit_kubelet_config, kubelet_config
from shipway.survey.notices import PLAIN, REAL, only_stubs


@dataclass(frozen=True)
class ResolverReal:
    """The kubelet gives pods name servers that are reached from a pod (kubeadm#1162: 127.0.0.53 loops)."""

    traps: ClassVar[tuple[int, ...]] = (14,)
    impact: ClassVar[Impact] = Impact.SERVICE
    restarts: ClassVar[str] = "kubelet"
    name: str = "pods are given name servers other than the host's own stub"

    async def check(self, on: Host) -> Drift | None:
        """Compare what the kubelet passes on; kubeadm sets the right one where it sees systemd-resolved at work."""
        (plain, real), config = await asyncio.gather(on.read(FileText(PLAIN), FileState(REAL)), kubelet_config(on))
        if (config.get("resolvConf") or PLAIN) != PLAIN or not only_stubs(plain or ""):
            return None
        if real is None:
            return None  # there is nothing better to give: whoever runs it was warned (shipway.survey.notices)
        return Drift(f"{PLAIN}, which names only the host's own stub", f"resolvConf: {REAL}")

    async def apply(self, on: Host) -> None:
        """Set it in the kubelet's configuration, keep every other byte, restart the kubelet; pods go on."""
        await edit_kubelet_config(on, {"resolvConf": REAL})
        await on.do(Command(("systemctl", "restart", "kubelet"), seconds=180))
