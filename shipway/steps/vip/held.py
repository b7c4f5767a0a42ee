"""Who has the API's address for clients outside: nobody before ours are told of it, then one of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from shipway.cluster.model import Cluster
from shipway.errors import Refused, ShipwayError
from shipway.facts.commands import Says
from shipway.facts.files import FileText
from shipway.host.session import Host
from shipway.step import Drift
from shipway.steps.vip.keepalived import CONFIG, held_by_ours, names_address
from shipway.steps.vip.network import holds
from shipway.survey.first_look import ADDRESSES

# Who takes it over waits three seconds for word of the one before (RFC 3768, Master_Down_Interval).
TRIES, PAUSE = 4, 2.0
# Whoever has an address answers ARP, whatever its firewall says: the packet to its discard port only asks for that. A
# neighbour that was known is asked anew, which takes the kernel up to 8 s (arp(7): delay_first_probe_time, 3 probes).
_ASK = (
    "for i in 1 2 3 4 5 6 7 8 9 10; do (: >/dev/udp/$1/9) 2>/dev/null; sleep 1; "
    'said=$(ip -4 neigh show to "$1"); case $said in *REACHABLE*|*PERMANENT*) break;; *DELAY*|*PROBE*|*STALE*) ;; '
    '*) [ "$i" -lt 3 ] || break;; esac; done; printf "%s\\n" "$said"'
)


def neighbour(address: str) -> Says:
    """Return the fact of who answers for an address on the host's network: `ip neigh`'s line, empty for nobody."""
    return Says(("bash", "-c", _ASK, "bash", address), seconds=20)


@dataclass(frozen=True)
class VipFree:
    """Nobody has the address that ours are to hold; what is asked only before this host is told of it."""

    cluster: Cluster = field(hash=False)
    peers: tuple[Host, ...] = ()
    name: str = "nobody else has the API's address for clients outside"

    async def check(self, on: Host) -> Drift | None:
        """Ask the network. Raises Refused SHW-790 where somebody answers who is none of ours."""
        vip = self.cluster.api_vip
        told, mine, ours = await asyncio.gather(on.read(FileText(CONFIG)), on.read(ADDRESSES), held_by_ours(on, vip))
        if names_address(told, vip) or ours:
            return None
        said = "this host itself" if holds(mine.stdout, vip) else (await on.read(neighbour(vip))).stdout.strip()
        if not said or ("lladdr" not in said and said != "this host itself"):
            return None
        answers = await asyncio.gather(*(held_by_ours(one, vip) for one in self.peers), return_exceptions=True)
        if any(answer is True for answer in answers):
            return None
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer  # it may be that one's
        fix = f"Find who has {vip} (`ip neigh show to {vip}` shows its hardware), or name a free address in the file."
        message = f"{vip} is somebody's already ({said}), and is held by none of the control planes"
        raise Refused(message, host=on.name, code="SHW-790", fix=fix)


@dataclass(frozen=True)
class VipHeld:
    """One control plane holds the address; `planes` are their sessions."""

    address: str
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
        if len(holders) == 1:
            return None
        want = "held by one whose API server is ready"
        if not holders:
            return Drift(f"{self.address} is held by none", want)
        have = f"{self.address} is held by {' and '.join(holders)}"
        return Drift(have, f"{want}; they hear each other (IP protocol 112) where no firewall is between them")

    async def _holders(self) -> list[str]:
        async def ask(plane: Host) -> bool:
            plane.forget()
            try:
                return holds((await plane.read(ADDRESSES)).stdout, self.address)
            except ShipwayError:  # whether it answers is another check's
                return False

        answers = await asyncio.gather(*(ask(plane) for plane in self.planes))
        return [plane.name for plane, yes in zip(self.planes, answers, strict=True) if yes]
