"""Solver rules about hosts and networks: unique, reachable by an address, large enough, apart from each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from shipway.cluster.faults import Fault
from shipway.cluster.hosts import HostSpec, node_ip
from shipway.cluster.model import Cluster
from shipway.errors import Refused
from shipway.rules.compatibility import NODE_MASK_SPREAD, SERVICE_PREFIXES

Path = tuple[str | int, ...]
CONTROL_PLANES, MANY = (1, 3, 5), 6
POD, MASK = ("kubernetes", "pod_network"), ("kubernetes", "node_mask")
SERVICE, ENDPOINT = ("kubernetes", "service_network"), ("kubernetes", "api_endpoint")
VIP = ("kubernetes", "api_vip")
# What listens on a control plane besides the API server (kubernetes.io, "Ports and Protocols").
TAKEN = {
    22: "SSH",
    2379: "etcd",
    2380: "etcd",
    10250: "the kubelet",
    10257: "the controller manager",
    10259: "scheduler",
}


def _address(host: HostSpec) -> IPv4Address | None:
    """Return the node's address, or None where only a name is known."""
    try:
        return IPv4Address(node_ip(host))
    except Refused:
        return None


def _place(index: int, host: HostSpec) -> Path:
    """Return where the node's address was written."""
    return ("hosts", index, "node_ip" if host.node_ip else "address")


def names(cluster: Cluster) -> Iterator[Fault]:
    """A second node of the same name silently replaces the first (kubeadm#1130)."""
    seen: dict[str, int] = {}
    for index, host in enumerate(cluster.hosts):
        first = seen.setdefault(host.name, index)
        if first != index:
            also = (("hosts", first, "name"), ("hosts", index), ("hosts", first))
            yield Fault(("hosts", index, "name"), f"{host.name} is already the name of hosts[{first}]", also)


def addresses(cluster: Cluster) -> Iterator[Fault]:
    """Two hosts are one machine when SSH reaches both at the same place, or when they have the same node address."""
    logins: dict[object, int] = {}
    nodes: dict[IPv4Address, int] = {}
    for index, host in enumerate(cluster.hosts):
        target = cluster.target(host)
        first = logins.setdefault((target.address.lower(), target.port, target.jump and target.jump.address), index)
        if first != index:
            message = f"{host.address} port {target.port} is already the address of hosts[{first}]"
            yield Fault(("hosts", index, "address"), message, (("hosts", first, "address"), ("hosts", index)))
            continue
        node = _address(host)
        first = index if node is None else nodes.setdefault(node, index)
        if first != index:
            message = f"node address {node} is already that of hosts[{first}]"
            yield Fault(_place(index, host), message, (_place(first, cluster.hosts[first]), ("hosts", index)))


def node_addresses(cluster: Cluster) -> Iterator[Fault]:
    """The node's address is set everywhere (kubelet, API server, Calico): it must be known, and no special one."""
    for index, host in enumerate(cluster.hosts):
        node = _address(host)
        if node is None:
            message = (
                f"{host.address} is no IPv4 address: say which one the node has, "
                f"{{name: {host.name}, address: {host.address}, node_ip: A.B.C.D}}"
            )
            yield Fault(("hosts", index, "address"), message, (("hosts", index),))
        elif node.is_multicast or node.is_unspecified or node.is_link_local or node == IPv4Address("255.255.255.255"):
            yield Fault(_place(index, host), f"{node} cannot be a node's address", (("hosts", index),))


def control_planes(cluster: Cluster) -> Iterator[Fault]:
    """One, three or five: an even number of etcd's members bears the loss of no more than the odd one below it.

    etcd's documentation ("FAQ", "What is failure tolerance?") advises odd sizes and not above seven; with more than
    five each write waits for more disks, and nothing here was tried with them.
    """
    planes = [index for index, host in enumerate(cluster.hosts) if "control_plane" in host.roles]
    if not planes:
        yield Fault(("hosts",), "no host has the role control_plane: give it to one of them")
    elif len(planes) not in CONTROL_PLANES:
        count, bears = len(planes), (len(planes) - 1) // 2
        why = f"{count} control planes bear the loss of {bears}, as {count - 1} do" if count < MANY else "more than 5"
        message = f"{why}: 1, 3 or 5 are supported; make this one a worker"
        also = [(("hosts", index, "roles"), ("hosts", index)) for index in planes]
        yield Fault(("hosts", planes[-1], "roles"), message, tuple(path for pair in also[::-1] for path in pair))
    for index, host in enumerate(cluster.hosts):
        if len(set(host.roles)) != len(host.roles):
            yield Fault(("hosts", index, "roles"), "names a role twice")


def endpoints(cluster: Cluster) -> Iterator[Fault]:
    """The API's name is no host's, and of several control planes no single address is the endpoint."""
    if cluster.api_name in {host.name for host in cluster.hosts}:
        yield Fault((*ENDPOINT, "name"), f"{cluster.api_name} is the name of a host", (ENDPOINT,))
    planes = cluster.control_planes
    given = cluster.endpoint.rpartition(":")[0]
    alone = [host.name for host in planes if given in (host.address, str(_address(host)))]
    if alone and len(planes) > 1:
        message = (
            f"{given} is the address of {alone[0]} alone, and there are {len(planes)} control planes: leave it out"
        )
        yield Fault(ENDPOINT, f"{message}, or give a name that leads to all of them")


