"""What a bootstrap wrote on a host, file by file, taken back; the lines of others in the same files stay.

This is the one registry of it: a test compares it with the paths of every stage's steps.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from shipway.edits.files import FileAbsent, FileEdited
from shipway.edits.imex import without_settings
from shipway.edits.kubeconfig import without_clusters
from shipway.edits.lines import with_swap_again, without_block, without_lines, without_sysctls
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText, Listing
from shipway.gpu.driver.imex import CONFIG as IMEX
from shipway.gpu.driver.imex import NODES as IMEX_NODES
from shipway.gpu.driver.packages import CONFIGURED, MODULES_LOAD, RIVAL_OUT
from shipway.host.session import OPERATIONS, Command, Host
from shipway.kubeadm.config import CRI_SOCKET
from shipway.kubeadm.hardening import KERNEL_FILE
from shipway.site.proxies import DROP_IN, ENVIRONMENT
from shipway.step import Check, Drift, Impact
from shipway.steps.reset.kubelet import SHIMS, few, foreign_namespaces
from shipway.steps.runtime.crictl import FILE as CRICTL
from shipway.steps.runtime.crictl import crictl_finds
from shipway.steps.runtime.memlock import DROP_IN as MEMLOCK
from shipway.steps.system.network_manager import FILE as NETWORK_MANAGER
from shipway.steps.system.network_manager import UNIT

CERTS = "/etc/containerd/certs.d"
OWN_FOLDERS = ("/var/lib/shipway", OPERATIONS)
# On a host that is a controller as well people keep their cluster files there: only an empty one goes.
SHARED_FOLDERS = ("/etc/shipway",)
KEPT_THERE = ("backups",)  # of a cluster's data: what is left to bring it back from
UNIT_FOLDERS = tuple(
    f"/etc/systemd/system{place}" for place in ("", "/timers.target.wants", "/multi-user.target.wants")
)
OWN_UNIT = re.compile(r"shipway-[A-Za-z0-9@_.-]+\.(?:service|timer)")
KEPT = "# Kept by Shipway"  # how the registries' files of ours begin
CLOUD = "/etc/cloud/cloud.cfg.d/99-shipway.cfg"
MODULES, SYSCTLS = "/etc/modules-load.d/k8s.conf", "/etc/sysctl.d/k8s.conf"
INOTIFY = "/etc/sysctl.d/90-shipway-inotify.conf"
HOSTS, FSTAB = "/etc/hosts", "/etc/fstab"
_PASSWD_FIELDS = 7  # passwd(5)


@dataclass(frozen=True)
class LinesGone:
    """A file that others write to as well is without our lines; where it held no other line, it is removed."""

    impact: ClassVar[Impact] = Impact.FILES
    name: str
    path: str
    edit: Callable[[str], str] = field(compare=False)

    @property
    def _edited(self) -> FileEdited:
        return FileEdited(self.name, self.path, self.edit, "without them", needed=False)

    async def check(self, on: Host) -> Drift | None:
        """See whether the edit would change anything; ours may hold nothing, where the kernel lacks all of it."""
        found, text = await asyncio.gather(self._edited.check(on), on.read(FileText(self.path)))
        return Drift(f"our lines in {self.path}", "without them") if found or text == "" else None

    async def apply(self, on: Host) -> None:
        """Write what is left, or remove the file."""
        text = await on.read(FileText(self.path))
        if text is not None and not self.edit(text).strip():
            await on.do(Command(("rm", "-f", "--", self.path)))
        else:
            await self._edited.apply(on)


@dataclass(frozen=True)
class HostsFileOwn:
    """/etc/hosts is without our block; the host's own name still leads to an address."""

    impact: ClassVar[Impact] = Impact.FILES
    path: ClassVar[str] = HOSTS
    name: str = "/etc/hosts is without our block"

    async def _step(self, on: Host) -> FileEdited:
        hostname = (await on.read(FileText("/proc/sys/kernel/hostname")) or "").strip()
        return FileEdited(self.name, HOSTS, partial(without_block, own_name=hostname), "without it", needed=False)

    async def check(self, on: Host) -> Drift | None:
        """See whether the edit would change anything."""
        step, _, _ = await asyncio.gather(self._step(on), on.read(FileText(HOSTS)), on.read(FileState(HOSTS)))
        return Drift("our block is there", "no such block") if await step.check(on) else None

    async def apply(self, on: Host) -> None:
        """Take the block out; a name that only it held gets Debian's usual line again, which a bootstrap takes out."""
        await (await self._step(on)).apply(on)


