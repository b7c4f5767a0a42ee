"""Checks of where everything comes from: each source answers from each host, each manifest is the pinned one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlsplit

from shipway.errors import Permanent, Transient
from shipway.facts.commands import Says
from shipway.facts.files import FileText
from shipway.host.session import Host
from shipway.kube.manifests import ForeignManifest
from shipway.os.family import Family
from shipway.script import Output
from shipway.step import Drift

UNREACHABLE = "000"
REFUSED = "403"
NO_CURL = 127
# Redirects are followed: packages and images come from networks behind the named address, and those refuse
# (kubernetes/k8s.io#7823). Silence must be noticed within the limit of one look, whatever the number of sources.
# A proxy's answer to CONNECT stands before the source's own.
WRITTEN = "%{http_connect} %{http_code}"
CURL = ("curl", "-sSL", "-o", "/dev/null", "--connect-timeout", "5", "--max-time", "10", "-w", WRITTEN)
DIAL = 'exec 3<>"/dev/tcp/$0/$1"'  # bash itself opens the connection
# Only the host knows some parts of an address, and the proxies that its own programs go through: asking for them first
# would cost a round trip. $0 is the address, $1 who fetches from there, then curl with its options.
# `@FETCHER@`: what fetches packages, as it says itself.
# `containerd`: the environment that containerd runs with; before it runs, what systemd has for it in files.
# `direct`, or a proxy's address: as declared. The session's own environment is nobody's: services do not have it.
# A password of the host's own proxy travels in curl's environment, which nobody else may read.
_ASK = r"""
. /etc/os-release; u=${0//"{os}"/$ID}; u=${u//"{codename}"/$VERSION_CODENAME}
u=${u//"{release}"/${VERSION_ID//./}}
case $u in *"{machine}"*)
  case $(uname -m) in x86_64) m=x86_64;; aarch64) m=sbsa;; *) m=;; esac; u=${u//"{machine}"/$m};;
esac
case $u in *"{arch}"*) u=${u//"{arch}"/$(@ARCHITECTURE@)};; esac
who=$1; shift
unset http_proxy https_proxy no_proxy all_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY
s=${u%%:*}; h=${u#*://}; h=${h%%[/:]*}; p=
case $who in
direct) ;;
@FETCHER@)@PROXY@;;
containerd)
  pid=$(systemctl show -p MainPID --value containerd.service 2>/dev/null)
  if [ "${pid:-0}" -gt 0 ]; then e=$(tr '\0' '\n' <"/proc/$pid/environ")
  else
    d=/etc/systemd/system/containerd.service.d
    e=$(sed -n 's/^[[:space:]]*Environment=//p' "$d"/*.conf 2>/dev/null | xargs -n 1 2>/dev/null | sed 's/%%/%/g')
    f=$(sed -n 's/^[[:space:]]*EnvironmentFile=-\{0,1\}//p' "$d"/*.conf 2>/dev/null)
    for file in $f; do e=$e$'\n'$(sed 's/^\([^=]*=\)"\(.*\)"$/\1\2/' "$file" 2>/dev/null); done
  fi
  while IFS="=" read -r k v; do
    case ${k,,} in http_proxy|https_proxy|no_proxy) [ -z "$v" ] || export "${k,,}=$v";; esac
  done <<<"$e";;
*) export http_proxy=$who https_proxy=$who;;
esac
exec "$@" "$u"
"""
# curl's exit status, in words that are the same on every host (its own hold milliseconds).
REASONS = {
    5: "the proxy's name is not known",
    6: "its name is not known",
    7: "connection refused",
    28: "timed out",
    35: "no TLS",
    60: "its certificate",
}
PROXY_ASKS = "407"
ENVIRONMENT = FileText("/etc/environment")


@dataclass(frozen=True)
class Source:
    """An address to ask for; the placeholders that only a host can fill in are left in.

    `by` says who will fetch from there, and so by whose proxy it is asked: `containerd`, or what fetches packages;
    where the cluster file declares a proxy, that address, or `direct`. An `own_ca` is not on the host yet: the question
    is only whether somebody answers, and containerd, who is given the authority, checks the certificate at every pull.
    """

    url: str
    by: str = "direct"
    own_ca: bool = False


@dataclass(frozen=True)
class SourcesReachable:
    """Every source answers from this host, by the way that its packages and images will come.

    `password` says that the cluster file has a user and password for the proxy: they are not sent for a question.
    """

    traps: ClassVar[tuple[int, ...]] = (8,)
    sources: tuple[Source, ...]
    family: Family
    password: bool = False
    name: str = "every source can be reached"

    async def check(self, on: Host) -> Drift | None:
        """Ask each source once: any answer but 403 counts, for a mirror may lack what is asked for and have the rest.

        Raises Permanent where one refuses this host (SHW-310) or the proxy does (SHW-351), Transient (SHW-207) where
        one is silent.
        """
        answers, environment = await asyncio.gather(
            on.read_all([Says(ask_command(source, self.family)) for source in self.sources]), on.read(ENVIRONMENT)
        )
        if answers and answers[0].status == NO_CURL:
            return await self._connected(on)
        pairs = list(zip(self.sources, answers, strict=True))
        refused = [_base(source.url) for source, answer in pairs if _codes(answer)[1] == REFUSED]
        kept_out = [(source, _codes(answer)) for source, answer in pairs if self._kept_out(*_codes(answer))]
        silent = [
            f"{_base(source.url)} ({REASONS.get(answer.status, f'curl: {answer.status}')}{_way(source)})"
            for source, answer in pairs
            if _codes(answer)[1] in (UNREACHABLE, "") and PROXY_ASKS not in _codes(answer)
        ]
        if kept_out:
            raise _by_the_proxy(on, kept_out)
        if refused:
            message = f"{', '.join(refused)} refuses this host's address (HTTP 403)"
            fix = "Name a mirror for it under `sources` in the cluster file; trying again does not help."
            raise Permanent(message, host=on.name, code="SHW-310", fix=fix)
        if silent:
            raise self._silence(on, silent, environment or "")
        return None

    def _kept_out(self, connect: str, code: str) -> bool:
        """Tell whether a proxy let a question not through: by its answer to CONNECT, or by asking who is there."""
        asks = PROXY_ASKS in (connect, code)
        return (asks and not self.password) or (code == UNREACHABLE and connect == REFUSED)

    async def _connected(self, on: Host) -> Drift | None:
        """Tell by a bare TCP connection, on a host that has no curl yet: to the source, or to the declared proxy."""
        ways = {_base(source.url): source.by if "://" in source.by else source.url for source in self.sources}
        ports = {base: urlsplit(way).port or (443 if way.startswith("https") else 80) for base, way in ways.items()}
        dial = ("bash", "-c", DIAL)
        tried = await on.read_all(
            [Says((*dial, urlsplit(ways[b]).hostname or "", str(p)), 10) for b, p in ports.items()]
        )
        silent = [url for url, answer in zip(ports, tried, strict=True) if not answer.ok]
        if silent:
            raise self._silence(on, silent, "")
        return None

    def _silence(self, on: Host, silent: list[str], environment: str) -> Transient:
        fix = "Check DNS, proxy and firewall of the host, or name a mirror under `sources`."
        named = any(line.strip().lower().startswith(("http_proxy", "https_proxy")) for line in environment.splitlines())
        if named and all(source.by in (self.family.fetcher, "containerd") for source in self.sources):
            fix = (
                "/etc/environment names a proxy there, which services do not read: declare it as `proxy` in the "
                f"cluster file, so that {self.family.fetcher} and containerd go through it."
            )
        return Transient(f"no answer from {', '.join(silent)}", host=on.name, code="SHW-207", fix=fix)


def _codes(answer: Output) -> tuple[str, str]:
    """Return the proxy's answer to CONNECT and the source's own, each of three digits; 000 is none."""
    connect, _, code = answer.stdout.strip().rpartition(" ")
    return connect[-3:] or UNREACHABLE, code[-3:]


def _way(source: Source) -> str:
    return f", by {source.by}" if "://" in source.by else ""


def _by_the_proxy(on: Host, kept_out: Sequence[tuple[Source, tuple[str, str]]]) -> Permanent:
    """Return the error of a proxy that lets this host, or this address, not through."""
    names = ", ".join(_base(source.url) for source, _ in kept_out)
    if any(PROXY_ASKS in codes for _, codes in kept_out):
        message = f"the proxy asks for a user and a password on the way to {names} (HTTP 407)"
        fix = "Name a file of mode 0600 with USER:PASSWORD as `proxy.credentials` in the cluster file."
    else:
        message = f"the proxy refuses the way to {names} (HTTP 403)"
        fix = "Have the proxy allow it, put it into `proxy.no_proxy`, or name a mirror under `sources`."
    return Permanent(message, host=on.name, code="SHW-351", fix=fix)


def script_of(family: Family) -> str:
    """Return the script that asks for an address on a host of this family."""
    parts = {"@FETCHER@": family.fetcher, "@PROXY@": family.fetcher_proxy, "@ARCHITECTURE@": family.own_architecture}
    script = _ASK
    for name, value in parts.items():
        script = script.replace(name, value)
    return script


def ask_command(source: Source, family: Family) -> tuple[str, ...]:
    """Return the command that asks for an address."""
    return ("bash", "-c", script_of(family), source.url, source.by, *CURL, *(["-k"] if source.own_ca else []))


def _base(url: str) -> str:
    """Return scheme and host of a URL."""
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
