"""Checks of the cluster as a whole: its nodes are those that were declared and take pods, kubeadm's record is right."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from shipway.errors import Blocked, Permanent
from shipway.gpu.health.quarantine import list_strange
from shipway.kube.client import Kube, Object
from shipway.kube.nodes import nodes_by_name, taints_of
from shipway.kube.record import read_record
from shipway.kube.status import posted_at, why_not_ready, why_pressed
from shipway.step import Drift
from shipway.steps.kubernetes.nodes import CONTROL_PLANE_TAINTS

# Where a person sees what a kubelet is short of.
LOOKS = {
    "MemoryPressure": "`free -m`",
    "DiskPressure": "`df -h /var/lib/kubelet /var/lib/containerd`",
    "PIDPressure": "`ps -eL | wc -l`",
    "NetworkUnavailable": "its pod network's own pod",
}
# What Kubernetes itself puts on a node and takes away again (well-known taints).
# Those of Kubernetes itself, and ours: the note beside it tells of each of them (`list_strange` of those without).
OWN_TAINTS = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/", "shipway.dev/")
ACCEPTED = "shipway.dev/cordon-accepted"  # an annotation of a Node: why a person keeps it closed


@dataclass(frozen=True)
class HostIsNode:
    """A declared host is a node of the cluster."""

    node: str
    name: str = "the host is a node of the cluster"

    async def check(self, on: Kube) -> Drift | None:
        """Look for the node."""
        return None if self.node in await nodes_by_name(on) else Drift("never joined", "joined")


@dataclass(frozen=True)
class NodeReady:
    """A node that has joined is Ready.

    `kubelet_since` is when its kubelet started, in whole seconds since 1970 by the host's clock; 0 where nobody asks.
    What a Node says is as old as its last status: for 40 s after a kubelet went away it is still Ready, with all of its
    GPUs. A kubelet that starts posts a status at once, and dates it by the same clock (kubelet's
    nodeStatusReportFrequency holds only for what has not changed since its start).
    """

    node: str
    name: str = "the node is Ready"
    kubelet_since: int = 0

    async def check(self, on: Kube) -> Drift | None:
        """Read its condition; one that never joined is reported elsewhere."""
        node = (await nodes_by_name(on)).get(self.node)
        if node is None:
            return None
        why = why_not_ready(node)
        if not why and posted_at(node) < self.kubelet_since:
            why = "its kubelet has posted no status since it started"
        return Drift(why, "Ready") if why else None


@dataclass(frozen=True)
class NodeUnpressed:
    """A node is short of nothing by its own kubelet, which otherwise ends pods there and takes no new ones.

    Whether it is Ready does not tell: its GPU jobs are ended one after the other while it stays Ready.
    """

    node: str
    name: str = "the kubelet is short of nothing"

    async def check(self, on: Kube) -> Drift | None:
        """Read its conditions; the drift has the kubelet's own words, and where to look."""
        why = why_pressed((await nodes_by_name(on)).get(self.node))
        if not why:
            return None
        looks = ", ".join(look for kind, look in LOOKS.items() if kind in why)
        return Drift(why, f"enough (on the host: {looks}); until then it takes no new pods, and may end some")


@dataclass(frozen=True)
class NodeOpen:
    """A node takes pods: nobody has cordoned it. Whoever did may have a reason, so it is reported, not undone.

    A person who says the reason in the annotation `shipway.dev/cordon-accepted` is not reported again.
    """

    node: str
    name: str = "the node is not cordoned"

    async def check(self, on: Kube) -> Drift | None:
        """Read whether it is unschedulable."""
        node = (await nodes_by_name(on)).get(self.node) or {}
        accepted = str(((node.get("metadata") or {}).get("annotations") or {}).get(ACCEPTED, "")).strip()
        if accepted or not (node.get("spec") or {}).get("unschedulable"):
            return None
        accept = f"`kubectl annotate node {self.node} {ACCEPTED}='why, and who'`"
        return Drift("cordoned", f"open (`kubectl uncordon {self.node}`), or accepted ({accept})")


@dataclass(frozen=True)
class NodeTaints:
    """A node has the taint of its role and none that nobody declared."""

    node: str
    control_plane: bool
    name: str = "the node has no other taints than its role's"

    async def check(self, on: Kube) -> Drift | None:
        """Compare; the taints that Kubernetes sets by itself come and go with the node's condition."""
        node = (await nodes_by_name(on)).get(self.node)
        if node is None:
            return None
        taints = [taint["key"] for taint in taints_of(node)]
        foreign = [k for k in taints if not k.startswith(OWN_TAINTS) and k not in CONTROL_PLANE_TAINTS]
        role = [key for key in taints if key in CONTROL_PLANE_TAINTS]
        if self.control_plane and not role:
            return Drift("no control-plane taint", "the control plane's taint (pods are kept away)")
        wrong = foreign + list_strange(node) + ([] if self.control_plane else role)
        return Drift(f"tainted {', '.join(sorted(wrong))}", "no such taint") if wrong else None


