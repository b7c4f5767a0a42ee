"""The pod network, off a host: its files, interfaces, namespaces, routes, and chains; nothing of the site's own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from typing import ClassVar

from shipway.facts.commands import Says
from shipway.facts.files import Listing
from shipway.host.session import OPERATIONS, Command, Host
from shipway.step import Drift, Impact
from shipway.steps.kubernetes.leftovers import CHAINS, INTERFACES, LINKS, without_chains
from shipway.steps.reset.kubelet import few
from shipway.survey.first_look import ADDRESSES

CNI = "/etc/cni/net.d"
# Networks that other programs keep in the same folder: podman's package, and what `nerdctl network create` writes.
OTHERS_NETWORKS = re.compile(r"\..*|.*podman.*|nerdctl-.*|.*\.lock")
SHARED_CHAINS = "CNI-"  # of CNI's own plugins, whoever calls them
# What plugins keep of a cluster's pods on a host: addresses given out, the node's name, the subnet.
STATE = ("/var/lib/cni/results", "/var/lib/cni/flannel", "/var/lib/calico", "/run/calico", "/run/flannel")
LEASES = "/var/lib/cni/networks"  # a folder by network
VETH = re.compile(r"cali[0-9a-f]{11}|flannel(?:-v6)?\.\d+|wg-v6\.cali|cilium_(?:host|net|vxlan)")
NETNS = "/run/netns"
TUNNEL = "tunl0"  # the kernel's own, which Calico uses for IP-in-IP: it cannot be deleted, only left as it was
ROUTES = Says(("ip", "-4", "route", "show"))
PROGRAMS = tuple(f"ip{six}tables{kind}" for six in ("", "6") for kind in ("", "-legacy", "-nft"))
RULES = f"{OPERATIONS}/without-chains"
NFT_TABLES = Says(("nft", "list", "tables"))
OWN_TABLES = ("kube-proxy", "calico")
SETS = Says(("ipset", "list", "-n"))
OWN_SETS = re.compile(r"KUBE-.*|cali[46]0.*")


def own_networks(names: Sequence[str]) -> list[str]:
    """Return the names in a folder of CNI's that no other program is known to keep there."""
    return [name for name in names if not OTHERS_NETWORKS.fullmatch(name)]


@dataclass(frozen=True)
class CniGone:
    """No configuration and no state of a pod network is left; the folder stays, for containerd watches it."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    name: str = "no pod network is configured"

    async def _left(self, on: Host) -> list[str]:
        (names, leases), folders = await asyncio.gather(
            on.read(Listing(CNI), Listing(LEASES)), on.read_all([Listing(path) for path in STATE])
        )
        left = [f"{CNI}/{name}" for name in own_networks(names)]
        left += [f"{LEASES}/{name}" for name in own_networks(leases)]
        return left + [path for path, held in zip(STATE, folders, strict=True) if held]

    async def check(self, on: Host) -> Drift | None:
        """List what is there."""
        left = await self._left(on)
        return Drift(few(left), "none of it") if left else None

    async def apply(self, on: Host) -> None:
        """Remove it."""
        await on.do(Command(("rm", "-rf", "--one-file-system", "--", *await self._left(on))))


@dataclass(frozen=True)
class NamespacesGone:
    """No network namespace of a pod is left; one in which a process lives is somebody's, and stays."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    name: str = "no network namespace of a pod is left"

    async def _left(self, on: Host) -> list[str]:
        names = [name for name in await on.read(Listing(NETNS)) if name.startswith("cni-")]
        lives = await on.read_all([Says(("ip", "netns", "pids", name)) for name in names])
        return [name for name, pids in zip(names, lives, strict=True) if pids.ok and not pids.stdout.strip()]

    async def check(self, on: Host) -> Drift | None:
        """List those of the kubelet's sandboxes, and who lives in each."""
        left = await self._left(on)
        return Drift(few(left), "none") if left else None

    async def apply(self, on: Host) -> None:
        """Delete them."""
        await on.do(*(Command(("ip", "netns", "delete", name)) for name in await self._left(on)))


def _within(text: str, network: IPv4Network) -> bool:
    """Say whether an address or a network is inside of another one, and not all of it."""
    try:
        inner = ip_network(text, strict=False)
    except ValueError:
        return False
    return isinstance(inner, IPv4Network) and inner.subnet_of(network) and inner != network


def pod_routes(shown: str, network: IPv4Network) -> list[list[str]]:
    """Return the words that name each route to a part of the pod network: `10.244.1.0/24`, `blackhole 10.244.3.0/26`.

    A route to all of it is a site's own: a node has one for each other node's part.
    """
    found = []
    for line in shown.splitlines():
        words = line.split()
        kind = words[:1] if words[:1] in (["blackhole"], ["unreachable"], ["prohibit"]) else []
        if words[len(kind) :] and _within(words[len(kind)], network):
            found.append([*kind, words[len(kind)]])
    return found


