"""The names that every host knows by its /etc/hosts: the other hosts, and the API's where that name is ours."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar
from urllib.parse import urlsplit

from shipway.edits.files import FileEdited
from shipway.edits.lines import hosts_file, read_block
from shipway.errors import Refused
from shipway.facts.files import FileState, FileText
from shipway.facts.services import UnitState
from shipway.host.session import Host
from shipway.ownership.evidence import ADMIN, JOINING, KUBECONFIGS, KUBELET_CONF, read_servers
from shipway.step import Drift, Impact
from shipway.steps.system.api_proxy import LOOPBACK, SERVICE

HOSTS = "/etc/hosts"


def api_names(block: Mapping[str, str], others: Collection[str], planes: Collection[str]) -> list[str]:
    """Return the names of our block by which the API is asked: they lead to the loopback or to control planes alone.

    `others` are names that are not meant: the hosts', and the endpoint's own where that is ours.
    """
    ways = {LOOPBACK, *planes}
    return [name for name, leads in block.items() if name not in others and set(leads.split()) <= ways]


@dataclass(frozen=True)
class HostsNamed:
    """/etc/hosts names every host in a block of ours, and the API by its name where the cluster has it by one.

    The name leads to a worker's proxy once that runs; until then to every control plane, which clients try one after
    the other (beside GPU pods no proxy is installed, for systemd would read its units anew). On a host of a cluster
    that was made with an address the name is left out: nothing there asks for it, by its kubeconfigs; once there it
    stays, whatever these are edited to. While a control plane joins, the line is the join's own: it leads to a control
    plane that serves already. A name of the API's that an endpoint before had stays on a host that has joined: whether
    somebody asks by it is known where the endpoint is moved alone.
    """

    impact: ClassVar[Impact] = Impact.FILES
    together: ClassVar[bool] = True
    path: ClassVar[str] = HOSTS
    id: ClassVar[str] = "FileEdited /etc/hosts"  # what it was repaired as before the API had a name
    entries: Mapping[str, str] = field(hash=False)
    api_name: str = ""
    api_address: str = ""
    planes: tuple[str, ...] = ()  # the control planes' addresses: where there is no proxy yet, the name leads to all
    always: bool = False  # though no kubeconfig has it yet: while the endpoint is moved to the name
    balancer: str = ""  # the name of the site's load balancer, where that is the endpoint
    name: str = "/etc/hosts names every host"

    async def _edit(self, on: Host) -> FileEdited:
        """Return the edit that this host takes now."""
        (text, configs, joining, _), proxy = await asyncio.gather(
            on.read(FileText(HOSTS), KUBECONFIGS, FileState(JOINING), FileState(HOSTS)),
            on.read(UnitState(f"{SERVICE}.service")),
        )
        entries, servers, there = dict(self.entries), read_servers(configs.stdout), read_block(text or "")
        asked = {urlsplit(servers[path]).hostname for path in (ADMIN, KUBELET_CONF) if path in servers}
        known = not asked or self.api_name in asked or self.api_name in there
        if self.api_name and (known or self.always):
            leads = there.get(self.api_name, "")
            entries[self.api_name] = self.api_address
            if joining:  # the name leads on where it leads, to a control plane
                entries[self.api_name] = leads if leads in self.planes else self.api_address
            elif self.api_address == LOOPBACK and proxy.active != "active" and leads != LOOPBACK:
                entries[self.api_name] = " ".join(self.planes)
        old = api_names(there, entries, self.planes) if asked else []
        if self.balancer in old:
            raise shadowed(self.balancer, on.name)
        entries |= {name: there[name] for name in old}
        want = f"{len(entries)} names in our block"
        return FileEdited(self.name, HOSTS, partial(hosts_file, entries=entries), want)

    async def check(self, on: Host) -> Drift | None:
        """See whether the edit would change anything."""
        edit, _, _ = await asyncio.gather(self._edit(on), on.read(FileText(HOSTS)), on.read(FileState(HOSTS)))
        return await edit.check(on)

    async def apply(self, on: Host) -> None:
        """Write the edited text, keeping mode and owner."""
        await (await self._edit(on)).apply(on)


def shadowed(name: str, host: str) -> Refused:
    """Say that a name of the load balancer's is one by which our own line leads."""
    message = f"{name} is the name by which our own line in /etc/hosts leads to the API, past a load balancer"
    fix = (
        "Give the load balancer another name in `api_endpoint` (certificates keep the old one), and run `shipway "
        "move-endpoint FILE`: where a name leads without our line cannot be seen while hosts ask by it."
    )
    return Refused(message, host=host, code="SHW-775", fix=fix)
