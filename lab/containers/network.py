"""A lab's own network namespace: a road to this machine and none to the world."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.containers.commands import run

WIDER = "172.30.0.0/16"
BLACKHOLE_METRIC = "9999"
CONNTRACK = Path("/proc/sys/net/netfilter/nf_conntrack_max")


@dataclass(frozen=True)
class LabNetwork:
    """The namespace, veth pair and routes of lab `number`; every act may be repeated."""

    number: int

    @property
    def namespace(self) -> str:
        """Return the name of the network namespace."""
        return f"shipway-lab{self.number}"

    @property
    def outer(self) -> str:
        """Return the name of the veth on the machine's side."""
        return f"shiplab{self.number}u"

    @property
    def inner(self) -> str:
        """Return the name of the veth in the namespace."""
        return f"shiplab{self.number}d"

    @property
    def subnet(self) -> str:
        """Return the hosts' network."""
        return f"172.30.{self.number}.0/24"

    def _ip(self, *words: str) -> str:
        return run("ip", *words)

    def _inside(self, *words: str) -> str:
        return run("ip", "-n", self.namespace, *words)

    def exists(self) -> bool:
        """Say whether the namespace is there."""
        return Path("/run/netns", self.namespace).exists()

    def up(self) -> None:
        """Make namespace, veth pair and routes, from whatever is there of them."""
        if not self.exists():
            self._ip("netns", "add", self.namespace)
            self._inside("link", "set", "lo", "up")
        if not Path("/sys/class/net", self.outer).exists():
            self._ip("link", "add", self.outer, "type", "veth", "peer", "name", self.inner, "netns", self.namespace)
        here, there = f"172.31.255.{4 * self.number + 1}", f"172.31.255.{4 * self.number + 2}"
        self._ip("address", "replace", f"{here}/30", "dev", self.outer)
        self._ip("link", "set", self.outer, "up")
        self._inside("address", "replace", f"{there}/30", "dev", self.inner)
        self._inside("link", "set", self.inner, "up")
        # What is not this lab's goes nowhere, neither from the machine nor from the hosts.
        self._ip("route", "replace", "blackhole", WIDER, "metric", BLACKHOLE_METRIC)
        self._ip("route", "replace", self.subnet, "via", there, "dev", self.outer)
        self._inside("route", "replace", "blackhole", WIDER, "metric", BLACKHOLE_METRIC)

    def open_forward(self, bridge: str) -> None:
        """Let the machine reach the hosts through the engine's packet filter."""
        rule = ("DOCKER-USER", "-i", self.inner, "-o", bridge, "-j", "ACCEPT")
        enter = ("nsenter", f"--net=/run/netns/{self.namespace}", "iptables", "-w")
        known = run(*enter, "-S", "DOCKER-USER")
        if f"-A DOCKER-USER -i {self.inner} -o {bridge} -j ACCEPT" not in known:
            run(*enter, "-I", *rule)

    def down(self) -> None:
        """Take away all that `up` made; the blackhole stays while another lab uses it."""
        if Path("/sys/class/net", self.outer).exists():
            self._ip("link", "delete", self.outer)
        if self.exists():
            self._ip("netns", "delete", self.namespace)
        others = list(Path("/sys/class/net").glob("shiplab*u"))
        if not others and f"blackhole {WIDER}" in self._ip("route", "show"):
            self._ip("route", "delete", "blackhole", WIDER, "metric", BLACKHOLE_METRIC)


def set_conntrack_max(value: int) -> int:
    """Set the machine's limit of tracked connections and return the former one.

    kube-proxy may not write it inside a host, and does not where it is as wanted: 32768 a core, 131072 at least.
    """
    former = int(CONNTRACK.read_text())
    if former != value:
        CONNTRACK.write_text(str(value))
    return former
