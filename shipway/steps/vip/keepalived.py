"""The API's address for clients outside by a keepalived on each control plane, in a unit and files of ours.

One of those whose own API server is ready holds it. No node needs it: each has a way of its own by the API's name. What
a site runs in keepalived.service with /etc/keepalived is never touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import ClassVar

from shipway.cluster.hosts import HostSpec, node_ip
from shipway.cluster.model import Cluster
from shipway.edits.files import FileIs
from shipway.errors import Blocked, ShipwayError
from shipway.facts.files import FileState, FileText
from shipway.host.session import Host
from shipway.kubeadm.writes import PKI
from shipway.os.family import Family
from shipway.step import Check, Drift, Impact
from shipway.steps.kubernetes.etcd_members import members_of
from shipway.steps.system.own_service import OwnService, own_service
from shipway.steps.vip.network import Interfaces, VipInNetwork, network_of
from shipway.survey.first_look import ADDRESSES

SERVICE = "shipway-api-vip"
FOLDER = "/var/lib/shipway/api-vip"
CONFIG, READY, LEFT = (f"{FOLDER}/{name}" for name in ("keepalived.conf", "ready", "left"))
NOBODY = "127.0.0.1"  # the peer of one that has none: without any keepalived falls back to multicast, which others hear
UNIT_TEXT = f"""# Kept by Shipway.
[Unit]
Description=The address of this Kubernetes cluster's API for clients outside
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
RuntimeDirectory={SERVICE}
ExecStart=/usr/sbin/keepalived --dont-fork --log-console --vrrp -f {CONFIG} -p /run/{SERVICE}/keepalived.pid \\
  -r /run/{SERVICE}/vrrp.pid
ExecReload=/bin/kill -HUP $MAINPID
ExecStopPost=-{LEFT}
KillMode=mixed
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
"""
OWN = OwnService("keepalived", SERVICE, FOLDER, CONFIG, UNIT_TEXT, "the API's address for clients outside")
CLIENT = f"{PKI}/apiserver-kubelet-client"


def ready_script(port: int) -> str:
    """Return the program that keepalived asks whether this host may hold the address, with its words.

    It asks by the API server's own client certificate, for one may let nobody ask without a name. Where that is not
    taken, 401 and 403 say that it lives, and that is all that can be learnt.
    """
    return f"""#!/bin/sh
# Kept by Shipway: whether the API server of this host is ready.
own={CLIENT}
[ -r "$own.crt" ] && [ -r "$own.key" ] && set -- --cert "$own.crt" --key "$own.key"
said=$(curl -sk --noproxy '*' --max-time 2 -o /dev/null -w '%{{http_code}}' "$@" https://127.0.0.1:{port}/readyz)
case $said in 200|401|403) exit 0;; *) exit 1;; esac
"""


def left_script(address: str) -> str:
    """Return the program that systemd runs once keepalived has ended: one that was killed leaves the address there."""
    return f"""#!/bin/sh
# Kept by Shipway: the address goes with the keepalived that held it, however that ended.
ip -o -4 addr show to {address}/32 | while read -r _ interface _; do ip addr del {address}/32 dev "$interface"; done
"""


def router_id(cluster: Cluster) -> int:
    """Return the number of the virtual router: as declared, else the last number of the address (1 for 0)."""
    vip = cluster.kubernetes.api_vip
    declared = vip.router_id if vip else None
    return declared or int(IPv4Address(cluster.api_vip)) % 256 or 1


def config_of(cluster: Cluster, host: HostSpec, on: Interfaces, beside: Sequence[str] = ()) -> str:
    """Return keepalived's file on a control plane: unicast to the others, nobody takes the address from who has it.

    Where all start at once, the one that stands first in the file mostly begins. Packets of others than peers are not
    heard (vrrp_check_unicast_src), so that no other virtual router of the network is taken for one of these. They hear
    each other where their own addresses are: over another interface the packets would be dropped on their way back, and
    each would hold it. `beside` are addresses of control planes that the file does not name any more.
    """
    planes = cluster.control_planes
    addresses = [*(node_ip(one) for one in planes if one != host), *beside] or [NOBODY]
    peers = "\n".join(f"        {one}" for one in addresses)
    tracked = f"    track_interface {{\n        {on.outside}\n    }}\n" if on.outside != on.own else ""
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
    interface {on.own}
    virtual_router_id {router_id(cluster)}
    priority {150 - planes.index(host)}
    advert_int 1
    unicast_src_ip {node_ip(host)}
    unicast_peer {{
{peers}
    }}
{tracked}    virtual_ipaddress {{
        {cluster.api_vip}/32 dev {on.outside}
    }}
    track_script {{
        api
    }}
}}
"""