def vip(cluster: Cluster) -> Iterator[Fault]:
    """The address for clients outside is nobody's own, and lies in no network of pods or services."""
    if not cluster.api_vip:
        return
    place, address = (*VIP, "address"), IPv4Address(cluster.api_vip)
    for index, host in enumerate(cluster.hosts):
        if cluster.api_vip in (host.address, str(_address(host))):
            yield Fault(place, f"{address} is the address of {host.name}: take a free one", (_place(index, host),))
    for path, network in ((POD, cluster.kubernetes.pod_network), (SERVICE, cluster.kubernetes.service_network)):
        if address in network:
            yield Fault(place, f"{address} lies in the {path[1].partition('_')[0]} network {network}", (path,))
    if cluster.endpoint.rpartition(":")[0] == cluster.api_vip:
        yield Fault(
            place, f"{address} is the endpoint: no node may need it, for it is held once the API serves", (ENDPOINT,)
        )
    if (
        address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or address.is_link_local
        or address.is_loopback
    ):
        yield Fault(place, f"{address} cannot be an address that clients reach")


def room(cluster: Cluster) -> Iterator[Fault]:
    """Each node gets one network of node_mask; the 17th of /20 by /24 gets none (kubernetes#76761)."""
    network, mask, count = cluster.kubernetes.pod_network, cluster.kubernetes.node_mask, len(cluster.hosts)
    about: tuple[Path, ...] = (POD, ("hosts",))
    if mask < network.prefixlen:
        message = f"/{mask} is larger than the whole pod network {network}; take {network.prefixlen} to 30"
        yield Fault(MASK, message, (POD,))
    elif mask - network.prefixlen > NODE_MASK_SPREAD:
        most = network.prefixlen + NODE_MASK_SPREAD
        yield Fault(MASK, f"/{mask} is more than {NODE_MASK_SPREAD} bits below {network}; take at most {most}", (POD,))
    elif count > 2 ** (mask - network.prefixlen):
        fitting = network.prefixlen + (count - 1).bit_length()
        advice = (
            f"node_mask {fitting} would fit ({2 ** (32 - fitting) - 2} pods a node)"
            if fitting <= 28  # noqa: PLR2004 - 14 pods a node are the least that is of use
            else "a larger pod network is needed"
        )
        room_for = 2 ** (mask - network.prefixlen)
        message = f"/{mask} of {network} makes room for {room_for} nodes, there are {count} hosts; {advice}"
        yield Fault(MASK, message, about)


def overlaps(cluster: Cluster) -> Iterator[Fault]:
    """Overlapping networks show as odd timeouts much later (calico#2720)."""
    kubernetes = cluster.kubernetes
    if kubernetes.pod_network.overlaps(kubernetes.service_network):
        message = f"{kubernetes.pod_network} overlaps the service network {kubernetes.service_network}"
        yield Fault(POD, message, (SERVICE,))
    networks: dict[Path, tuple[str, IPv4Network]] = {
        POD: ("pod", kubernetes.pod_network),
        SERVICE: ("service", kubernetes.service_network),
    }
    inside: dict[Path, list[tuple[Path, str]]] = defaultdict(list)
    for index, host in enumerate(cluster.hosts):
        for path, (_, network) in networks.items():
            node = _address(host)
            if node and node in network:
                inside[path].append((_place(index, host), f"{host.name} ({node})"))
    for path, hosts in inside.items():
        said = ", ".join(text for _, text in hosts[:5]) + (f" and {len(hosts) - 5} more" if len(hosts) > 5 else "")  # noqa: PLR2004
        kind, network = networks[path]
        yield Fault(
            path, f"the {kind} network {network} holds the address of {said}", tuple(place for place, _ in hosts)
        )
    given = "" if cluster.api_name else cluster.endpoint.rpartition(":")[0]
    for path, (kind, network) in networks.items():
        if given.replace(".", "").isdigit() and IPv4Address(given) in network:
            yield Fault(ENDPOINT, f"{given} lies in the {kind} network {network}", (path,))


def services(cluster: Cluster) -> Iterator[Fault]:
    """The API server refuses a service network above /12 or below 8 addresses."""
    network, (widest, narrowest) = cluster.kubernetes.service_network, SERVICE_PREFIXES
    if not widest <= network.prefixlen <= narrowest:
        yield Fault(SERVICE, f"{network} is not between /{widest} and /{narrowest}, which the API server asks for")


def blocks(cluster: Cluster) -> Iterator[Fault]:
    """Calico's blocks are parts of the pod network (an IPPool's blockSize lies inside its cidr)."""
    network, size = cluster.kubernetes.pod_network, cluster.network.block_size
    if cluster.network.provider == "calico" and size < network.prefixlen:
        yield Fault(("network", "block_size"), f"/{size} is larger than the pod network {network}", (POD,))


def ports(cluster: Cluster) -> Iterator[Fault]:
    """Two components cannot listen on one port."""
    port = cluster.kubernetes.api_port
    if port in TAKEN:
        yield Fault(("kubernetes", "api_port"), f"{port} is the port of {TAKEN[port]}")


def find_unknown_disturbed(cluster: Cluster) -> Iterator[Fault]:
    """A host that repairs may disturb must be one of the file's: a typing error there would protect nobody."""
    known = {host.name for host in cluster.hosts}
    for index, name in enumerate(cluster.repair.disturb):
        if name not in known:
            yield Fault(("repair", "disturb", index), f"no host {name} in this file; it has {', '.join(sorted(known))}")
