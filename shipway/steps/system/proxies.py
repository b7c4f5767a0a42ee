"""Steps about the proxy of a site: containerd goes through the declared one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from shipway.facts.files import FileState, FileText
from shipway.host.session import Host
from shipway.site.proxies import ENVIRONMENT, as_environment_file, of_environment_file, stale, without_password
from shipway.step import Drift, Impact


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
        said = (f"{name} {without_password(have[name])}" for name in ("HTTP_PROXY", "HTTPS_PROXY") if name in have)
        return Drift(", ".join(said) or "no proxy", want)

    async def apply(self, on: Host) -> None:
        """Write the file; what restarts containerd is a step of its own."""
        await on.write(ENVIRONMENT, as_environment_file(self.values).encode(), mode="600")
