"""Checks of what really runs on a host that has joined, whatever its files say, and who changed it.

What belongs to somebody else (a drop-in of the administrator's, a line of the site's) is reported with its place and
the command that undoes it; it is never undone.
"""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from shipway.edits.containerd import CONFIG
from shipway.errors import Blocked
from shipway.facts.commands import Says
from shipway.facts.files import FileText, Listing
from shipway.foreign.yaml import read_yaml
from shipway.host.session import Host
from shipway.kubeadm.writes import KUBELET_FLAGS, MANIFESTS, OTHERS
from shipway.step import Drift
from shipway.survey.notices import PLAIN

# The whole command lines of both services, by what the kernel calls them (ps(1)).
RUNNING = Says(("ps", "-ww", "-o", "args=", "-C", "kubelet,containerd"))
HOSTS = "/etc/hosts"
EXTRA_FILES = ("/etc/default/kubelet", "/etc/sysconfig/kubelet")
KUBEADM_FLAGS = "/var/lib/kubelet/kubeadm-flags.env"
DROP_INS = "/etc/systemd/system/{}.service.d"
NO_PROGRAM = 127
# Reloading systemd takes the device rights from running GPU containers (nvidia-container-toolkit#48).
DRAINED = "once no GPU pod runs there (`kubectl drain`)"
SHOWN = 6


def flags_of(words: list[str]) -> dict[str, str]:
    """Return the flags of a command line by name; `--a=b`, `--a b` and `-c b` alike, a flag alone is true."""
    found: dict[str, str] = {}
    at = 0
    while at < len(words):
        name, equals, value = words[at].partition("=")
        if name.startswith("-"):
            if not equals and at + 1 < len(words) and not words[at + 1].startswith("-"):
                at += 1
                value = words[at]
            found[name.lstrip("-")] = value if equals or value else "true"
        at += 1
    return found


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def read_assignment(text: str, name: str) -> str:
    """Return what an environment file assigns to a variable last (systemd.exec(5)); empty for nothing."""
    lines = [line.strip() for line in text.splitlines()]
    values = [line.split("=", 1)[1].strip().strip("\"'") for line in lines if line.startswith(f"{name}=")]
    return values[-1] if values else ""


def command_line(said: str, program: str) -> list[str] | None:
    """Return the words of a program's running command line from `ps`; None where it does not run."""
    lines = [line.split() for line in said.splitlines() if line.strip()]
    return next((words for words in lines if words[0].rsplit("/", 1)[-1] == program), None)


@dataclass(frozen=True)
class KubeletFlags:
    """The kubelet runs with the flags that kubeadm gives it: any other overrules its file, and what is declared."""

    name: str = "the kubelet runs with kubeadm's flags alone"

    async def check(self, on: Host) -> Drift | None:
        """Compare the running command line, and what the next start would add; say where each flag comes from."""
        (said, kubeadm, folder), texts = await asyncio.gather(  # together: one exchange
            on.read(RUNNING, FileText(KUBEADM_FLAGS), Listing(DROP_INS.format("kubelet"))),
            on.read_all([FileText(path) for path in EXTRA_FILES]),
        )
        if said.status == NO_PROGRAM:
            raise Blocked("no ps there", host=on.name, fix=f"Install procps on {on.name}.")
        extra = dict(zip(EXTRA_FILES, texts, strict=True))
        places = {path: _words(read_assignment(text or "", "KUBELET_EXTRA_ARGS")) for path, text in extra.items()}
        places[KUBEADM_FLAGS] = _words(read_assignment(kubeadm or "", "KUBELET_KUBEADM_ARGS"))
        running = (command_line(said.stdout, "kubelet") or [])[1:]
        found: dict[tuple[str, str], str] = {}
        for place, words in {**places, "": running}.items():
            for flag in flags_of(words).items():
                if flag[0] not in KUBELET_FLAGS:
                    found.setdefault(flag, place)
        if not found:
            return None
        unit = f"a drop-in of {DROP_INS.format('kubelet')} ({', '.join(folder) or 'none is there now'})"
        have = [f"--{name}={value} from {place or unit}" for (name, value), place in found.items()]
        want = "none of these: take each out where it comes from, declare it under kubernetes.kubelet where it is meant"
        then = f"then, {DRAINED}, `systemctl daemon-reload && systemctl restart kubelet`"
        return Drift("; ".join(have[:SHOWN]), f"{want}, {then}")


