"""Who reaches whom in a simulated lab: addresses, foreign programs on ports, and where connections really go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.simulated.host import SimulatedHost

LOCAL = ("127.0.0.1", "localhost", "::1")


class Reach:
    """The lab's network, once its hosts are made."""

    def __init__(self) -> None:
        self.hosts: dict[str, SimulatedHost] = {}
        self.ssh_port = 22
        self._by_address: dict[str, SimulatedHost] = {}
        self._ports: dict[str, dict[int, str]] = {}

    def take(self, hosts: Mapping[str, SimulatedHost], ssh_port: int) -> None:
        """Take the lab's hosts."""
        self.hosts = dict(hosts)
        self._by_address = {host.address: host for host in hosts.values()}
        self.ssh_port = ssh_port

    def resolve(self, host: SimulatedHost, name: str) -> str:
        """Return the address that a host's /etc/hosts gives a name, by the first line (hosts(5)); else the name."""
        for line in (host.files.read("/etc/hosts") or b"").decode(errors="replace").splitlines():
            address, *names = line.split("#", 1)[0].split() or [""]
            if name in names and ":" not in address:
                return address
        return name

    def knows(self, host: SimulatedHost, name: str) -> bool:
        """Say whether a name or an address is one of the lab's, seen from a host."""
        name = self.resolve(host, name)
        return name in (*LOCAL, host.address) or name in self._by_address or name in self.hosts

    def reaches(self, host: SimulatedHost, address: str) -> bool:
        """Say whether a host reaches an address of the lab."""
        other = self._by_address.get(self.resolve(host, address))
        return other is host or (host.reachable and other is not None and other.reachable)

    def target(self, host: SimulatedHost, address: str) -> SimulatedHost | None:
        """Return the host that an address leads to from a host, None where it leads nowhere."""
        address = self.resolve(host, address)
        if address in LOCAL or address == host.address:
            return host
        found = self._by_address.get(address) or self.hosts.get(address)
        return found if found is not None and self.reaches(host, found.address) else None

    def take_port(self, host: SimulatedHost, port: int, owner: str) -> None:
        """Let a foreign program hold a port; an owner without a name lets it go."""
        held = self._ports.setdefault(host.name, {})
        held.pop(port, None)
        if owner:
            held[port] = owner

    def ports(self, host: SimulatedHost) -> dict[int, str]:
        """Return the ports that foreign programs hold."""
        return self._ports.get(host.name, {})
