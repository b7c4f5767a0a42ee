"""The API's address for clients outside: a keepalived on each control plane, in a unit and files of ours.

One of those whose own API server is ready holds it. No node needs it: each has a way of its own by the API's name. What
a site runs in keepalived.service with /etc/keepalived is never touched.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import ClassVar

from shipway.cluster.hosts import HostSpec, node_ip
from shipway.cluster.model import Cluster
from shipway.edits.files import FileIs
from shipway.errors import Permanent, Refused, ShipwayError
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText
from shipway.host.session import Host
from shipway.os.family import Family
from shipway.step import Check, Drift, Impact
from shipway.steps.system.own_service import OwnGone, OwnService, own_service
from shipway.survey.first_look import ADDRESSES

SERVICE = "shipway-api-vip"
FOLDER = "/var/lib/shipway/api-vip"
CONFIG, READY = f"{FOLDER}/keepalived.conf", f"{FOLDER}/ready"
UNIT_TEXT = f"""# Kept by Shipway.
[Unit]
Description=The address of this Kubernetes cluster's API for clients outside
Wants=network-online.target
After=network-online.target

[Service]
RuntimeDirectory={SERVICE}
ExecStart=/usr/sbin/keepalived --dont-fork --log-console --vrrp -f {CONFIG} -p /run/{SERVICE}/keepalived.pid \\
  -r /run/{SERVICE}/vrrp.pid
ExecReload=/bin/kill -HUP $MAINPID
KillMode=mixed
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
"""
OWN = OwnService("keepalived", SERVICE, FOLDER, CONFIG, UNIT_TEXT, "the API's address for clients outside")
TRIES, PAUSE = (
    4,
    2.0,
)  # who takes it over waits three seconds for word of the one before (RFC 3768, Master_Down_Interval)
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


def ready_script(port: int) -> str:
    """Return the program that keepalived asks whether this host may hold the address, with its words.

    An API server that lets nobody ask without a name says 401 or 403: it lives.
    """
    return (
        "#!/bin/sh\n# Kept by Shipway: whether the API server of this host is ready.\n"
        "said=$(curl -sk --noproxy '*' --max-time 2 -o /dev/null -w '%{http_code}' "
        f"https://127.0.0.1:{port}/readyz)\n"
        "case $said in 200|401|403) exit 0;; *) exit 1;; esac\n"
    )


def router_id(cluster: Cluster) -> int:
    """Return the number of the virtual router: as declared, else the last number of the address (1 for 0)."""
    vip = cluster.kubernetes.api_vip
    declared = vip.router_id if vip else None
    return declared or int(IPv4Address(cluster.api_vip)) % 256 or 1


def config_of(cluster: Cluster, host: HostSpec, interface: str) -> str:
    """Return keepalived's file on a control plane: unicast to the others, nobody takes the address from who has it.

    The one that stands first in the file begins, where all start at once. Packets of others than the peers are not
    heard (vrrp_check_unicast_src), so that no other virtual router of the network is taken for one of these.
    """
    planes = cluster.control_planes
    peers = "\n".join(f"        {node_ip(one)}" for one in planes if one != host)
    unicast = f"    unicast_peer {{\n{peers}\n    }}\n" if peers else ""
    return f"""# Kept by Shipway: the control plane whose API server is ready holds {cluster.api_vip}.
global_defs {{
    router_id {host.name}
    script_user root
    enable_script_security
    vrrp_check_unicast_src
    vrrp_garp_master_refresh 60
}}

vrrp_script api {{
    script "{READY}"
    interval 1
    timeout 3
    fall 2
    rise 2
}}