@dataclass(frozen=True)
class RegistryFilesGone:
    """containerd has no registry's file of ours: those that begin with our mark, and the authorities beside them."""

    impact: ClassVar[Impact] = Impact.FILES
    name: str = "no file about a registry is ours"

    async def _left(self, on: Host) -> list[str]:
        names = await on.read(Listing(CERTS))
        texts, held = await asyncio.gather(
            on.read_all([FileText(f"{CERTS}/{name}/hosts.toml") for name in names]),
            on.read_all([Listing(f"{CERTS}/{name}") for name in names]),
        )
        ours = [
            f"{CERTS}/{name}/hosts.toml"
            for name, text in zip(names, texts, strict=True)
            if (text or "").startswith(KEPT)
        ]
        authority = "shipway-ca.crt"
        return ours + [
            f"{CERTS}/{name}/{authority}" for name, files in zip(names, held, strict=True) if authority in files
        ]

    async def check(self, on: Host) -> Drift | None:
        """Read the beginning of each."""
        left = await self._left(on)
        return Drift(f"{len(left)} files of ours", "none") if left else None

    async def apply(self, on: Host) -> None:
        """Remove them, and the folders that held nothing else."""
        left = await self._left(on)
        folders = sorted({path.rpartition("/")[0] for path in left})
        empty = Command(("rmdir", "--ignore-fail-on-non-empty", "--", *folders))
        await on.do(Command(("rm", "-f", "--", *left)), empty)


@dataclass(frozen=True)
class NetworkManagerAsBefore:
    """NetworkManager has no file of ours."""

    impact: ClassVar[Impact] = Impact.FILES
    path: ClassVar[str] = NETWORK_MANAGER.path
    name: str = "NetworkManager has no file of ours"

    async def check(self, on: Host) -> Drift | None:
        """See whether it is there."""
        return await FileAbsent(self.name, self.path).check(on)

    async def apply(self, on: Host) -> None:
        """Remove it, and let a running NetworkManager see so: connections stay as they are."""
        await FileAbsent(self.name, self.path).apply(on)
        if (await on.read(UNIT)).active == "active":
            await on.do(Command(("systemctl", "reload", "NetworkManager")))


@dataclass(frozen=True)
class UserWithoutCluster:
    """The login user's kubeconfig is without this cluster; what it holds of others stays."""

    impact: ClassVar[Impact] = Impact.FILES
    user: str
    authorities: frozenset[str]

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.user}'s kubeconfig is without this cluster"

    async def _now(self, on: Host) -> tuple[str, str | None, str | None]:
        """Return the file's path, its text, and the text without us: None where nothing else is in it."""
        known = await on.read(Says(("getent", "passwd", self.user)))
        fields = known.stdout.strip().split(":")
        if len(fields) < _PASSWD_FIELDS or not fields[5].startswith("/"):
            return "", None, None
        path = f"{fields[5]}/.kube/config"
        text = await on.read(FileText(path))
        try:
            return path, text, without_clusters(text, self.authorities) if text else text
        except ValueError:
            return path, text, text  # what is there is no kubeconfig

    async def check(self, on: Host) -> Drift | None:
        """Look for a cluster of these authorities in it; without any of them known there is nothing to look for."""
        path, text, wanted = await self._now(on)
        return None if not self.authorities or text == wanted else Drift(f"{path} names it", "without its entries")

    async def apply(self, on: Host) -> None:
        """Take our entries out; a file that held nothing else is removed."""
        path, _, wanted = await self._now(on)
        info = await on.read(FileState(path))
        if wanted is None:
            await on.do(Command(("rm", "-f", "--", path)))
        elif info is not None:
            await on.write(path, wanted.encode(), mode="600", owner=info.owner)


