"""Who has the API's address for clients outside: nobody before ours are told of it, then one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from shipway.cluster.hosts import node_ip
from shipway.cluster.model import Cluster
from shipway.errors import Blocked, Refused, ShipwayError
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText
from shipway.facts.services import UnitState
from shipway.host.session import Host
from shipway.step import Drift
from shipway.steps.vip import keepalived, kube_vip
from shipway.steps.vip.network import holds
from shipway.survey.first_look import ADDRESSES

# Who takes it over waits three seconds for word of the one before (RFC 3768, Master_Down_Interval).
TRIES, PAUSE = 4, 2.0
# Whoever has an address answers ARP, whatever its firewall says: the packet to its discard port only asks for that. A
# neighbour that was known is asked anew, which takes the kernel up to 8 s (arp(7): delay_first_probe_time, 3 probes).
_ASK = (
    "for i in 1 2 3 4 5 6 7 8 9 10; do (echo >/dev/udp/$1/9) 2>/dev/null; sleep 1; "
    'said=$(ip -4 neigh show to "$1"); case $said in *REACHABLE*|*PERMANENT*) break;; *DELAY*|*PROBE*|*STALE*) ;; '
    '*) [ "$i" -lt 3 ] || break;; esac; done; printf "%s\\n" "$said"'
)


def neighbour(address: str) -> Says:
    """Return the fact of who answers for an address: `ip neigh`'s line, empty where no packet to it left the host."""
    return Says(("bash", "-c", _ASK, "bash", address), seconds=20)


def told(cluster: Cluster, config: str | None, pod: str | None) -> bool:
    """Say whether files of ours on a host, of either way, tell of the address that the cluster file has."""
    return keepalived.names_address(config, cluster.api_vip) or kube_vip.address_in(pod) == cluster.api_vip


async def told_otherwise(cluster: Cluster, planes: Sequence[Host]) -> bool:
    """Say whether a control plane is still told of another address or virtual router than the cluster file has."""

    async def ask(plane: Host) -> bool:
        plane.forget()
        try:
            config, pod = await plane.read(FileText(keepalived.CONFIG), FileText(kube_vip.KEPT))
        except ShipwayError:  # whether it answers is another check's
            return False
        wanted = f" virtual_router_id {keepalived.router_id(cluster)}\n"
        other = config is not None and wanted not in config
        return other or ((config is not None or pod is not None) and not told(cluster, config, pod))

    return any(await asyncio.gather(*(ask(plane) for plane in planes)))


async def _held_by_ours(on: Host, cluster: Cluster) -> bool:
    """Say whether a host holds the address by what is ours, be keepalived's file away."""
    texts = FileText(keepalived.CONFIG), FileText(kube_vip.KEPT)
    addresses, config, pod, unit = await on.read(ADDRESSES, *texts, UnitState(keepalived.OWN.unit))
    ours = told(cluster, config, pod) or (config is None and unit.active == "active")
    return ours and holds(addresses.stdout, cluster.api_vip)


@dataclass(frozen=True)
class VipOneWay:
    """No control plane holds the address in the other way: two ways know nothing of each other."""

    cluster: Cluster = field(hash=False)
    peers: tuple[Host, ...] = ()
    name: str = "the API's address for clients outside is held in one way"

    async def check(self, on: Host) -> Drift | None:
        """Look for the other way's file on each that answers. Raises Refused SHW-843 where one is there."""
        other, path = "keepalived", keepalived.CONFIG
        if not self.cluster.kube_vip_image:
            other, path = "kube-vip", kube_vip.KEPT

        async def has(one: Host) -> bool:
            try:
                return await one.read(FileState(path)) is not None
            except ShipwayError:  # whether it answers is another check's
                return False

        hosts = (on, *self.peers)
        found = await asyncio.gather(*(has(one) for one in hosts))
        there = [one.name for one, yes in zip(hosts, found, strict=True) if yes]
        if not there:
            return None
        fix = "Take kubernetes.api_vip out of the file and run a bootstrap, which takes it away; then name it again."
        message = f"{other} of ours is told of an address on {', '.join(there)}"
        raise Refused(message, host=on.name, code="SHW-843", fix=fix)


