"""What forbids to take a node out of its cluster, each a check of its own: a plan lists all of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from shipway.errors import Refused
from shipway.gpu.holders import gpu_holders
from shipway.gpu.jobs import given_up
from shipway.host.session import Host
from shipway.kube.budgets import guarded_pods, list_budgets
from shipway.kube.client import Kube, Object
from shipway.kube.nodes import few, nodes_by_name
from shipway.kube.status import is_true, why_not_ready
from shipway.ownership.evidence import Evidence, address_of
from shipway.step import Drift
from shipway.steps.kubernetes.etcd_leave import why_stay
from shipway.steps.kubernetes.etcd_members import member_of, members_of
from shipway.steps.kubernetes.nodes import CONTROL_PLANE_TAINTS, pod_ready
from shipway.steps.kubernetes.retire import may_leave, refuse_holders

AWAY = ("NoSchedule", "NoExecute")


@dataclass(frozen=True)
class OfThisCluster:
    """The host belongs to this cluster, or to none; `begun` says that a reset of ours has begun there."""

    seen: Evidence
    authorities: frozenset[str]
    endpoints: frozenset[str]
    begun: bool = False
    name: str = "the host is of this cluster, or of none"

    async def check(self, on: object) -> Drift | None:
        """Compare authorities. Raises Refused SHW-706."""
        del on
        raise_for_other(self.seen, self.authorities, self.endpoints, begun=self.begun)
        return None


def raise_for_other(seen: Evidence, ours: frozenset[str], endpoints: frozenset[str], *, begun: bool) -> None:
    """Refuse a host of another cluster, of one that cannot be told, or one that is another node. Raises SHW-706."""
    fix = f"Name {seen.host} in the file of its own cluster, and run the same there: it is never emptied unasked."
    if seen.authorities and ours and not seen.authorities & ours:
        message = f"the host belongs to another cluster: {seen.whose}"
        raise Refused(message, host=seen.host, code="SHW-706", fix=fix)
    if seen.node and seen.node != seen.host:
        message = f"the machine at that address is the node {seen.node}, and not {seen.host}"
        fix = f"Correct the address of {seen.host} (in the file, or --address), or name {seen.node}."
        raise Refused(message, host=seen.host, code="SHW-706", fix=fix)
    if begun or seen.authorities or address_of(seen.server) in endpoints:
        return
    if seen.certificate or seen.running:
        there = (
            f"pods run ({', '.join(seen.pods[:5]) or 'unnamed'})"
            if seen.running
            else "a kubelet's certificate is there"
        )
        message = f"whose the host is cannot be determined: {there}, and no kubeconfig is"
        fix = f"See `sudo ctr -n k8s.io tasks ls` on {seen.host}; what nobody needs is ended by hand, then run again."
        raise Refused(message, host=seen.host, code="SHW-706", fix=fix)


def is_control_plane(node: Mapping[str, Any]) -> bool:
    """Say whether a node has the role of a control plane, by either of its labels."""
    return bool(set(CONTROL_PLANE_TAINTS) & set((node.get("metadata") or {}).get("labels") or {}))


async def runs_control_plane(on: Kube, node: str, standing: str) -> bool:
    """Say whether a node runs a control plane, or part of one, by any sign: its host, its labels, its etcd's pod."""
    nodes, members = await asyncio.gather(nodes_by_name(on), count_etcd(on))
    return node in members or standing == "control plane" or is_control_plane(nodes.get(node, {}))


async def count_etcd(on: Kube) -> dict[str, bool]:
    """Return by node whether its member of a stacked etcd is healthy, as its static pod says (kubeadm's labels)."""
    pods = await on.list_("v1", "Pod", "kube-system", labels="component=etcd,tier=control-plane")
    return {str(pod["spec"].get("nodeName")): pod_ready(pod) for pod in pods}