@dataclass(frozen=True)
class ContainerdConfigUsed:
    """containerd was started with the file that Shipway keeps: another one makes that file say nothing."""

    name: str = f"containerd runs with {CONFIG}"

    async def check(self, on: Host) -> Drift | None:
        """Look for `--config` in the running command line, and for the drop-ins that may have set it."""
        said, folder = await on.read(RUNNING, Listing(DROP_INS.format("containerd")))
        if said.status == NO_PROGRAM:
            raise Blocked("no ps there", host=on.name, fix=f"Install procps on {on.name}.")
        running = command_line(said.stdout, "containerd")
        if running is None:
            return None  # that it does not run is reported elsewhere
        flags = flags_of(running[1:])
        used = flags.get("config") or flags.get("c") or CONFIG
        if used == CONFIG:
            return None
        place = DROP_INS.format("containerd")
        undo = (
            f"take --config out of the unit's drop-in ({place}/{', '.join(folder) or '?'}; `systemctl cat containerd`)"
        )
        then = f"then, {DRAINED}, `systemctl daemon-reload` and a drift repair"
        return Drift(f"started with {used}", f"{CONFIG}: {undo}, {then}")


@dataclass(frozen=True)
class NameServersThere:
    """The host has name servers: without any it finds no registry and no repository, and CoreDNS no upstream."""

    name: str = f"{PLAIN} names a name server"

    async def check(self, on: Host) -> Drift | None:
        """Look for a nameserver line (resolv.conf(5)); who writes the file stands in its comments."""
        text = await on.read(FileText(PLAIN))
        if re.search(r"^\s*nameserver\s+\S", text or "", re.MULTILINE):
            return None
        comment = next((line.lstrip("# ").strip() for line in (text or "").splitlines() if line.startswith("#")), "")
        owner = f" (written by: {comment[:80]})" if comment else ""
        want = (
            f"a nameserver line: see who owns it with `ls -l {PLAIN}; systemctl status systemd-resolved NetworkManager`"
        )
        return Drift(f"{'no such file' if text is None else 'no nameserver line'}{owner}", want)


@dataclass(frozen=True)
class HostsResolve:
    """No line of /etc/hosts before ours gives one of our names another address: the first line counts (hosts(5))."""

    names: Mapping[str, str] = field(hash=False)
    own: str = ""
    name: str = "no earlier line of /etc/hosts names our hosts otherwise"

    async def check(self, on: Host) -> Drift | None:
        """Compare the first IPv4 address of each name; a loopback line for the host's own name is the system's."""
        first: dict[str, tuple[str, int]] = {}
        for number, line in enumerate((await on.read(FileText(HOSTS)) or "").split("\n"), 1):
            address, *names = line.split("#", 1)[0].split() or [""]
            for name in names:
                if ":" not in address:
                    first.setdefault(name, (address, number))
        wrong = []
        for name, want in self.names.items():
            have, number = first.get(name, (want, 0))
            if have != want and not (name == self.own and have.startswith("127.")):
                wrong.append(f"line {number}: {have} {name}")
        if not wrong:
            return None
        return Drift("; ".join(wrong[:SHOWN]), f"take that line out of {HOSTS}, or correct its address")


@dataclass(frozen=True)
class StaticPodsAsWritten:
    """The control plane's static pods have the flags that kubeadm writes for this cluster file, and no others."""

    wanted: Mapping[str, Mapping[str, str]] = field(hash=False)
    name: str = "the control plane's static pods have kubeadm's flags"
    beside: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False)  # what other steps look at

    async def check(self, on: Host) -> Drift | None:
        """Compare every manifest; one that is gone means a part of the control plane that does not run."""
        paths = {part: f"{MANIFESTS}/{part}.yaml" for part in self.wanted}
        texts = await on.read_all([FileText(path) for path in paths.values()])
        wrong = [line for part, text in zip(paths, texts, strict=True) for line in self._wrong(part, text)]
        if not wrong:
            return None
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        want = f"as kubeadm wrote it: take the edit back in {MANIFESTS}, the kubelet then restarts that pod by itself"
        return Drift("; ".join(wrong[:SHOWN]) + more, want)

    def _wrong(self, part: str, text: str | None) -> list[str]:
        if text is None:
            return [f"{part}: no {MANIFESTS}/{part}.yaml"]
        try:
            container = read_yaml(text)["spec"]["containers"][0]
            words = [str(word) for word in [*(container.get("command") or ()), *(container.get("args") or ())]]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return [f"{part}: {MANIFESTS}/{part}.yaml is no pod"]
        have, want = flags_of(words[1:]), self.wanted[part]
        wrong = [
            f"{part}: --{name}={have[name]} instead of {want[name]}" if name in have else f"{part}: no --{name}"
            for name in want
            if have.get(name) != want[name]
        ]
        return wrong + [
            f"{part}: --{name}={value}, which kubeadm did not write"
            for name, value in have.items()
            if name not in want and name not in OTHERS[part] and name not in self.beside.get(part, ())
        ]