@dataclass(frozen=True)
class EveryNodeDeclared:
    """Every node of the cluster is a host of the cluster file."""

    declared: Collection[str]
    name: str = "every node is declared"

    async def check(self, on: Kube) -> Drift | None:
        """Compare the names."""
        unknown = sorted(set(await nodes_by_name(on)) - set(self.declared))
        if not unknown:
            return None
        commands = f"`shipway remove CLUSTER.yaml {unknown[0]}`{', and likewise each' if len(unknown) > 1 else ''}"
        return Drift(
            f"not declared, or not any more: {', '.join(unknown)}", f"in the cluster file, or taken out ({commands})"
        )


@dataclass(frozen=True)
class PodsStable:
    """No container of a workload crashes again and again."""

    workload: str
    namespace: str
    labels: str

    @property
    def name(self) -> str:
        """The workload."""
        return f"{self.workload} does not crash"

    async def check(self, on: Kube) -> Drift | None:
        """Look for CrashLoopBackOff, and tell how often and how the container ended last."""
        pods = await on.list_("v1", "Pod", self.namespace, labels=self.labels)
        said = [crash for pod in pods for crash in _crashes(pod)]
        return Drift("; ".join(said[:4]), "running") if said else None


def _crashes(pod: Object) -> list[str]:
    """Return a sentence a container that waits to be started again."""
    found = []
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        waiting = (status.get("state") or {}).get("waiting") or {}
        ended = (status.get("lastState") or {}).get("terminated") or {}
        if waiting.get("reason") == "CrashLoopBackOff":
            node = (pod.get("spec") or {}).get("nodeName", "no node")
            how = f", last with exit code {ended['exitCode']}" if "exitCode" in ended else ""
            found.append(f"on {node}: {status.get('restartCount', 0)} restarts{how}")
    return found


@dataclass(frozen=True)
class KubeadmRemembers:
    """kubeadm's own record of the cluster says what the cluster file says: joins and upgrades go by it."""

    wanted: Mapping[str, Any] = field(hash=False)
    name: str = "kubeadm-config says what the cluster file says"

    async def check(self, on: Kube) -> Drift | None:
        """Compare version, networks, endpoint and image repository."""
        have = await read_record(on)
        wrong = [key for key, value in self.wanted.items() if str(have.get(key, "")) != value]
        said = ", ".join(f"{key}: {have.get(key, 'not set')}" for key in wrong)
        return Drift(said, ", ".join(f"{key}: {self.wanted[key]}" for key in wrong)) if wrong else None


# What an initialisation settles: the name in the cluster file, that in kubeadm's record, and what hangs on it.
SETTLED = {
    "kubernetes.pod_network": ("podSubnet", "every pod has an address of it"),
    "kubernetes.service_network": ("serviceSubnet", "every Service has an address of it"),
    "kubernetes.api_endpoint": ("controlPlaneEndpoint", "every certificate and kubeconfig names it"),
    "kubernetes.image_repository": ("imageRepository", "kubeadm takes the control plane's images from it"),
}


@dataclass(frozen=True)
class SettledAsDeclared:
    """What the initialisation settled is what the cluster file says now: no later run changes it."""

    wanted: Mapping[str, Any] = field(hash=False)
    name: str = "the cluster was initialised with what the cluster file says"

    async def check(self, on: Kube) -> Drift | None:
        """Compare with kubeadm's record. Raises Permanent SHW-338 naming each value, in the file and in the cluster."""
        try:
            have = await read_record(on)
        except Blocked:
            return None  # a lost record is what joins and drift repair tell of
        wrong = {
            name: f"{name}: {self.wanted[key]} (the cluster has {have.get(key, 'none')}: {why})"
            for name, (key, why) in SETTLED.items()
            if str(have.get(key, "")) != str(self.wanted[key])
        }
        if wrong:
            fix = f"Put the cluster's own value back into the file ({', '.join(wrong)}), then run again."
            raise Permanent(f"the running cluster cannot be given {'; '.join(wrong.values())}", code="SHW-338", fix=fix)
        return None
