"""Addresses of pods, and the rule by which a pod is known to be a pod network."""

from __future__ import annotations

import ipaddress
from collections import Counter

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
        self._given: Counter[str] = Counter()  # by range

    def address(self, node: str) -> str:
        """Return the next address. A range that is used up starts again: addresses are not what this lab is about."""
        obj = self._world.store.get("nodes", "", node)
        where = str(dig(obj, "spec", "podCIDR") or self._world.config.pod_cidr)
        network = ipaddress.ip_network(where)
        at = self._given[where] % max(1, network.num_addresses - 3)
        self._given[where] += 1
        return str(network[2 + at])  # 0 is the network's, 1 the node's end of it, the last all nodes'
