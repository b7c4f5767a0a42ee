"""Whether a host's kubelet still reaches the API once a control plane has left, whatever it asks by.

A kubelet reads its kubelet.conf when it starts. So one whose restart was withheld when the endpoint was moved asks by
an endpoint before, which nothing on the host names any more: where it is connected to tells more than its files.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from shipway.edits.lines import read_block
from shipway.facts.commands import Says
from shipway.facts.files import FileText
from shipway.foreign.addresses import as_address
from shipway.host.session import Host
from shipway.ownership.evidence import KUBECONFIGS, KUBELET_CONF, read_servers
from shipway.steps.endpoint.kubeconfigs import LOOPBACK, KubeletAsks
from shipway.steps.system import api_proxy
from shipway.steps.system.names import HOSTS, READ

_PROXIED = re.compile(r"^ *server \S+ (\S+):\d+$", re.MULTILINE)


def connections(*ports: int) -> Says:
    """Return the fact of the connections to these ports of whatever address, with the programs that have them."""
    words = [word for port in dict.fromkeys(ports) for word in ("or", "dport", "=", f":{port}")]
    return Says(("ss", "-Htnp", "state", "established", "(", *words[1:], ")"))


def resolved(name: str) -> Says:
    """Return the fact of the addresses that a name has on the host."""
    return Says(("getent", "ahosts", "--", name))


@dataclass(frozen=True)
class Ways:
    """What is known of a cluster's ways to its API when a control plane leaves it.

    `gone` are the addresses of that one and of those that do not serve, `stay` of those that do. `endpoint` is the host
    of the endpoint, which leads on without it. `follows` says that this is a name of ours: those of endpoints before
    follow it, but for the names of `hosts`. `proxied` says that workers keep a proxy, which is told of it.
    """

    gone: frozenset[str]
    stay: frozenset[str]
    endpoint: str
    ports: tuple[int, ...]
    follows: bool = False
    proxied: bool = False
    hosts: frozenset[str] = frozenset()


async def find_lost(on: Host, ways: Ways) -> str:
    """Return by what the kubelet of a host asks the API that goes with the control plane; "" where it keeps a way.

    What cannot be told is told as such, and is no way. Raises the errors of reading from the host.
    """
    (text, configs, proxy, there), stale = await asyncio.gather(
        on.read(FileText(HOSTS), KUBECONFIGS, FileText(api_proxy.CONFIG), connections(*ways.ports)),
        KubeletAsks().check(on),
    )
    if configs.status not in READ:
        return "where its kubelet.conf leads could not be read"
    server = read_servers(configs.stdout).get(KUBELET_CONF, "")
    if not server:
        return ""  # no node of a cluster yet
    passes_on = bool(ways.stay & set(_PROXIED.findall(proxy or "")))
    if stale:
        return _by_connection(there.stdout if there.ok else "", ways, passes_on=passes_on)
    try:
        asked = urlsplit(server).hostname or ""
    except ValueError:
        asked = ""
    if as_address(asked) is None and asked not in (*LOOPBACK, ways.endpoint):
        return await _by_name(on, asked, ways, read_block(text or ""), passes_on=passes_on)
    if asked in LOOPBACK:
        passes_on = ways.proxied or (passes_on and not ways.follows)  # without several, a name of ours needs no proxy
    return _said(f"kubelet.conf leads to {asked}", {asked}, ways, passes_on=passes_on)


def _by_connection(said: str, ways: Ways, *, passes_on: bool) -> str:
    """Judge a kubelet that was not started since its kubelet.conf was changed, by where it is connected to."""
    stale = "its kubelet was not started since the endpoint was moved"
    peers = {_address(line.split()[3].rpartition(":")[0]) for line in said.splitlines() if '(("kubelet"' in line}
    if not peers:
        return f"{stale}, and what it asks could not be told"
    follows = passes_on or ways.follows  # by a name of ours, which leads on
    lost = (_said(f"{stale}, and is connected to {one}", {one}, ways, passes_on=follows) for one in sorted(peers))
    return next(filter(None, lost), "")


async def _by_name(on: Host, name: str, ways: Ways, block: Mapping[str, str], *, passes_on: bool) -> str:
    """Judge a kubelet that asks by a name which is not the endpoint's own."""
    leads = set(block.get(name, "").split())
    if ways.follows and name not in ways.hosts and leads & {*LOOPBACK, *ways.gone, *ways.stay}:
        return ""
    if not leads:
        found = (await on.read(resolved(name))).stdout
        leads = {line.split()[0] for line in found.splitlines() if line.split()}
    if not leads:
        return f"kubelet.conf leads to {name}, and where that leads could not be told"
    said = f"kubelet.conf leads to {name}, which is {', '.join(sorted(leads))} there"
    return _said(said, leads, ways, passes_on=passes_on)


def _said(said: str, leads: set[str], ways: Ways, *, passes_on: bool) -> str:
    """Return what is said of a way by these addresses where none of them leads on."""
    gone = {*ways.gone, *(() if passes_on else LOOPBACK)}
    return "" if leads - gone else said


def _address(said: str) -> str:
    """Return an address as ss shows it in the way that others are written."""
    try:
        found = ip_address(said.strip("[]").partition("%")[0])
    except ValueError:
        return said
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)
