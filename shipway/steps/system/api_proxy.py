"""A worker's own way to several control planes: a haproxy on its loopback, in a unit and a file of ours.

It passes TCP on and ends no TLS, so that each client sees for itself whose API server answers. What a site runs in
haproxy.service with /etc/haproxy/haproxy.cfg is never touched.
"""

from __future__ import annotations

from dataclasses import dataclass

from shipway.cluster.hosts import HostSpec, node_ip
from shipway.cluster.model import Cluster
from shipway.edits.files import FileIs
from shipway.errors import Permanent
from shipway.facts.services import UnitState
from shipway.facts.sockets import LISTENING, listeners
from shipway.host.session import Host
from shipway.os.family import Family
from shipway.step import Check, Drift
from shipway.steps.system.own_service import OwnService, own_service

SERVICE = "shipway-api-proxy"
FOLDER = "/var/lib/shipway/api-proxy"
CONFIG = f"{FOLDER}/haproxy.cfg"
LOOPBACK = "127.0.0.1"
CHECKS_A_SECOND = 200  # most that all workers together ask of one API server
TAKING = (LOOPBACK, "0.0.0.0", "*", "[::]")  # noqa: S104 - as ss shows what takes the port of the loopback
UNIT_TEXT = f"""# Kept by Shipway.
[Unit]
Description=This host's way to the control planes of its Kubernetes cluster
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
RuntimeDirectory={SERVICE}
ExecStartPre=/usr/sbin/haproxy -c -q -f {CONFIG}
ExecStart=/usr/sbin/haproxy -Ws -f {CONFIG} -p /run/{SERVICE}/haproxy.pid
ExecReload=/usr/sbin/haproxy -c -q -f {CONFIG}
ExecReload=/bin/kill -USR2 $MAINPID
KillMode=mixed
SuccessExitStatus=143
Restart=always
RestartSec=1
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
"""
OWN = OwnService("haproxy", SERVICE, FOLDER, CONFIG, UNIT_TEXT, "the proxy to the API")


def proxy_config(cluster: Cluster) -> str:
    """Return haproxy's file: every control plane of the cluster file, each used while its API server says it is ready.

    A connection that is idle for ten minutes is none that a kubelet watches by: the API server sends a bookmark each
    minute (Kubernetes documentation, "Watch bookmarks"). An API server that lets nobody ask without a name says 401 or
    403: it lives, and that is all that can be learnt. One that is lost takes its connections with it at once, so that
    clients connect anew instead of waiting for packets. The more workers there are, the more rarely each of them asks,
    for each question is a TLS handshake; a connection that fails is followed by quick ones.
    """
    every = max(1, -(-len(cluster.workers) // CHECKS_A_SECOND))
    port = cluster.kubernetes.api_port
    servers = [f"    server {host.name} {node_ip(host)}:{port}" for host in cluster.control_planes]
    return f"""# Kept by Shipway: {cluster.api_name} leads here, and from here to every control plane.
global
    user haproxy
    group haproxy
    maxconn 8192

defaults
    mode tcp
    timeout connect 1s
    timeout client 10m
    timeout server 10m
    timeout check 1s
    retries 3
    option redispatch 1

frontend api
    bind {LOOPBACK}:{port}
    default_backend control_planes

backend control_planes
    balance roundrobin
    option httpchk GET /readyz
    http-check expect rstatus ^(200|401|403)$
    default-server check check-ssl verify none inter {every}s fastinter 500ms fall 2 rise 2
    default-server observe layer4 error-limit 1 on-error fastinter on-marked-down shutdown-sessions
{chr(10).join(servers)}
"""


def address_for(cluster: Cluster, host: HostSpec) -> str:
    """Return the address that the API's name has on a host: its own API server, its proxy, or the one control plane."""
    if "control_plane" in host.roles:
        return node_ip(host)
    return LOOPBACK if cluster.proxies_api else node_ip(cluster.control_planes[0])


def steps(cluster: Cluster, family: Family) -> list[Check[Host]]:
    """Return the steps of a worker, in order; the name leads to the proxy only once it runs."""
    told = FileIs("the proxy to the API knows every control plane", CONFIG, proxy_config(cluster))
    return own_service(OWN, family, cluster.system.may_remove, [told])


@dataclass(frozen=True)
class ProxyPortFree:
    """Nobody else holds the port of the proxy on a worker's loopback."""

    port: int
    name: str = "the port of the proxy to the API is free"

    async def check(self, on: Host) -> Drift | None:
        """List listening sockets; our own proxy may have it. Raises Permanent SHW-763: no other program is ended."""
        sockets, ours = await on.read(LISTENING, UnitState(f"{SERVICE}.service"))
        if ours.active == "active":
            return None
        for one in listeners(sockets.stdout):
            if one.port == self.port and one.address in TAKING:
                fix = "Stop it, or name another `kubernetes.api_port` before the cluster is made, then run again."
                where = f"{one.address}:{one.port}, where this host's way to the control planes begins"
                message = f"{one.owner or 'an unknown program'} listens on {where}"
                raise Permanent(message, host=on.name, code="SHW-763", fix=fix)
        return None
