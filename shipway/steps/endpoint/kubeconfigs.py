"""The kubeconfigs that kubeadm wrote on a host lead where they are to, and its kubelet was started since.

Of each only the line of its server is changed, on the host: no key is read. Which server each has is kubeadm's own
choice (app/phases/kubeconfig): admin.conf and super-admin.conf the endpoint, controller-manager.conf and scheduler.conf
the host's own API server since 1.20 (kubernetes#94398), kubelet.conf the endpoint, and from 1.33 on a control plane its
own API server (ControlPlaneKubeletLocalMode).
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlsplit

from shipway.cluster.model import Cluster, node_ip
from shipway.cluster.parts import HostSpec
from shipway.errors import Blocked, Permanent
from shipway.facts.commands import Says
from shipway.facts.services import UnitState
from shipway.host.session import Command, Host
from shipway.kubeadm.writes import ETC
from shipway.ownership.evidence import ADMIN, KUBELET_CONF, address_of
from shipway.step import Drift, Impact
from shipway.steps.kubernetes.health import KUBELET_FILES
from shipway.steps.system.loaded import is_loaded, restart
from shipway.steps.system.names import READ

SUPER_ADMIN, MANAGER, SCHEDULER = (f"{ETC}/{name}.conf" for name in ("super-admin", "controller-manager", "scheduler"))
FILES = (ADMIN, SUPER_ADMIN, MANAGER, SCHEDULER, KUBELET_CONF)
SERVERS = Says(("grep", "-HsE", "^[ -]*server:", *FILES))
_LINE = re.compile(r"[ -]*server: *[\"']?([^\"'\s]*)")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LOCAL_MODE = (1, 33)  # from this minor on the kubelet of a control plane asks its own API server
# When the server in kubelet.conf was changed, and to what: a kubelet that was started before asks the old one.
MARK = "/var/lib/shipway/kubelet-asks"
# $1 the file, $2 sed's words, $3 the mark ("" for none), $4 what it says. Written before as well: whoever is cut off in
# between leaves a mark behind, and a kubelet that is started once more than it need be.
EDIT = """
set -eu
umask 077
mark() { [ -z "$1" ] || { install -d -m 700 -- "${1%/*}"; printf '%s\\n' "$2" > "$1"; }; }
mark "$3" "$4"
sed -e "$2" -- "$1" > "$1.shipway-new"
chown --reference="$1" -- "$1.shipway-new"
chmod --reference="$1" -- "$1.shipway-new"
mv -fT -- "$1.shipway-new" "$1"
mark "$3" "$4"
"""


def leads_to(cluster: Cluster, host: HostSpec) -> dict[str, tuple[str, ...]]:
    """Return by kubeconfig the `host:port` that it may lead to on a host; the first is what one is given that does not.

    One that a person pointed at the loopback is not looked at: it names no other host.
    """
    name, own = cluster.endpoint, f"{node_ip(host)}:{cluster.kubernetes.api_port}"
    if host not in cluster.control_planes:
        return {KUBELET_CONF: (name,)}
    local = (own, name)
    kubelet = local if cluster.kubernetes.minor >= LOCAL_MODE else (name,)
    return {ADMIN: (name,), SUPER_ADMIN: (name,), MANAGER: local, SCHEDULER: local, KUBELET_CONF: kubelet}


@dataclass(frozen=True)
class KubeconfigLeads:
    """A kubeconfig leads to the endpoint, or to the API server on its own host where kubeadm means it to."""

    impact: ClassVar[Impact] = Impact.FILES
    together: ClassVar[bool] = True
    path: str
    allowed: tuple[str, ...]

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.path} leads to {self.allowed[0]}"

    async def _server(self, on: Host) -> str:
        """Return the server that is to be replaced; "" for none.

        Raises Permanent SHW-773 where it names several, Blocked where the files could not be read.
        """
        read = await on.read(SERVERS)
        if read.status not in READ:
            raise Blocked("where the kubeconfigs lead could not be read", host=on.name, fix=f"See {ETC} on {on.name}.")
        said = read.stdout.splitlines()
        own = [line.removeprefix(f"{self.path}:") for line in said if line.startswith(f"{self.path}:")]
        servers = {match[1] for line in own if (match := _LINE.match(line))}
        if len(servers) > 1:
            fix = f"Leave this cluster alone in it, or point its `server` to https://{self.allowed[0]}, then run again."
            raise Permanent(f"{self.path} names several servers", host=on.name, code="SHW-773", fix=fix)
        server = next(iter(servers), "")
        fine = not server or address_of(server) in self.allowed or urlsplit(server).hostname in LOOPBACK
        return "" if fine else server

    async def check(self, on: Host) -> Drift | None:
        """Read its server; one that is not there leads nowhere else."""
        server = await self._server(on)
        return Drift(server, f"https://{self.allowed[0]}") if server else None

    async def apply(self, on: Host) -> None:
        """Put the new server in the place of the old one; of a kubelet's it is marked when that was."""
        old = re.sub(r"([].[*^$\\|])", r"\\\1", await self._server(on))
        new = f"https://{self.allowed[0]}"
        words = f"s|^\\([ -]*server: *\\)[\"']\\{{0,1\\}}{old}[\"']\\{{0,1\\}} *$|\\1{new}|"
        mark = MARK if self.path == KUBELET_CONF else ""
        await on.do(Command(("sh", "-c", EDIT, "sh", self.path, words, mark, new)))


@dataclass(frozen=True)
class KubeletAsks:
    """The kubelet was started since the server in its kubelet.conf was changed: it reads that when it starts."""

    impact: ClassVar[Impact] = Impact.SERVICE
    restarts: ClassVar[str] = "kubelet"
    name: str = "the kubelet asks the API where its kubelet.conf leads"

    async def check(self, on: Host) -> Drift | None:
        """Compare its start with the mark; one that does not run reads its file when it starts."""
        info, loaded = await asyncio.gather(
            on.read(UnitState("kubelet.service")), is_loaded(on, "kubelet", (MARK,), same_second=False)
        )
        return None if loaded or info.active != "active" else Drift("started before that was changed", "started since")

    async def apply(self, on: Host) -> None:
        """Restart it: its pods go on."""
        await restart(on, "kubelet", (*KUBELET_FILES, MARK))
