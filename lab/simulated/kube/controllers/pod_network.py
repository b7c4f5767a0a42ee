"""Addresses of pods, and the rule by which a pod is known to be a pod network."""

from __future__ import annotations

import ipaddress

from lab.simulated.kube.objects import Obj, dig
from lab.simulated.kube.world import World

CNI_DIRECTORY = "/etc/cni/net.d"


def is_network_pod(pod: Obj) -> bool:
    """Say whether a pod brings a pod network: it belongs to a DaemonSet and mounts the host's /etc/cni/net.d."""
    owners = pod["metadata"].get("ownerReferences") or []
    if not any(owner["kind"] == "DaemonSet" for owner in owners):
        return False
    paths = [str(dig(volume, "hostPath", "path", default="")) for volume in pod["spec"].get("volumes") or []]
    return any(path.rstrip("/") == CNI_DIRECTORY for path in paths)


class PodNetwork:
    """Hands out pod addresses: from the node's range where it has one, else from the cluster's."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._used: dict[str, set[int]] = {}
        self._next: dict[str, int] = {}

    def _range(self, node: str) -> str:
        obj = self._world.store.get("nodes", "", node)
        return str(dig(obj, "spec", "podCIDR") or self._world.config.pod_cidr)

    def address(self, node: str) -> str:
        """Return a free address. A range that is used up starts again: addresses are not what this lab is about."""
        where = self._range(node)
        network = ipaddress.ip_network(where)
        used = self._used.setdefault(where, set())
        size = network.num_addresses
        start = self._next.get(where, 2)  # 0 is the network's, 1 the node's end of it
        number = next((n for n in range(start, size - 1) if n not in used), None)
        if number is None:
            number = next((n for n in range(2, size - 1) if n not in used), 2)
        used.add(number)
        self._next[where] = number + 1
        return str(network[number])

    def give_back(self, node: str, address: str) -> None:
        """Take an address back."""
        where = self._range(node)
        network = ipaddress.ip_network(where)
        if address and ipaddress.ip_address(address) in network:
            self._used.get(where, set()).discard(int(ipaddress.ip_address(address)) - int(network.network_address))