vrrp_instance api {{
    state BACKUP
    nopreempt
    interface {interface}
    virtual_router_id {router_id(cluster)}
    priority {150 - planes.index(host)}
    advert_int 1
    unicast_src_ip {node_ip(host)}
{unicast}    virtual_ipaddress {{
        {cluster.api_vip}/32
    }}
    track_script {{
        api
    }}
}}
"""


def interfaces_of(said: str) -> dict[str, str]:
    """Return interface by address with its prefix (`10.0.0.11/24`), from `ip -o -4 addr show`."""
    words = [line.split() for line in said.splitlines()]
    return {one[3]: one[1] for one in words if len(one) > 3 and one[2] == "inet" and _network(one[3])}  # noqa: PLR2004 - index, name, family, address


def _network(text: str) -> IPv4Network | None:
    try:
        return IPv4Interface(text).network
    except ValueError:
        return None


def holds(said: str, address: str) -> bool:
    """Say whether a host has an address on one of its interfaces."""
    return any(one.partition("/")[0] == address for one in interfaces_of(said))


def _names(config: str | None, address: str) -> bool:
    """Say whether a file of ours tells keepalived of an address."""
    return f" {address}/32\n" in (config or "")


@dataclass(frozen=True)
class VipFree:
    """Nobody has the address that ours are to hold; what is asked only before this host is told of it."""

    cluster: Cluster = field(hash=False)
    peers: tuple[Host, ...] = ()
    name: str = "nobody else has the API's address for clients outside"

    async def check(self, on: Host) -> Drift | None:
        """Ask the network. Raises Refused SHW-790 where somebody answers who is none of ours."""
        vip = self.cluster.api_vip
        mine, told = await asyncio.gather(on.read(ADDRESSES), on.read(FileText(CONFIG)))
        if _names(told, vip):
            return None
        said = "this host itself" if holds(mine.stdout, vip) else (await on.read(neighbour(vip))).stdout.strip()
        if not said or ("lladdr" not in said and said != "this host itself"):
            return None
        asked = (peer.read(ADDRESSES, FileText(CONFIG)) for peer in self.peers)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            if not isinstance(answer, BaseException) and holds(answer[0].stdout, vip) and _names(answer[1], vip):
                return None
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer  # it may be that one's
        fix = f"Find who has {vip} (`ip neigh show to {vip}` shows its hardware), or name a free address in the file."
        message = f"{vip} is somebody's already ({said}), and is held by none of the control planes"
        raise Refused(message, host=on.name, code="SHW-790", fix=fix)


@dataclass(frozen=True)
class VipInNetwork:
    """The address lies in a network that the host is in."""

    cluster: Cluster = field(hash=False)
    host: HostSpec = field(hash=False)
    name: str = "the API's address for clients outside lies in a network of this host"

    async def check(self, on: Host) -> Drift | None:
        """List the host's addresses; raises as `interface`."""
        self.interface((await on.read(ADDRESSES)).stdout, on.name)
        return None

    def interface(self, said: str, host: str) -> str:
        """Return the interface of the network that the address lies in. Raises Permanent SHW-791 where none has it."""
        vip = self.cluster.kubernetes.api_vip
        wanted = vip.interface if vip else None
        address = IPv4Address(self.cluster.api_vip)
        found = {
            name: one
            for one, name in interfaces_of(said).items()
            if (network := _network(one)) and network.num_addresses > 1 and address in network  # of one: it is held
        }
        own = next((name for name, one in found.items() if one.partition("/")[0] == node_ip(self.host)), "")
        chosen = (own or next(iter(found), "")) if wanted is None else wanted if wanted in found else ""
        if chosen:
            return chosen
        there = ", ".join(f"{name} {one}" for one, name in interfaces_of(said).items() if not one.startswith("127."))
        which = f"the network of {wanted}" if wanted else "a network of this host"
        message = f"{self.cluster.api_vip} does not lie in {which} (it has {there or 'none'})"
        fix = "Name an address of a network that every control plane is in (kubernetes.api_vip), or the interface."
        raise Permanent(message, host=host, code="SHW-791", fix=fix)


@dataclass(frozen=True)
class VipConfigured:
    """keepalived's file names the interface of the network that the address lies in, and the other control planes."""

    impact: ClassVar[Impact] = Impact.FILES
    path: ClassVar[str] = CONFIG
    cluster: Cluster = field(hash=False)
    host: HostSpec = field(hash=False)
    name: str = "keepalived is told of the API's address"

    async def _file(self, on: Host) -> FileIs:
        where = VipInNetwork(self.cluster, self.host).interface((await on.read(ADDRESSES)).stdout, on.name)
        return FileIs(self.name, CONFIG, config_of(self.cluster, self.host, where), mode="600")

    async def check(self, on: Host) -> Drift | None:
        """Compare the file with what it is to be on this host."""
        (made, _) = await asyncio.gather(self._file(on), on.read(FileState(CONFIG)))
        return await made.check(on)

    async def apply(self, on: Host) -> None:
        """Put the file in place."""
        await (await self._file(on)).apply(on)


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
        have = f"held by {' and '.join(holders)}" if holders else "held by none"
        return (
            Drift(f"{self.address} is {have}", "held by one whose API server is ready") if len(holders) != 1 else None
        )

    async def _holders(self) -> list[str]:
        async def ask(plane: Host) -> bool:
            plane.forget()
            try:
                return holds((await plane.read(ADDRESSES)).stdout, self.address)
            except ShipwayError:  # whether it answers is another check's
                return False

        answers = await asyncio.gather(*(ask(plane) for plane in self.planes))
        return [plane.name for plane, yes in zip(self.planes, answers, strict=True) if yes]


def may_hold(cluster: Cluster, host: HostSpec, peers: tuple[Host, ...]) -> list[Check[Host]]:
    """Return what is asked of a control plane before anything is done there; nothing where there is no such address."""
    return [VipFree(cluster, peers), VipInNetwork(cluster, host)] if cluster.api_vip else []


def steps(cluster: Cluster, host: HostSpec, family: Family) -> list[Check[Host]]:
    """Return the steps of a control plane; where there is no such address nothing of it is left."""
    if not cluster.api_vip:
        return [OwnGone(OWN)]
    ready = ready_script(cluster.kubernetes.api_port)
    files: list[Check[Host]] = [
        FileIs("keepalived asks whether the API server of this host is ready", READY, ready, mode="755"),
        VipConfigured(cluster, host),
    ]
    return own_service(OWN, family, cluster.system.may_remove, files)
