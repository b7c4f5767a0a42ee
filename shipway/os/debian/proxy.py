"""The declared proxy as apt has it, and the step that brings it about."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import urlsplit

from shipway.cluster.model import Cluster
from shipway.edits.files import FileIs
from shipway.facts.commands import Says
from shipway.facts.files import FileState
from shipway.host.session import Host
from shipway.site.proxies import direct, no_proxy, with_password, without_password
from shipway.step import Drift, Impact

# Read after all other files of the folder; /etc/apt/apt.conf alone is read later still (apt.conf(5), "FILES").
APT_CONF = "/etc/apt/apt.conf.d/99zz-shipway-proxy"
# apt itself says what holds after all of its files: /etc/apt/apt.conf is read after ours.
EFFECTIVE = Says(("apt-config", "shell", "http", "Acquire::http::Proxy", "https", "Acquire::https::Proxy"))


def apt_conf(cluster: Cluster) -> str:
    """Return apt's configuration: the proxy, and by name each host that goes around it.

    apt takes whole host names here, no networks and no beginnings: so each host of the declared sources is
    listed. Raises Refused (SHW-352) where the credentials cannot be had.
    """
    proxy = cluster.proxy
    repositories = [*cluster.sources.apt.values(), *filter(None, [cluster.sources.base_apt])]
    urls = [url for item in repositories for url in (item.uri, item.key.url) if url]
    names = [urlsplit(url).hostname or "" for url in urls]
    around = [name for name in names if direct(name, no_proxy(cluster))]
    around += [word for word in proxy.no_proxy if re.fullmatch(r"[a-z0-9][a-z0-9.-]*", word)]
    lines = ["// Kept by Shipway: the proxy that packages come through."]
    for scheme, url in (("http", proxy.http), ("https", proxy.for_https)):
        lines.append(f'Acquire::{scheme}::Proxy "{with_password(cluster, url) or "DIRECT"}";')
        lines += [f'Acquire::{scheme}::Proxy::{name} "DIRECT";' for name in dict.fromkeys(around)]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class AptThroughProxy:
    """apt has the declared proxy, by its own word: our file is there, and no later one says otherwise."""

    impact: ClassVar[Impact] = Impact.FILES
    content: str = field(repr=False)
    name: str = "apt goes through the declared proxy"

    async def check(self, on: Host) -> Drift | None:
        """Compare the file, and what apt makes of all its files; shows no password."""
        info, said = await on.read(FileState(APT_CONF), EFFECTIVE)
        if wrong := FileIs(self.name, APT_CONF, self.content, "600").drift(info):
            return wrong
        wanted = dict(re.findall(r'^Acquire::(https?)::Proxy "(.*)";$', self.content, re.MULTILINE))
        pairs = (word.partition("=") for word in shlex.split(said.stdout)) if said.ok else ()
        have = {name: value for name, _, value in pairs}
        for scheme, want in wanted.items():
            if said.ok and have.get(scheme, want) != want:
                have_later = (
                    f"a later file (/etc/apt/apt.conf?) says {without_password(have[scheme]) or 'none'} for {scheme}"
                )
                return Drift(have_later, f"{without_password(want)} (take the other line out)")
        return None

    async def apply(self, on: Host) -> None:
        """Write our file."""
        await on.write(APT_CONF, self.content.encode(), mode="600")
