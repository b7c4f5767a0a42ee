"""Checks of where everything comes from: each source answers from each host, each manifest is the pinned one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlsplit

from shipway.errors import Permanent, Transient
from shipway.facts.commands import Says
from shipway.host import Host
from shipway.manifests import ForeignManifest
from shipway.step import Drift

UNREACHABLE = "000"
REFUSED = "403"
NO_CURL = 127
# Redirects are followed: packages and images come from networks behind the named address, and those refuse
# (kubernetes/k8s.io#7823). Silence must be told within the limit of one look, whatever the number of sources.
CURL = ("curl", "-sSL", "-o", "/dev/null", "--connect-timeout", "5", "--max-time", "10", "-w", "%{http_code}")
DIAL = 'exec 3<>"/dev/tcp/$0/$1"'  # bash itself opens the connection
# Only the host knows these parts of an address; asking for them first would cost a round trip.
FILLED = (
    '. /etc/os-release; u=${0//"{os}"/$ID}; u=${u//"{codename}"/$VERSION_CODENAME}; '
    'u=${u//"{arch}"/$(dpkg --print-architecture)}; exec "$@" "$u"'
)
# curl's exit status, in words that are the same on every host (its own hold milliseconds).
REASONS = {6: "its name is not known", 7: "connection refused", 28: "timed out", 35: "no TLS", 60: "its certificate"}


@dataclass(frozen=True)
class SourcesReachable:
    """Every source answers from this host; `urls` may hold {os}, {codename} and {arch}."""

    traps: ClassVar[tuple[int, ...]] = (8,)
    urls: tuple[str, ...]
    name: str = "every source can be reached"

    async def check(self, on: Host) -> Drift | None:
        """Ask each source once: any answer but 403 counts, for a mirror may lack what is asked for and have the rest.

        Raises Permanent (SHW-310) where one refuses this host, Transient (SHW-207) where one is silent.
        """
        answers = await on.read_all([Says(_asked(url)) for url in self.urls])
        if answers and answers[0].status == NO_CURL:
            return await self._connected(on)
        pairs = list(zip(self.urls, answers, strict=True))
        refused = [_base(url) for url, answer in pairs if answer.stdout.strip()[-3:] == REFUSED]
        silent = [
            f"{_base(url)} ({REASONS.get(answer.status, f'curl: {answer.status}')})"
            for url, answer in pairs
            if answer.stdout.strip()[-3:] in (UNREACHABLE, "")
        ]
        if refused:
            message = f"{', '.join(refused)} refuses this host's address (HTTP 403)"
            fix = "Name a mirror for it under `sources` in the cluster file; trying again does not help."
            raise Permanent(message, host=on.name, code="SHW-310", fix=fix)
        if silent:
            raise self._silence(on, silent)
        return None

    async def _connected(self, on: Host) -> Drift | None:
        """Tell by a bare TCP connection, on a host that has no curl yet."""
        ports = {_base(url): urlsplit(url).port or (443 if url.startswith("https") else 80) for url in self.urls}
        dial = ("bash", "-c", DIAL)
        tried = await on.read_all([Says((*dial, urlsplit(u).hostname or "", str(p)), 10) for u, p in ports.items()])
        silent = [url for url, answer in zip(ports, tried, strict=True) if not answer.ok]
        if silent:
            raise self._silence(on, silent)
        return None

    def _silence(self, on: Host, silent: list[str]) -> Transient:
        fix = "Check DNS, proxy and firewall of the host, or name a mirror under `sources`."
        return Transient(f"no answer from {', '.join(silent)}", host=on.name, code="SHW-207", fix=fix)


def _asked(url: str) -> tuple[str, ...]:
    """Give the command that asks for an address."""
    return ("bash", "-c", FILLED, url, *CURL) if "{" in url else (*CURL, url)


def _base(url: str) -> str:
    """Give scheme and host of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/"


@dataclass(frozen=True)
class ManifestsFetched:
    """Every manifest can be fetched from here and is the pinned one; what was fetched is kept for its stage."""

    manifests: Sequence[ForeignManifest]
    name: str = "every manifest is there and is the pinned one"

    async def check(self, on: Host) -> Drift | None:  # noqa: ARG002 - manifests come to the controller, not to a host
        """Fetch all at once; raises Refused (unreadable, another SHA-256) or Transient (download failed)."""
        fetched = await asyncio.gather(*(manifest.fetched() for manifest in self.manifests), return_exceptions=True)
        for result in fetched:  # the first of the list, so that a second try does not tell of another one
            if isinstance(result, BaseException):
                raise result
        return None
