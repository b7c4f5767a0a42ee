"""A worker's own way to several control planes: a haproxy on its loopback, in a unit and a file of ours.

It passes TCP on and ends no TLS, so that each client sees for itself whose API server answers. What a site runs in
haproxy.service with /etc/haproxy/haproxy.cfg is never touched.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import ClassVar

from shipway.cluster.hosts import HostSpec, node_ip
from shipway.cluster.model import Cluster
from shipway.edits.files import FileIs
from shipway.errors import Permanent
from shipway.facts.files import FileState, Listing
from shipway.facts.services import UnitState
from shipway.facts.sockets import LISTENING, listeners
from shipway.host.session import Command, Host
from shipway.os.family import Family
from shipway.step import Check, Drift, Impact
from shipway.steps.system.loaded import is_loaded, restart
from shipway.steps.system.services import ServiceRuns

SERVICE = "shipway-api-proxy"
FOLDER = "/var/lib/shipway/api-proxy"
CONFIG = f"{FOLDER}/haproxy.cfg"
UNIT = f"/etc/systemd/system/{SERVICE}.service"
WANTED = Listing("/etc/systemd/system/multi-user.target.wants")
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


@dataclass(frozen=True)
class ProxyUnitRead:
    """systemd runs the proxy by its unit's file as it is; one that it never read is read when it is started.

    To let systemd read its files anew takes the device rights from running GPU containers
    (nvidia-container-toolkit#48): that is a service's impact. A proxy that runs goes on.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    unit: str = f"{SERVICE}.service"
    name: str = "systemd has read the unit of the proxy to the API"

    async def check(self, on: Host) -> Drift | None:
        """Ask systemd."""
        info = await on.read(UnitState(self.unit))
        return Drift("the file changed since", "read") if info.needs_reload else None

    async def apply(self, on: Host) -> None:
        """Let systemd read all of them."""
        await on.do(Command(("systemctl", "daemon-reload")))


@dataclass(frozen=True)
class ProxyEnabled:
    """The proxy starts with the host: by a link, which systemd need not read before the host is started again."""

    impact: ClassVar[Impact] = Impact.FILES
    unit: str = f"{SERVICE}.service"
    name: str = "the proxy to the API starts with the host"

    async def check(self, on: Host) -> Drift | None:
        """Look for the link."""
        return None if self.unit in await on.read(WANTED) else Drift("no link in multi-user.target.wants", "enabled")

    async def apply(self, on: Host) -> None:
        """Make it."""
        await on.do(Command(("systemctl", "enable", "--quiet", "--no-reload", self.unit), seconds=60))


@dataclass(frozen=True)
class ProxyRuns(ServiceRuns):
    """The proxy is active, wherever haproxy is installed: beside GPU pods it is not, and the step before says so."""

    family: Family = field(kw_only=True, hash=False)

    async def check(self, on: Host) -> Drift | None:
        """Ask systemd and the package manager."""
        drift, haproxy = await asyncio.gather(super().check(on), on.read(self.family.package("haproxy")))
        return drift if haproxy else None


@dataclass(frozen=True)
class ProxyLoaded:
    """The proxy passes on to the control planes of its file."""

    impact: ClassVar[Impact] = Impact.START  # haproxy keeps every connection over a reload
    path: ClassVar[str] = CONFIG
    name: str = "the proxy to the API runs its current configuration"

    async def check(self, on: Host) -> Drift | None:
        """Compare what was loaded with what the file holds; one that does not run reads it when it starts."""
        info, loaded = await asyncio.gather(
            on.read(UnitState(f"{SERVICE}.service")), is_loaded(on, SERVICE, (CONFIG,), same_second=True)
        )
        return None if loaded or info.active != "active" else Drift("an older one", "the file's")

    async def apply(self, on: Host) -> None:
        """Reload it, and keep what it loaded."""
        await restart(on, SERVICE, (CONFIG,), verb="reload")


def steps(cluster: Cluster, family: Family) -> list[Check[Host]]:
    """Return the steps of a worker, in order; the name leads to the proxy only once it runs."""
    return [
        family.installed("haproxy is installed", {"haproxy": None}, cluster.system.may_remove),
        FileIs("the proxy to the API knows every control plane", CONFIG, proxy_config(cluster)),
        FileIs("the proxy to the API is a service", UNIT, UNIT_TEXT),
        ProxyUnitRead(),
        ProxyEnabled(),
        ProxyRuns(SERVICE, family=family),
        ProxyLoaded(),
    ]


@dataclass(frozen=True)
class ProxyGone:
    """A worker of a cluster with one control plane has no proxy of ours: none is needed any more.

    systemd is not let read its files anew, which would take the device rights from running GPU containers; but what
    still asks by the proxy, as kube-proxy did, is mended by a restart before: so this is a service's impact too.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    unit: str = f"{SERVICE}.service"
    name: str = "no proxy to the API is left"

    async def check(self, on: Host) -> Drift | None:
        """Look for its unit."""
        return Drift(f"{UNIT} is there", "no such unit") if await on.read(FileState(UNIT)) else None

    async def apply(self, on: Host) -> None:
        """Stop it, and take away its unit and its file."""
        await on.do(
            Command(("systemctl", "stop", self.unit), seconds=60),
            Command(("systemctl", "disable", "--quiet", "--no-reload", self.unit), seconds=60),
            Command(("rm", "-rf", "--", UNIT, FOLDER)),
        )


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
