"""Whether the API's address for clients outside lies in a network of a control plane, and by which interface."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from shipway.cluster.hosts import HostSpec, node_ip
from shipway.cluster.model import Cluster
from shipway.errors import Permanent
from shipway.host.session import Host
from shipway.step import Drift
from shipway.survey.first_look import ADDRESSES


@dataclass(frozen=True, slots=True)
class Interfaces:
    """A control plane's interface with its own address, by which they hear each other, and that of clients outside."""

    own: str
    outside: str


def interfaces_of(said: str) -> dict[str, str]:
    """Return interface by address with its prefix (`10.0.0.11/24`), from `ip -o -4 addr show`."""
    words = [line.split() for line in said.splitlines()]
    return {one[3]: one[1] for one in words if len(one) > 3 and one[2] == "inet" and network_of(one[3])}  # noqa: PLR2004 - index, name, family, address


def network_of(text: str) -> IPv4Network | None:
    """Return the network of an address with its prefix; None for what is none."""
    try:
        return IPv4Interface(text).network
    except ValueError:
        return None


def holds(said: str, address: str) -> bool:
    """Say whether a host has an address on one of its interfaces."""
    return any(one.partition("/")[0] == address for one in interfaces_of(said))


@dataclass(frozen=True)
class VipInNetwork:
    """The address lies in a network that the host is in."""

    cluster: Cluster = field(hash=False)
    host: HostSpec = field(hash=False)
    name: str = "the API's address for clients outside lies in a network of this host"

    async def check(self, on: Host) -> Drift | None:
        """List the host's addresses; raises as `interfaces`."""
        self.interfaces((await on.read(ADDRESSES)).stdout, on.name)
        return None

    def interfaces(self, said: str, host: str) -> Interfaces:
        """Return the interface of the host's own address, and that of the network that the address lies in.

        Raises Permanent SHW-841 where it lies in none, and where it is one that a network keeps for itself.
        """
        vip = self.cluster.kubernetes.api_vip
        wanted = vip.interface if vip else None
        address, there = IPv4Address(self.cluster.api_vip), interfaces_of(said)
        fits = {one: name for one, name in there.items() if _is_host_of(address, network_of(one))}
        mine = next((one for one in there if one.partition("/")[0] == node_ip(self.host)), "")
        names = [name for name in (there[mine] if mine in fits else "", *fits.values()) if name]
        chosen = next((name for name in names if wanted in (None, name)), "")
        if chosen and mine:
            return Interfaces(there[mine], chosen)
        shown = ", ".join(f"{name} {one}" for one, name in there.items() if not one.startswith("127."))
        which = f"the network of {wanted}" if wanted else "a network of this host"
        message = f"{address} is no address for a host in {which} (it has {shown or 'none'})"
        if not mine:
            message = f"no interface of this host has its own address {node_ip(self.host)} (it has {shown or 'none'})"
        fix = "Name an address of a network that every control plane is in (kubernetes.api_vip), or the interface."
        raise Permanent(message, host=host, code="SHW-841", fix=fix)


def _is_host_of(address: IPv4Address, network: IPv4Network | None) -> bool:
    """Say whether an address may be a host's in a network; in one of a single address it is held already."""
    if network is None or network.num_addresses == 1 or address not in network:
        return False
    return network.prefixlen == 31 or address not in (network.network_address, network.broadcast_address)  # noqa: PLR2004 - RFC 3021
