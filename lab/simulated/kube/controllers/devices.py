"""GPUs as the kubelets know them: device plugins that register, cards handed out to pods, health that changes."""

from __future__ import annotations

from lab.simulated.kube.hosts import runs_nvidia
from lab.simulated.kube.objects import Obj, dig, with_status
from lab.simulated.kube.world import World

from .container_programs import GPU, gpu_count, is_device_plugin


class NoDeviceError(Exception):
    """A pod was placed on a node that has no card left for it."""


class Devices:
    """The device managers of all kubelets."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._plugins: dict[str, str] = {}  # node -> uid of the plugin's pod
        self._held: dict[str, dict[str, tuple[str, str]]] = {}  # node -> card -> (pod uid, container)

    def plugin_started(self, pod: Obj, handler: str | None) -> None:
        """Register the cards of a node some moments after its plugin's container began to run."""
        node = str(pod["spec"]["nodeName"])
        if not any(is_device_plugin(container) for container in pod["spec"]["containers"]):
            return
        host = self._world.hosts.get(node)
        if host is not None and runs_nvidia(host, handler) and host.cards:
            self._plugins[node] = pod["metadata"]["uid"]
            self._world.pace.after(self._world.latencies.device_plugin, self.publish, node)

    def plugin_stopped(self, pod: Obj) -> None:
        """Take a node's cards out of use when the plugin that served them has gone."""
        node = str(dig(pod, "spec", "nodeName", default=""))
        if self._plugins.get(node) == pod["metadata"]["uid"]:
            del self._plugins[node]
            self.publish(node)

    def health_changed(self, node: str) -> None:
        """Publish a node's cards after the plugin's health check has seen them."""
        if node in self._plugins:
            self._world.pace.after(self._world.latencies.device_health, self.publish, node)

    def publish(self, node: str) -> None:
        """Write a node's capacity and allocatable cards; a card that is unwell counts in the first alone."""
        obj, host = self._world.store.get("nodes", "", node), self._world.hosts.get(node)
        if obj is None or host is None or not self._world.alive(node):
            return
        status = obj["status"]
        served = node in self._plugins
        known = status["capacity"].get(GPU)
        if not served and known is None:
            return
        total = str(len(host.cards)) if served else str(known)
        usable = str(sum(1 for _, healthy in host.cards if healthy)) if served else "0"
        capacity = {**status["capacity"], GPU: total}
        allocatable = {**status["allocatable"], GPU: usable}
        self._world.store.replace("nodes", with_status(obj, capacity=capacity, allocatable=allocatable))

    def allocate(self, pod: Obj) -> None:
        """Hand cards to a pod's containers. Raises NoDeviceError, with the kubelet's words, where there are too few."""
        node, uid = str(pod["spec"]["nodeName"]), pod["metadata"]["uid"]
        held = self._held.setdefault(node, {})
        if any(holder == uid for holder, _ in held.values()):
            return
        for container in pod["spec"]["containers"]:
            wanted = gpu_count(container)
            host = self._world.hosts[node]
            free = (
                [card for card, healthy in host.cards if healthy and card not in held] if node in self._plugins else []
            )
            if len(free) < wanted:
                self.release(pod)
                verb = "Allocate failed" if self._world.config.minor >= 21 else "Update plugin resources failed"
                raise NoDeviceError(
                    f"{verb} due to requested number of devices unavailable for {GPU}. Requested: {wanted}, "
                    f"Available: {len(free)}, which is unexpected"
                )
            for card in free[:wanted]:
                held[card] = (uid, container["name"])

    def cards(self, pod: Obj, container: str) -> list[str]:
        """Give the cards that one container of a pod holds."""
        held = self._held.get(str(pod["spec"]["nodeName"]), {})
        return [card for card, holder in held.items() if holder == (pod["metadata"]["uid"], container)]

    def release(self, pod: Obj) -> None:
        """Take back a pod's cards."""
        held = self._held.get(str(dig(pod, "spec", "nodeName", default="")), {})
        for card in [card for card, (uid, _) in held.items() if uid == pod["metadata"]["uid"]]:
            del held[card]

    def forget_node(self, node: str) -> None:
        """Forget a node that has left."""
        self._plugins.pop(node, None)
        self._held.pop(node, None)