@dataclass(frozen=True)
class VipFree:
    """Nobody has the address that ours are to hold; what is asked only before this host is told of it."""

    cluster: Cluster = field(hash=False)
    peers: tuple[Host, ...] = ()
    name: str = "nobody else has the API's address for clients outside"

    async def check(self, on: Host) -> Drift | None:
        """Ask the network. Raises Refused SHW-840 where one that is not ours answers, Blocked where none is asked."""
        vip = self.cluster.api_vip
        texts = FileText(keepalived.CONFIG), FileText(kube_vip.KEPT)
        (mine, *own), ours = await asyncio.gather(on.read(ADDRESSES, *texts), _held_by_ours(on, self.cluster))
        if ours or told(self.cluster, *own):
            return None
        said = "this host itself" if holds(mine.stdout, vip) else (await on.read(neighbour(vip))).stdout.strip()
        if not said:
            message = f"whether somebody has {vip} cannot be determined: no packet to it leaves this host"
            fix = f"Let UDP to {vip} out (a firewall of the host?), then run again: who has it answers by ARP."
            raise Blocked(message, host=on.name, fix=fix)
        if "lladdr" not in said and said != "this host itself":
            return None
        asked = (_held_by_ours(one, self.cluster) for one in self.peers)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        if any(answer is True for answer in answers):
            return None
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer  # it may be that one's
        fix = f"Find who has {vip} (`ip neigh show to {vip}` shows its hardware), or name a free address in the file."
        message = f"{vip} is somebody's already ({said}), and is held by none of the control planes"
        raise Refused(message, host=on.name, code="SHW-840", fix=fix)


@dataclass(frozen=True)
class VipHeld:
    """One control plane holds the address; `planes` are their sessions."""

    cluster: Cluster = field(hash=False)
    planes: tuple[Host, ...] = field(hash=False)
    name: str = "one control plane holds the API's address for clients outside"

    async def check(self, on: object) -> Drift | None:
        """Ask each that answers; one that moves is given a moment."""
        del on
        holders = await self._holders()
        for _ in range(TRIES):
            if len(holders) == 1:
                return None
            await asyncio.sleep(PAUSE)
            holders = await self._holders()
        if len(holders) == 1 or (not holders and await self._by_one_that_leaves()):
            return None
        address, by_pod = self.cluster.api_vip, bool(self.cluster.kube_vip_image)
        see = f"`crictl ps -a --name {kube_vip.POD}`" if by_pod else f"`journalctl -u {keepalived.SERVICE}`"
        hear = f"the Lease {kube_vip.POD} is one's" if by_pod else "they hear each other by IP protocol 112"
        want = f"held by one whose API server is ready ({see if not holders else hear})"
        return Drift(f"{address} is held by {' and '.join(holders) or 'none'}", want)

    async def _by_one_that_leaves(self) -> bool:
        """Say whether one has it that the file does not name any more: a peer until it is removed, or by the Lease."""

        async def ask(plane: Host) -> bool:
            try:
                there = await self._leaving_by(plane)
                return there and "lladdr" in (await plane.read(neighbour(self.cluster.api_vip))).stdout
            except ShipwayError:  # whether it answers is another check's
                return False

        return any(await asyncio.gather(*(ask(plane) for plane in self.planes)))

    async def _leaving_by(self, plane: Host) -> bool:
        """Say whether a control plane tells of one that the file does not name, and that may hold the address."""
        planes = self.cluster.control_planes
        if self.cluster.kube_vip_image:
            said = await plane.read(kube_vip.LEASE)
            return said.ok and said.stdout.strip() not in ("", *(one.name for one in planes))
        peers = keepalived.peers_in(await plane.read(FileText(keepalived.CONFIG)))
        return not {keepalived.NOBODY, *(node_ip(one) for one in planes)}.issuperset(peers)

    async def _holders(self) -> list[str]:
        async def ask(plane: Host) -> bool:
            plane.forget()
            try:
                return holds((await plane.read(ADDRESSES)).stdout, self.cluster.api_vip)
            except ShipwayError:  # whether it answers is another check's
                return False

        answers = await asyncio.gather(*(ask(plane) for plane in self.planes))
        return [plane.name for plane, yes in zip(self.planes, answers, strict=True) if yes]
