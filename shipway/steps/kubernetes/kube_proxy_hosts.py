"""kube-proxy finds the API where its host does: a pod on the host's network keeps the /etc/hosts of its start."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from shipway.edits.lines import read_block
from shipway.facts.commands import Says
from shipway.facts.files import FileText
from shipway.host.session import Command, Host
from shipway.step import Drift, Impact
from shipway.steps.system.names import HOSTS

PODS = "/var/lib/kubelet/pods"
# The kubelet writes a copy for each container that it starts on the host's network (kubelet_pods.go, ensureHostsFile);
# which pod is kube-proxy's is told by the ConfigMap that it mounts.
MOUNTS = Says(("find", PODS, "-maxdepth", "4", "-path", "*/kubernetes.io~configmap/kube-proxy"))
# containerd's own program, for crictl need not be there; a container of the past has no process, which is no fault.
END = (
    "for id in $(ctr -n k8s.io containers ls -q 'labels.\"io.kubernetes.container.name\"==kube-proxy'); do "
    'ctr -n k8s.io tasks kill -s SIGTERM "$id" 2>/dev/null; done; exit 0'
)
TRIES, PAUSE = 15, 2.0  # the kubelet starts an ended container at its next sync, at most ten seconds later


def copies(name: str) -> Says:
    """Return the fact of what the pods' copies of /etc/hosts say of one name; of no other line anything is read."""
    return Says(("find", PODS, "-maxdepth", "2", "-name", "etc-hosts", "-exec", "grep", "-HwF", "-e", name, "{}", "+"))


@dataclass(frozen=True)
class KubeProxyKnowsApi:
    """kube-proxy has the address of the API's name that its host has now.

    On a further control plane it starts while the name still leads to another one, whose loss would stop it.
    """

    impact: ClassVar[Impact] = Impact.START  # its rules stay in the kernel meanwhile, so no running pod notices
    api_name: str
    name: str = "kube-proxy asks the API where its host does"

    async def check(self, on: Host) -> Drift | None:
        """Compare its copy of /etc/hosts with the host's; one that does not run has none."""
        own, found, mounts = await on.read(FileText(HOSTS), copies(self.api_name), MOUNTS)
        want = sorted(read_block(own or "").get(self.api_name, "").split())
        pods = tuple(f"{path.partition('/volumes/')[0]}/" for path in mounts.stdout.splitlines())
        lines = [line.partition(":")[2].split() for line in found.stdout.splitlines() if pods and line.startswith(pods)]
        have = sorted({words[0] for words in lines if self.api_name in words[1:]})
        if not want or have in ([], want):
            return None
        return Drift(f"{self.api_name} is {', '.join(have)} there", ", ".join(want))

    async def apply(self, on: Host) -> None:
        """End its container: the kubelet starts it anew at once, with a fresh copy; the rules that it wrote stay."""
        await on.do(Command(("sh", "-c", END), seconds=60))
        for _ in range(TRIES):
            await asyncio.sleep(PAUSE)
            on.forget()
            if await self.check(on) is None:
                return
