"""The life of nodes: registration, heart beat, readiness, silence, taints, and what a node's end takes along."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Hashable, Iterator

from lab.simulated.kube.deletion import Deletion
from lab.simulated.kube.objects import (
    Obj,
    condition,
    dig,
    is_true,
    micro_timestamp,
    name_of,
    set_condition,
    timestamp,
    with_status,
)
from lab.simulated.kube.store import DELETED, Change
from lab.simulated.kube.world import World, lease

from .base import Controller
from .node_objects import (
    NOT_READY,
    UNREACHABLE,
    UNSCHEDULABLE,
    beating_conditions,
    node_info,
    node_object,
    silent_conditions,
    with_taints,
)
from .placement import tolerated

NO_EXECUTE_DELAY = 5.0  # seconds after which the taint that evicts follows the one that keeps new pods away


class Nodes(Controller):
    """The kubelets' side of Node objects and the node lifecycle controller in one."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.networked: set[str] = set()  # nodes on which a pod network has written its CNI configuration
        self.on_alive: list[Callable[[str], None]] = []  # called when a kubelet that was away is back
        self._silence: dict[str, asyncio.TimerHandle] = {}
        self._away: set[str] = set()  # nodes whose kubelet was away at some time since its last beat
        self._ranges: dict[str, str] = {}
        self._subnets = self._all_ranges()
        self._given_back: list[str] = []
        self._deletion = Deletion(world)
        self.store.listen(["nodes"], self._node_changed)

    def register(self, node: str, *, control_plane: bool) -> Obj:
        """Make the Node object of a host whose kubelet has just joined."""
        host = self.world.hosts[node]
        obj = node_object(host, self.world.config, control_plane=control_plane)
        obj["status"]["conditions"] = beating_conditions([], self.world.config.minor, network=False)
        pod_range = self._free_range(node)
        if pod_range:
            obj["spec"] |= {"podCIDR": pod_range, "podCIDRs": [pod_range]}
        stored = self.store.create("nodes", obj)
        self.store.create("leases.coordination.k8s.io", lease(node))
        self._event(stored, "Starting", "Starting kubelet.", "kubelet")
        self._event(
            stored, "RegisteredNode", f"Node {node} event: Registered Node {node} in Controller", "node-controller"
        )
        if not pod_range:
            self._event(stored, "CIDRNotAvailable", f"Node {node} status is now: CIDRNotAvailable", "cidrAllocator")
        self.enqueue(("beat", node), self.latencies.node_status)
        return stored

    def _event(self, node: Obj, reason: str, message: str, source: str) -> None:
        host = name_of(node) if source == "kubelet" else ""
        self.world.event(node, reason, message, source, host)

    def _free_range(self, node: str) -> str:
        """Return a node's pod range, empty where none is left: a /20 in pieces of /24 serves 16 nodes and no more."""
        found = self._given_back.pop(0) if self._given_back else next(self._subnets, "")
        if found:
            self._ranges[node] = found
        return found

    def _all_ranges(self) -> Iterator[str]:
        network = ipaddress.ip_network(self.world.config.pod_cidr)
        for subnet in network.subnets(new_prefix=max(network.prefixlen, self.world.config.node_cidr_mask)):
            yield str(subnet)

    def network_up(self, node: str) -> None:
        """Note that a pod network runs on a node."""
        if node not in self.networked:
            self.networked.add(node)
            self.enqueue(("beat", node), self.latencies.node_status)

    def host_changed(self, node: str) -> None:
        """Look at a host anew: its kubelet may have stopped, come back, or have something else to say."""
        if self.store.get("nodes", "", node) is None:
            return
        if self.world.alive(node):
            self.pace.cancel(self._silence.pop(node, None))
            self.enqueue(("beat", node), 0.3)
            return
        self._away.add(node)
        if node not in self._silence:
            self._silence[node] = self.pace.after(self.latencies.node_grace, self._fell_silent, node)

    def reconcile(self, key: Hashable) -> None:
        """Do what a key asks: post a status (beat), add the evicting taint, mark pods as not ready."""
        assert isinstance(key, tuple)  # noqa: S101 - for the type checker
        work, name = key
        node = self.store.get("nodes", "", name)
        if node is None:
            return
        if work == "beat" and self.world.alive(name):
            self._beat(node)
        elif work == "no-execute" and not self.world.alive(name):
            taint = {"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": timestamp()}
            if not any(
                t["key"] == UNREACHABLE and t["effect"] == "NoExecute" for t in dig(node, "spec", "taints", default=[])
            ):
                self.store.replace("nodes", with_taints(node, set(), [taint]))
            self.pace.after(self.latencies.eviction, self._evict, name)

    def _beat(self, node: Obj) -> None:
        name, host = name_of(node), self.world.hosts[name_of(node)]
        was = condition(node, "Ready")
        conditions = beating_conditions(
            dig(node, "status", "conditions", default=[]), self.world.config.minor, network=name in self.networked
        )
        node = with_status(node, conditions=conditions, nodeInfo=node_info(host))
        ready = is_true(node, "Ready")
        new = [] if ready else [{"key": NOT_READY, "effect": "NoSchedule"}]
        node = self.store.replace("nodes", with_taints(node, {NOT_READY, UNREACHABLE}, new))
        if ready and (was is None or was["status"] != "True"):
            self._event(node, "NodeReady", f"Node {name} status is now: NodeReady", "kubelet")
        if name in self._away:
            self._away.discard(name)
            for callback in self.on_alive:
                callback(name)
        beat = self.store.get("leases.coordination.k8s.io", "kube-node-lease", name)
        if beat is not None:
            spec = {**beat["spec"], "renewTime": micro_timestamp()}
            self.store.replace("leases.coordination.k8s.io", {**beat, "spec": spec})

    def _fell_silent(self, name: str) -> None:
        self._silence.pop(name, None)
        node = self.store.get("nodes", "", name)
        if node is None or self.world.alive(name):
            return
        node = with_status(node, conditions=silent_conditions(dig(node, "status", "conditions", default=[])))
        taint = {"key": UNREACHABLE, "effect": "NoSchedule", "timeAdded": timestamp()}
        node = self.store.replace("nodes", with_taints(node, {NOT_READY, UNREACHABLE}, [taint]))
        self._event(node, "NodeNotReady", f"Node {name} status is now: NodeNotReady", "node-controller")
        self.enqueue(("no-execute", name), NO_EXECUTE_DELAY)
        for pod in self.store.indexed("pods", "node", name):
            conditions = set_condition(dig(pod, "status", "conditions", default=[]), "Ready", "False")
            self.store.replace("pods", with_status(pod, conditions=conditions))

    def _evict(self, name: str) -> None:
        """Mark what does not tolerate a silent node for ever as being deleted; its kubelet does it when it is back."""
        if self.world.alive(name) or self.store.get("nodes", "", name) is None:
            return
        for pod in self.store.indexed("pods", "node", name):
            lasting = [
                one for one in dig(pod, "spec", "tolerations", default=[]) if one.get("tolerationSeconds") is None
            ]
            if not tolerated({"key": UNREACHABLE, "effect": "NoExecute"}, lasting):
                self._deletion.delete("pods", pod, {})

    def _node_changed(self, change: Change) -> None:
        name = name_of(change.obj)
        if change.kind == DELETED:
            self._gone(name)
            return
        # A cordoned node carries a taint too, put there by this controller.
        node = self.store.get("nodes", "", name)
        if node is None:
            return
        cordoned = bool(dig(node, "spec", "unschedulable"))
        tainted = any(taint["key"] == UNSCHEDULABLE for taint in dig(node, "spec", "taints", default=[]))
        if cordoned != tainted:
            new = [{"key": UNSCHEDULABLE, "effect": "NoSchedule", "timeAdded": timestamp()}] if cordoned else []
            self.store.replace("nodes", with_taints(node, {UNSCHEDULABLE}, new))

    def _gone(self, name: str) -> None:
        if pod_range := self._ranges.pop(name, ""):
            self._given_back.append(pod_range)
        self.networked.discard(name)
        self._away.discard(name)
        self.pace.cancel(self._silence.pop(name, None))
        self.store.remove("leases.coordination.k8s.io", "kube-node-lease", name)
        for pod in self.store.indexed("pods", "node", name):
            self.store.remove("pods", pod["metadata"]["namespace"], name_of(pod))