@dataclass(frozen=True)
class ControlPlaneMayGo:
    """The node is none that the cluster's data, or its API, rests on.

    `lead` is the session of another control plane, which answers for the cluster; None where the file has none that
    does. `fewer` is that a person or the file wants one less; `address` is where the node's member of etcd would be.
    """

    node: str
    standing: str = ""
    lead: Host | None = None
    address: str = ""
    fewer: bool = False
    dead: bool = False
    name: str = "the cluster does without a control plane on the node"

    async def check(self, on: Kube) -> Drift | None:
        """Ask who runs etcd, and the rule of its quorum. Raises Refused SHW-707."""
        nodes = await nodes_by_name(on)
        if not await runs_control_plane(on, self.node, self.standing):
            return None
        if self.lead is None:
            others = few(sorted(set(nodes) - {self.node}))
            first = f"remove {others} first, then " if others else ""
            why = "no other control plane of the cluster file serves: with it the cluster's data is gone"
            fix = f"To end the cluster: {first}reset {self.node}."
        else:
            members = await members_of(self.lead)
            own = member_of(members, self.node, self.address)
            why = why_stay(members, own, allow=self.fewer) if own else ""
            fix = "Mend the members that are not healthy first (`shipway drift` names them), then run again."
            if own and not why_stay(members, own, allow=True):
                fix = (
                    f"To have another machine in its place: `shipway replace FILE {self.node}`, its address in the "
                    "file (or --to-replace, and a bootstrap). To have fewer: leave it out of the cluster file, which "
                    "names an odd number, then run again."
                )
            if own and own.healthy and self.dead:
                why, fix = f"--dead was asked for, and its member of etcd is healthy: {own.said}", "Leave --dead away."
        if not why:
            return None
        raise Refused(f"it runs a control plane: {why}", host=self.node, code="SHW-707", fix=fix)


def takes_pods(node: Mapping[str, Any]) -> bool:
    """Say whether ordinary pods may be scheduled to a node now."""
    spec = node.get("spec") or {}
    barred = any(taint.get("effect") in AWAY for taint in spec.get("taints") or ())
    return is_true(node, "Ready") and not spec.get("unschedulable") and not barred


@dataclass(frozen=True)
class ElsewhereToGo:
    """Pods that a disruption budget guards have another node to go to."""

    node: str
    name: str = "pods with a disruption budget have another node to go to"

    async def check(self, on: Kube) -> Drift | None:
        """Look for another node that takes pods, then for guarded ones. Raises Refused SHW-704."""
        nodes = await nodes_by_name(on)
        if self.node not in nodes or any(takes_pods(node) for name, node in nodes.items() if name != self.node):
            return None
        guarded = await self._guarded(on)
        if guarded:
            message = f"{self.node} is the last node that takes pods, and disruption budgets guard {few(guarded)}"
            fix = "Add or open another node first, or let the owners of these pods end them."
            raise Refused(message, host=self.node, code="SHW-704", fix=fix)
        return None

    async def _guarded(self, on: Kube) -> list[str]:
        found = [pod for one in await list_budgets(on) for pod in await guarded_pods(on, one, {self.node})]
        return sorted({f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in found})


@dataclass(frozen=True)
class NoLocalVolume:
    """No volume that is bound has its data on the node's own disks."""

    node: str
    name: str = "no bound volume has its data on the host"

    async def check(self, on: Kube) -> Drift | None:
        """List the volumes that only this node can have. Raises Refused SHW-705."""
        found = [one for one in await on.list_("v1", "PersistentVolume") if _lives_on(one, self.node)]
        held = [_volume(one) for one in found if not await _ends_with_pod(on, one)]
        if held:
            message = f"the data of bound volumes is on {self.node}'s disks: {few(sorted(held))}"
            fix = "Move the data and delete the claims first: another node cannot have these volumes."
            raise Refused(message, host=self.node, code="SHW-705", fix=fix)
        return None


def _volume(volume: Object) -> str:
    claim = (volume.get("spec") or {}).get("claimRef") or {}
    return f"{volume['metadata']['name']} (claim {claim.get('namespace')}/{claim.get('name')})"