@dataclass(frozen=True)
class UnitsGone:
    """No unit file of ours is left: those by whose name systemd calls it ours, and the links that start them."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    name: str = "no unit of Shipway's is left"

    async def _left(self, on: Host) -> tuple[list[str], list[str]]:
        """Return the names of our units, and all files of theirs."""
        listed = await on.read_all([Listing(folder) for folder in UNIT_FOLDERS])
        ours = [[name for name in names if OWN_UNIT.fullmatch(name)] for names in listed]
        files = [f"{folder}/{name}" for folder, names in zip(UNIT_FOLDERS, ours, strict=True) for name in names]
        return sorted(dict.fromkeys(name for names in ours for name in names), reverse=True), files

    async def check(self, on: Host) -> Drift | None:
        """List them."""
        names, _ = await self._left(on)
        return Drift(", ".join(names), "none") if names else None

    async def apply(self, on: Host) -> None:
        """Stop them, timers first, and remove their files; systemd reads its units anew beside nobody's containers."""
        (names, paths), shims = await asyncio.gather(self._left(on), on.read(SHIMS))
        anew = [] if foreign_namespaces(shims.stdout) else [Command(("systemctl", "daemon-reload"))]
        stop = Command(("systemctl", "stop", *names), seconds=180)
        await on.do(stop, Command(("rm", "-f", "--", *paths)), *anew)


@dataclass(frozen=True)
class OwnFoldersGone:
    """Nothing is left where only Shipway writes, but backups; it comes last: what a reset has begun is noted there."""

    impact: ClassVar[Impact] = Impact.FILES
    name: str = "no folder of Shipway's is left"

    async def _left(self, on: Host) -> list[str]:
        held = await on.read_all([Listing(path) for path in OWN_FOLDERS])
        return [
            f"{path}/{name}"
            for path, names in zip(OWN_FOLDERS, held, strict=True)
            for name in names
            if name not in KEPT_THERE
        ]

    async def check(self, on: Host) -> Drift | None:
        """List them."""
        left = await self._left(on)
        return Drift(few(left), "none") if left else None

    async def apply(self, on: Host) -> None:
        """Remove what is in them, and those that hold nothing else."""
        await on.do(
            Command(("rm", "-rf", "--one-file-system", "--", *await self._left(on))),
            Command(
                (
                    "sh",
                    "-c",
                    'for d; do [ ! -d "$d" ] || rmdir --ignore-fail-on-non-empty -- "$d"; done',
                    "sh",
                    *OWN_FOLDERS,
                    *SHARED_FOLDERS,
                )
            ),
        )


def _without_crictl(text: str) -> str:
    """Return nothing where the file is what a bootstrap makes of none; any other is left as it is."""
    return "" if text == crictl_finds(CRI_SOCKET).edit("") else text


def of_system(modules: Sequence[str], settings: Mapping[str, str]) -> list[Check[Host]]:
    """Return the steps about the base system's files; `modules` and `settings` are those that a bootstrap names."""
    return [
        NetworkManagerAsBefore(),
        LinesGone("no kernel module at boot is ours", MODULES, partial(without_lines, lines=tuple(modules))),
        LinesGone("no kernel setting is ours", SYSCTLS, partial(without_sysctls, values=settings)),
        FileAbsent("no inotify limit is ours", INOTIFY),
        FileAbsent("no kernel setting of the kubelet's is ours", KERNEL_FILE),
        FileAbsent("cloud-init keeps the names again", CLOUD),
        FileEdited("swap in /etc/fstab is as before", FSTAB, with_swap_again, "our marks taken out", needed=False),
        HostsFileOwn(),
    ]


def of_runtime() -> list[Check[Host]]:
    """Return the steps about files of containerd and crictl, but for containerd's own configuration."""
    return [
        RegistryFilesGone(),
        FileAbsent("containerd has no proxy of ours", DROP_IN),
        FileAbsent("containerd has no limit of ours", MEMLOCK),
        FileAbsent("no option of the GPUs' driver is ours", CONFIGURED),
        FileAbsent("no module is kept from GPUs by us", RIVAL_OUT),
        FileAbsent("no module of the GPUs' fabric is loaded by us", MODULES_LOAD),
        FileEdited("IMEX has no setting of ours", IMEX, without_settings, "our block taken out", needed=False),
        FileAbsent("IMEX has no list of ours", IMEX_NODES),
        FileAbsent("no environment with a proxy is left", ENVIRONMENT),
        LinesGone("crictl is told of nothing by us", CRICTL, _without_crictl),
    ]
