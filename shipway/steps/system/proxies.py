"""Steps about the proxy of a site: apt and containerd go through the declared one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import urlsplit

from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText
from shipway.host.session import Host
from shipway.site.proxies import APT_CONF, ENVIRONMENT, as_environment_file, of_environment_file, stale
from shipway.step import Drift, Impact
from shipway.steps.system.files import FileIs

# apt itself says what holds after all of its files: /etc/apt/apt.conf is read after ours.
EFFECTIVE = Says(("apt-config", "shell", "http", "Acquire::http::Proxy", "https", "Acquire::https::Proxy"))


def without_password(url: str) -> str:
    """Return a proxy's address as it may be shown: no user, no password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else url


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
                told = f"a later file (/etc/apt/apt.conf?) says {without_password(have[scheme]) or 'none'} for {scheme}"
                return Drift(told, f"{without_password(want)} (take the other line out)")
        return None

    async def apply(self, on: Host) -> None:
        """Write our file."""
        await on.write(APT_CONF, self.content.encode(), mode="600")


@dataclass(frozen=True)
class ContainerdEnvironment:
    """containerd's environment file names the declared proxy and what goes around it; a restart makes it hold."""

    impact: ClassVar[Impact] = Impact.FILES
    together: ClassVar[bool] = True
    values: Mapping[str, str] = field(repr=False)
    needed: tuple[str, ...]
    name: str = "containerd's environment names the declared proxy"

    async def check(self, on: Host) -> Drift | None:
        """Compare the values and the mode; shows no password."""
        text, info = await on.read(FileText(ENVIRONMENT), FileState(ENVIRONMENT))
        shown = ", ".join(
            f"{name} {without_password(value)}" for name, value in self.values.items() if value[:4] == "http"
        )
        want = f"{shown}, with what goes around it, 600 root:root"
        if text is None or info is None:
            return Drift(f"no {ENVIRONMENT}", want)
        if (info.mode, info.owner) != ("600", "root:root"):
            return Drift(f"{info.mode} {info.owner}", want)
        have = of_environment_file(text)
        if not stale(have, self.values, self.needed):
            return None
        told = (f"{name} {without_password(have[name])}" for name in ("HTTP_PROXY", "HTTPS_PROXY") if name in have)
        return Drift(", ".join(told) or "no proxy", want)

    async def apply(self, on: Host) -> None:
        """Write the file; what restarts containerd is a step of its own."""
        await on.write(ENVIRONMENT, as_environment_file(self.values).encode(), mode="600")