async def _ends_with_pod(on: Kube, volume: Object) -> bool:
    """Say whether a volume is a pod's own for as long as it lives (generic ephemeral volumes): its pod owns the claim.

    Such data goes with any eviction, as its owner knows.
    """
    claim = (volume.get("spec") or {}).get("claimRef") or {}
    found = await on.get("v1", "PersistentVolumeClaim", str(claim.get("name")), str(claim.get("namespace")))
    owners = ((found or {}).get("metadata") or {}).get("ownerReferences") or ()
    return any(one.get("kind") == "Pod" for one in owners)


def _lives_on(volume: Object, node: str) -> bool:
    """Say whether a bound volume's data is on a node's disks, by which nodes may have it.

    Drivers of local disks name the node by a key of their own (TopoLVM `topology.topolvm.io/node`, OpenEBS
    `openebs.io/nodename`); one that keeps copies on several names them all, and a zone is no node.
    """
    spec = volume.get("spec") or {}
    terms = ((spec.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or ()
    named = [_named(term) for term in terms]
    if (volume.get("status") or {}).get("phase") != "Bound":
        return False
    if {"local", "hostPath"} & set(spec):
        return any(node in values for some in named for values in some)
    return "csi" in spec and bool(named) and all((node,) in some for some in named)


def _named(term: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the values that each part of a node selector's term asks one of."""
    asked = (*(term.get("matchExpressions") or ()), *(term.get("matchFields") or ()))
    return [tuple(map(str, one.get("values") or ())) for one in asked if one.get("operator", "In") == "In"]


@dataclass(frozen=True)
class PodsMayLeave:
    """No pod on the node forbids a drain: none that nothing would start again, none whose data would be lost."""

    node: str
    local_data: Collection[str] | None = ()
    name: str = "the pods on the node may be moved"

    async def check(self, on: Kube) -> Drift | None:
        """Ask as the drain does. Raises Refused SHW-337."""
        if self.node in await nodes_by_name(on):
            await may_leave(on, self.node, local_data=self.local_data, evict_gpu_pods=True)
        return None


@dataclass(frozen=True)
class NoGpuPods:
    """No pod holds GPUs of the node, but for those whose owners let them go."""

    node: str
    name: str = "no pod holds GPUs of the node"

    async def check(self, on: Kube) -> Drift | None:
        """List those that do. Raises Refused SHW-703."""
        if self.node not in await nodes_by_name(on):
            return None
        if held := await gpu_holders(on, self.node, besides=await given_up(on, self.node)):
            raise refuse_holders(self.node, held)
        return None


@dataclass(frozen=True)
class NodeLost:
    """The node's kubelet is silent: the cluster takes it for lost."""

    node: str
    name: str = "the cluster takes the node for lost"

    async def check(self, on: Kube) -> Drift | None:
        """Read its condition. Raises Refused SHW-709 where it is Ready."""
        node = (await nodes_by_name(on)).get(self.node)
        if node is not None and not why_not_ready(node):
            message = "--dead was asked for, and the node is Ready: its kubelet answers the cluster"
            fix = "Leave --dead away; where SSH does not answer, mend that first (docs/ssh.md)."
            raise Refused(message, host=self.node, code="SHW-709", fix=fix)
        return None


@dataclass(frozen=True)
class HostAway:
    """The host does not answer SSH, as `--dead` says, or answers, where it is not said."""

    node: str
    dead: bool
    answers: bool
    said: str
    name: str = "SSH agrees with what was asked for"

    async def check(self, on: object) -> Drift | None:
        """Compare. Raises Refused SHW-708, SHW-710."""
        del on
        if self.dead and self.answers:
            message = f"--dead was asked for, and the host answers SSH{f' ({self.said})' if self.said else ''}"
            raise Refused(
                message, host=self.node, code="SHW-708", fix="Leave --dead away: then it is drained and reset."
            )
        if not self.dead and not self.answers:
            fix = (
                "Mend that, then run again. Where the machine is gone for good: --dead, once it is off, for pods that "
                "still run there would run twice."
            )
            raise Refused(f"the host does not answer SSH: {self.said}", host=self.node, code="SHW-710", fix=fix)
        return None
