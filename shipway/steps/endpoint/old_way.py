"""The way to the API that an endpoint before had on a host: names in our block, and the proxy. Both go unused, or stay.

Only `shipway move-endpoint` takes a name away: no other run knows whether somebody asks by it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar
from urllib.parse import urlsplit

from shipway.edits.files import FileEdited
from shipway.edits.lines import hosts_file, read_block
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText
from shipway.host.session import Host
from shipway.step import Drift, Impact
from shipway.steps.endpoint.kubeconfigs import LOOPBACK, KubeletAsks
from shipway.steps.system import api_proxy
from shipway.steps.system.names import HOSTS, api_names
from shipway.steps.system.own_service import OwnGone, OwnService

# Of each kubeconfig that people and programs have on a host only the lines of its servers are read.
SERVERS = Says(
    ("sh", "-c", "grep -HsE '^[ -]*server:' /etc/kubernetes/*.conf /root/.kube/config /home/*/.kube/config; exit 0")
)
STILL = "the kubelet was not started since its kubelet.conf was changed"


def connected(port: int) -> Says:
    """Return the fact of who is connected to a port of the host's loopback."""
    return Says(("ss", "-Htnp", "state", "established", "dst", f"{api_proxy.LOOPBACK}:{port}"))


def find_asking(said: str, hosts: Collection[str], port: int = 0) -> list[str]:
    """Return the kubeconfigs that name one of these hosts as their server (and that port), as grep lists the lines."""
    found = []
    for line in said.splitlines():
        path, _, rest = line.partition(":")
        words = rest.replace('"', " ").replace("'", " ").split()
        try:
            server = urlsplit(words[-1] if words else "")
            if server.hostname in hosts and port in (0, server.port):
                found.append(path)
        except ValueError:
            continue
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class OldNamesGone:
    """Our block of /etc/hosts has no name of the API's but the endpoint's own; one that is asked by stays.

    `hosts` are the names of the hosts, `planes` the control planes' addresses, `used` says of a name which objects of
    the cluster have it.
    """

    impact: ClassVar[Impact] = Impact.FILES
    id: ClassVar[str] = f"OldNamesGone {HOSTS}"
    hosts: tuple[str, ...] = field(hash=False)
    planes: tuple[str, ...] = field(hash=False)
    api_name: str
    used: Mapping[str, str] = field(default_factory=dict, hash=False)
    name: str = "/etc/hosts has no name of an endpoint before"

    async def _old(self, on: Host) -> tuple[list[str], str]:
        """Return the names that are to go, and who still asks by one; "" for nobody."""
        text, said = await on.read(FileText(HOSTS), SERVERS)
        old = api_names(read_block(text or ""), (*self.hosts, self.api_name), self.planes)
        if not old:
            return [], ""
        asking = [f"{path} asks by it" for path in find_asking(said.stdout, old)]
        others = [f"{self.used[name]} name it" for name in old if name in self.used]
        kubelet = [STILL] if await KubeletAsks().check(on) else []
        return old, "; ".join([*asking, *others, *kubelet])

    async def check(self, on: Host) -> Drift | None:
        """Look for such names."""
        old, why = await self._old(on)
        return Drift(f"{', '.join(old)}{f': {why}' if why else ''}", "gone once nobody asks by it") if old else None

    async def hold(self, on: Host) -> str:
        """Return who still asks by one."""
        return (await self._old(on))[1]

    async def apply(self, on: Host) -> None:
        """Take them out of our block; every other line stays."""
        old, _ = await self._old(on)
        text = await on.read(FileText(HOSTS))
        left = {name: leads for name, leads in read_block(text or "").items() if name not in old}
        await FileEdited(self.name, HOSTS, partial(hosts_file, entries=left), "gone").apply(on)


@dataclass(frozen=True)
class ProxyGone(OwnGone):
    """Nothing is left of a worker's proxy, for the endpoint is the site's; one that somebody asks by stays."""

    own: OwnService = field(default=api_proxy.OWN)
    port: int = 6443

    async def check(self, on: Host) -> Drift | None:
        """Look for its unit, and who asks by it."""
        if not await on.read(FileState(self.own.path)):
            return None
        why = await self.hold(on)
        return Drift(f"{self.own.path} is there{f': {why}' if why else ''}", "no such unit, once nobody asks by it")

    async def hold(self, on: Host) -> str:
        """Return who still asks by it: by a name of our block, a kubeconfig, or a connection that stands."""
        text, said, there = await on.read(FileText(HOSTS), SERVERS, connected(self.port))
        names = [name for name, leads in read_block(text or "").items() if api_proxy.LOOPBACK in leads.split()]
        whys = [f"{name} leads to it" for name in names]
        whys += [f"{path} asks by it" for path in find_asking(said.stdout, LOOPBACK, self.port)]
        whys += [f"{who} is connected" for who in _programs(there.stdout)]
        whys += [STILL] if await KubeletAsks().check(on) else []
        return "; ".join(whys)


def _programs(said: str) -> list[str]:
    """Return the programs at this end of connections, as ss lists them: `... users:(("kubelet",pid=7,fd=3))`."""
    found = []
    for line in said.splitlines():
        program = line.partition('users:(("')[2].partition('"')[0]
        found.append(program or "a program")
    return list(dict.fromkeys(found))