@dataclass(frozen=True)
class LinksGone:
    """No interface of a pod network is left, and no route into it; the kernel's own tunnel is as it was."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    network: IPv4Network
    name: str = "no interface of a pod network is left, and no route into it"

    async def _left(self, on: Host) -> tuple[list[str], bool, list[list[str]]]:
        names, addresses, routes = await on.read(INTERFACES, ADDRESSES, ROUTES)
        links = [name for name in names if name in LINKS or VETH.fullmatch(name)]
        fields = [line.split() for line in addresses.stdout.splitlines()]
        tunnel = any(
            one[1] == TUNNEL and _within(one[3], self.network)
            for one in fields
            if len(one) > 3  # noqa: PLR2004 - index, name, family, address
        )
        return links, tunnel, pod_routes(routes.stdout, self.network)

    async def check(self, on: Host) -> Drift | None:
        """Look at interfaces, addresses and routes."""
        links, tunnel, routes = await self._left(on)
        have = [*links, *([TUNNEL] if tunnel else []), *(f"route {' '.join(one)}" for one in routes)]
        return Drift(few(have), "none") if have else None

    async def apply(self, on: Host) -> None:
        """Delete the interfaces, take the tunnel's address away, then delete what routes are left."""
        links, tunnel, _ = await self._left(on)
        if "kube-ipvs0" in links:  # only kube-proxy's mode ipvs makes it: then the table of services is kube-proxy's
            await on.do(Command(("sh", "-c", "! command -v ipvsadm >/dev/null || ipvsadm -C")))
        quiet = (Command(("ip", "addr", "flush", "dev", TUNNEL)), Command(("ip", "link", "set", TUNNEL, "down")))
        commands = [*(Command(("ip", "link", "delete", name)) for name in links), *(quiet if tunnel else ())]
        if commands:
            await on.do(*commands)
        on.forget()
        if routes := (await self._left(on))[2]:
            await on.do(*(Command(("ip", "-4", "route", "delete", *one)) for one in routes))


@dataclass(frozen=True)
class RulesGone:
    """No chain, table or set of kube-proxy's and Calico's is left, and no jump to one; every other rule stays."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    name: str = "no packet filter rule of kube-proxy or a pod network is left"

    async def _chains(self, on: Host) -> dict[str, str]:
        """Return by program what it must read to be rid of our chains; iptables and its two kinds may be the same.

        Chains of CNI's own plugins stay where another program keeps a network of its own.
        """
        saved, names = await asyncio.gather(
            on.read_all([Says((f"{program}-save",)) for program in PROGRAMS]), on.read(Listing(CNI))
        )
        shared = any(not name.startswith(".") for name in set(names) - set(own_networks(names)))
        prefixes = tuple(prefix for prefix in CHAINS if not shared or prefix != SHARED_CHAINS)
        undoing = {
            program: without_chains(output.stdout, prefixes)
            for program, output in zip(PROGRAMS, saved, strict=True)
            if output.ok
        }
        return {program: text for program, text in undoing.items() if text}

    async def _beside(self, on: Host) -> tuple[list[list[str]], list[str]]:
        """Return nftables' tables as family and name, and the sets, that are theirs."""
        tables, sets = await on.read(NFT_TABLES, SETS)
        words = [line.split()[1:] for line in tables.stdout.splitlines()] if tables.ok else []
        own = [one for one in words if len(one) == 2 and one[1] in OWN_TABLES]  # noqa: PLR2004 - family, name
        return own, [name for name in sets.stdout.split() if sets.ok and OWN_SETS.fullmatch(name)]

    async def check(self, on: Host) -> Drift | None:
        """Let each packet filter that is there show its rules."""
        chains, (tables, sets) = await asyncio.gather(self._chains(on), self._beside(on))
        count = {program: text.count("\n-X ") for program, text in chains.items()}
        have = [f"{count[program]} chains ({program})" for program in chains]
        have += [f"table {' '.join(one)}" for one in tables] + [f"set {name}" for name in sets]
        return Drift(few(have), "none") if have else None

    async def apply(self, on: Host) -> None:
        """Remove them one packet filter after the other, each in one transaction of its own."""
        for program in PROGRAMS:
            on.forget()
            if text := (await self._chains(on)).get(program, ""):
                await on.write(RULES, text.encode(), mode="600")
                await on.do(
                    Command((f"{program}-restore", "--noflush", RULES), seconds=120), Command(("rm", "-f", RULES))
                )
        tables, sets = await self._beside(on)
        if commands := [
            *(Command(("nft", "delete", "table", *one)) for one in tables),
            *(Command(("ipset", "destroy", name)) for name in sets),
        ]:
            await on.do(*commands)