def names_address(config: str | None, address: str) -> bool:
    """Say whether a file of ours tells keepalived of an address."""
    return f" {address}/32 dev " in (config or "")


def peers_in(config: str | None) -> list[str]:
    """Return the addresses that a file of ours names as peers."""
    _, _, after = (config or "").partition("unicast_peer {")
    return [word for word in after.partition("}")[0].split() if network_of(word)]


@dataclass(frozen=True)
class VipConfigured:
    """keepalived's file names the interfaces, and the other control planes; `peers` are their sessions.

    Two that do not name each other would both hold the address. So one that the file does not name any more stays a
    peer while it is a member of etcd; and none is told of the address before those that hold it name it as a peer.
    """

    impact: ClassVar[Impact] = Impact.FILES
    path: ClassVar[str] = CONFIG
    cluster: Cluster = field(hash=False)
    host: HostSpec = field(hash=False)
    peers: tuple[Host, ...] = field(default=(), hash=False)
    name: str = "keepalived is told of the API's address"

    async def _file(self, on: Host) -> FileIs:
        addresses, told = await asyncio.gather(on.read(ADDRESSES), on.read(FileText(CONFIG)))
        where = VipInNetwork(self.cluster, self.host).interfaces(addresses.stdout, on.name)
        declared = {NOBODY, *(node_ip(one) for one in self.cluster.control_planes)}
        more = [one for one in peers_in(told) if one not in declared]
        staying = await self._staying(on, more) if more else []
        return FileIs(self.name, CONFIG, config_of(self.cluster, self.host, where, staying), mode="600")

    async def _staying(self, on: Host, addresses: Sequence[str]) -> list[str]:
        """Return which of them are members of etcd still; all, where it does not say."""
        try:
            members = {one.address for one in await members_of(on)}
        except ShipwayError:
            return list(addresses)
        return [one for one in addresses if one in members]

    async def check(self, on: Host) -> Drift | None:
        """Compare the file with what it is to be on this host."""
        (made, _) = await asyncio.gather(self._file(on), on.read(FileState(CONFIG)))
        return await made.check(on)

    async def apply(self, on: Host) -> None:
        """Put the file in place. Raises Blocked where another control plane would not hear of this one."""
        for peer in self.peers:
            peer.forget()
            try:
                told = await peer.read(FileText(CONFIG))
            except ShipwayError:  # what does not answer is told of by other checks
                continue
            if names_address(told, self.cluster.api_vip) and node_ip(self.host) not in peers_in(told):
                fix = "Run a bootstrap of all hosts: those that have joined are told first."
                message = f"{peer.name} would not hear of this host, and both would hold {self.cluster.api_vip}"
                raise Blocked(message, host=on.name, fix=fix)
        await (await self._file(on)).apply(on)


def steps(cluster: Cluster, host: HostSpec, family: Family, peers: tuple[Host, ...]) -> list[Check[Host]]:
    """Return the steps of a control plane, in order; `peers` are the sessions of the others."""
    ready = ready_script(cluster.kubernetes.api_port)
    files: list[Check[Host]] = [
        FileIs("keepalived asks whether the API server of this host is ready", READY, ready, mode="755"),
        FileIs("the API's address is held by no keepalived that ended", LEFT, left_script(cluster.api_vip), mode="755"),
        VipConfigured(cluster, host, peers),
    ]
    return own_service(OWN, family, cluster.system.may_remove, files)
