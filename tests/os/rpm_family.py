"""A second family, as small as one can be: dnf and rpm. It is a test double and no part of the product."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from shipway.cluster.model import Cluster
from shipway.cluster.parts import Key
from shipway.edits.files import FileEdited
from shipway.errors import CommandFailed, Permanent, Refused
from shipway.facts.commands import Says
from shipway.facts.fact import Fact, Words
from shipway.facts.files import FileState, FileText, Listing
from shipway.facts.packages import PackageInfo, Pending, describe_pending
from shipway.host.session import Command, Host
from shipway.os.family import Permit, Scope, Versions, permit_always
from shipway.os.signing_key import SigningKey, read_key
from shipway.ownership.evidence import KUBELET_CONF
from shipway.script import Output
from shipway.step import Check, Drift, Impact, Step

LOCK_EVERY, LOCK_SECONDS = 5.0, 600.0
LOCKS = Says(("dnf", "-q", "versionlock", "list"))
# Never changed in passing.
KEPT = ("kernel*", "nvidia*", "libnvidia*", "cuda*", "containerd*", "kubelet*", "kubeadm*", "kubectl*")
UPGRADED = "/var/lib/shipway/base-upgraded"
DNF_CONF = "/etc/dnf/dnf.conf"
PROXY = """
  p=$(while IFS== read -r k v; do [ "$k" != proxy ] || echo "$v"; done 2>/dev/null </etc/dnf/dnf.conf)
  export http_proxy=$p https_proxy=$p"""


@dataclass(frozen=True)
class RpmPackage(Fact[PackageInfo | None]):
    """An installed package; one that is there twice is what an interrupted transaction left."""

    name: str

    @classmethod
    def ask_all(cls, facts: Sequence[RpmPackage]) -> list[Words]:
        """Ask rpm for all at once, and dnf for its locks."""
        return [("rpm", "-q", "--qf", "%{NAME}|%{VERSION}\n", *(fact.name for fact in facts)), LOCKS.words()]

    @classmethod
    def answer_all(cls, facts: Sequence[RpmPackage], outputs: Sequence[Output]) -> list[PackageInfo | None]:
        """Return what is known of each."""
        lines = [line.split("|") for line in outputs[0].stdout.splitlines() if "|" in line]
        locked = {line.removesuffix("-*") for line in outputs[1].stdout.splitlines()}
        found: list[PackageInfo | None] = []
        for fact in facts:
            versions = [version for name, version in lines if name == fact.name]
            known = PackageInfo(versions[-1], fact.name in locked, len(versions) == 1) if versions else None
            found.append(known)
        return found


async def dnf(on: Host, *words: str) -> None:
    """Let dnf change packages, as soon as no other one does; raises CommandFailed (SHW-401) where that stays so."""
    ends = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            await on.succeed("dnf", ("dnf", "-y", *words), seconds=1800)
        except CommandFailed as error:
            if "transaction lock" not in error.output:
                raise
            if time.monotonic() > ends:
                message = "another package manager is at work"
                raise CommandFailed(message, exit_status=error.exit_status, host=on.name, code="SHW-401") from error
        else:
            return
        await asyncio.sleep(LOCK_EVERY)


@dataclass(frozen=True)
class Packages:
    """Packages are there."""

    impact: ClassVar[Impact] = Impact.SERVICE
    exactly: ClassVar[bool] = False
    name: str
    packages: Versions
    removable: tuple[str, ...]
    permit: Permit
    restarts: str = ""

    async def _wrong(self, on: Host) -> dict[str, str | None]:
        infos = await on.read_all([RpmPackage(name) for name in self.packages])
        return {
            name: want
            for (name, want), info in zip(self.packages.items(), infos, strict=True)
            if info is None or not info.sound or (self.exactly and want and not info.version.startswith(want))
        }

    async def check(self, on: Host) -> Drift | None:
        """Ask rpm, and dnf what would go."""
        wrong = await self._wrong(on)
        if not wrong:
            return None
        await self.permit(on)
        await self._refuse(on, list(wrong))
        return Drift(f"{', '.join(wrong)} missing", "installed")

    async def _refuse(self, on: Host, asked: Sequence[str]) -> None:
        said = await on.read(Says(("dnf", "--assumeno", "install", *asked)))
        lines = said.stdout.splitlines()
        gone = [line.split()[-1] for line in lines if "Removing" in line]
        if set(gone) - set(self.removable):
            raise Refused(f"dnf would remove {', '.join(gone)}; nothing was changed", code="SHW-327")

    async def apply(self, on: Host) -> None:
        """Install the newest that fits."""
        wrong = await self._wrong(on)
        offered = await offered_by(on, tuple(wrong))
        asked = []
        for name, want in wrong.items():
            fitting = [one for one in offered.get(name, ()) if not want or one.startswith(want)]
            if want and not fitting:
                raise Permanent(f"no repository offers {name} {want}; offered: {offered.get(name)}", code="SHW-307")
            asked.append(f"{name}={fitting[0]}" if want else name)
        await self.permit(on)
        await self._refuse(on, list(wrong))
        await dnf(on, "install", *asked)


@dataclass(frozen=True)
class PackagesInVersion(Packages):
    """Packages have their versions."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    exactly: ClassVar[bool] = True


@dataclass(frozen=True)
class Held:
    """Packages are held."""

    impact: ClassVar[Impact] = Impact.FILES
    packages: tuple[str, ...]

    @property
    def name(self) -> str:
        """The fact."""
        return f"{', '.join(self.packages)} {'are' if len(self.packages) > 1 else 'is'} held"

    async def check(self, on: Host) -> Drift | None:
        """Ask dnf for its locks."""
        infos = await on.read_all([RpmPackage(name) for name in self.packages])
        loose = [name for name, info in zip(self.packages, infos, strict=True) if info is None or not info.held]
        return Drift(f"not held: {', '.join(loose)}", "held") if loose else None

    async def apply(self, on: Host) -> None:
        """Lock them."""
        await dnf(on, "versionlock", "add", *self.packages)


@dataclass(frozen=True)
class TakenBack:
    """No repository and no lock of ours is left."""

    impact: ClassVar[Impact] = Impact.FILES
    packages: tuple[str, ...]
    name: str = "nothing of ours is left with dnf"

    async def _left(self, on: Host) -> tuple[list[str], list[str]]:
        infos = await on.read_all([RpmPackage(name) for name in self.packages])
        held = [name for name, info in zip(self.packages, infos, strict=True) if info is not None and info.held]
        folders = ("/etc/yum.repos.d", "/etc/pki/rpm-gpg")
        listed = await on.read_all([Listing(folder) for folder in folders])
        names = [f"{folder}/{name}" for folder, own in zip(folders, listed, strict=True) for name in own]
        return held, [name for name in names if "/shipway-" in name]

    async def check(self, on: Host) -> Drift | None:
        """Ask dnf, and list files."""
        held, files = await self._left(on)
        return Drift(", ".join([*held, *files]), "none") if held or files else None

    async def apply(self, on: Host) -> None:
        """Take both away."""
        held, files = await self._left(on)
        if held:
            await dnf(on, "versionlock", "delete", *held)
        if files:
            await on.do(Command(("rm", "-f", "--", *files)))


@dataclass(frozen=True)
class InOrder:
    """No transaction is unfinished."""

    impact: ClassVar[Impact] = Impact.SERVICE
    name: str = "no transaction is unfinished"

    async def check(self, on: Host) -> Drift | None:
        """Ask dnf for what is there twice."""
        said = (await on.read(Says(("dnf", "-q", "check", "--duplicates")))).stdout.strip()
        return Drift(said, "no duplicates") if said else None

    async def apply(self, on: Host) -> None:
        """Remove it."""
        await dnf(on, "remove", "--duplicates")


@dataclass(frozen=True)
class Upgraded:
    """Base packages were upgraded once."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    name: str = "base packages were upgraded before the host joined"

    async def check(self, on: Host) -> Drift | None:
        """Look for the mark, and whether the host has joined."""
        done, joined = await on.read(FileState(UPGRADED), FileState(KUBELET_CONF))
        return None if done or joined else Drift("never", "once")

    async def apply(self, on: Host) -> None:
        """Upgrade all but what is kept."""
        await dnf(on, "upgrade", *(f"--exclude={one}" for one in KEPT))
        await on.write(UPGRADED, b"")


def _left_out(*, kernel: bool) -> list[str]:
    return [f"--exclude={one}" for one in KEPT if not (kernel and one == "kernel*")]


def _which(scope: Scope) -> list[str]:
    return ["--security"] if scope == "security" else []


async def pending_on(on: Host, scope: Scope, *, kernel: bool) -> list[Pending]:
    said = await on.read(Says(("dnf", "-q", "check-update", *_left_out(kernel=kernel), *_which(scope))))
    rows = [line.split() for line in said.stdout.splitlines()]
    names = [(name.rpartition(".")[0], version) for name, version, _ in rows]
    return [Pending(name, "?", version, "kernel" if name.startswith("kernel") else "") for name, version in names]


@dataclass(frozen=True)
class Indexed:
    """dnf's lists are of the last hour."""

    impact: ClassVar[Impact] = Impact.FILES
    mark: ClassVar[str] = "/var/lib/shipway/packages-indexed"
    name: str = "the lists of packages are of the last hour"

    async def check(self, on: Host) -> Drift | None:
        """Look for the mark."""
        return None if await on.read(FileState(self.mark)) else Drift("never", "an hour old at most")

    async def apply(self, on: Host) -> None:
        """Fetch them."""
        await dnf(on, "makecache")
        await on.write(self.mark, b"")


@dataclass(frozen=True)
class Updates:
    """What is pending is installed."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    scope: Scope
    kernel: bool
    name: str = "every package is the newest offered"

    async def check(self, on: Host) -> Drift | None:
        """Ask dnf."""
        pending = await pending_on(on, self.scope, kernel=self.kernel)
        return Drift(f"{describe_pending(pending)} to come", "none") if pending else None

    async def apply(self, on: Host) -> None:
        """Upgrade."""
        await dnf(on, "upgrade", *_left_out(kernel=self.kernel), *_which(self.scope))


async def offered_by(on: Host, names: Sequence[str]) -> dict[str, list[str]]:
    said = await on.read(Says(("dnf", "-q", "list", "--showduplicates", *names)))
    found: dict[str, list[str]] = {}
    for line in reversed(said.stdout.splitlines()):
        name, version, _ = line.split()
        found.setdefault(name.rpartition(".")[0], []).append(version)
    return found


@dataclass(frozen=True)
class Repository:
    """A repository is known, with its own pinned key."""

    impact: ClassVar[Impact] = Impact.FILES
    title: str
    uri: str
    key: Key

    @property
    def name(self) -> str:
        """The fact."""
        return f"dnf knows the {self.title} repository and its key"

    @property
    def _file(self) -> str:
        return f"/etc/yum.repos.d/shipway-{self.title}.repo"

    @property
    def _ring(self) -> str:
        return f"/etc/pki/rpm-gpg/shipway-{self.title}.asc"

    @property
    def _text(self) -> str:
        return f"[shipway-{self.title}]\nbaseurl={self.uri}\ngpgcheck=1\ngpgkey=file://{self._ring}\n"

    async def check(self, on: Host) -> Drift | None:
        """Compare the file and the key's digest."""
        text, ring, note = await on.read(
            FileText(self._file), FileState(self._ring), FileText(f"/var/lib/shipway/dnf-{self.title}.accepted")
        )
        if text != self._text:
            return Drift("no such repository", self.uri)
        return None if ring and ring.sha256 == note else Drift("no key that was checked", "a checked key")

    async def apply(self, on: Host) -> None:
        """Fetch and check the key, then write."""
        fresh = f"{self._ring}.fetched"
        await on.do(Command(("curl", "-fsSL", "-o", fresh, str(self.key.url))))
        encoded = await on.read(Says(("base64", "-w0", fresh)))
        await on.do(Command(("rm", "-f", fresh)))
        key = self._checked(base64.b64decode(encoded.stdout), on.name)
        await on.write(self._ring, key.armored.encode())
        await on.write(self._file, self._text.encode())
        digest = hashlib.sha256(key.armored.encode()).hexdigest()
        await on.write(f"/var/lib/shipway/dnf-{self.title}.accepted", digest.encode())

    def _checked(self, data: bytes, host: str) -> SigningKey:
        try:
            key = read_key(data, self.key.fingerprint)
            trouble = key.trouble(self.key.fingerprint, now=time.time())
        except ValueError as error:
            trouble = str(error)
        if trouble:
            raise Permanent(f"the {self.title} repository's key is not accepted: {trouble}", host=host, code="SHW-306")
        return key


def _with_proxy(text: str, url: str) -> str:
    kept = [line for line in text.splitlines(keepends=True) if not line.startswith("proxy=")]
    return "".join(kept) + (f"proxy={url}\n" if url else "")


@dataclass(frozen=True)
class RepositoriesRead:
    """dnf can read its repositories."""

    name: str = "dnf can read its repositories"

    async def check(self, on: Host) -> Drift | None:
        """Let it list them."""
        said = await on.read(Says(("dnf", "-q", "repolist")))
        return None if said.ok else Drift(said.stderr, "repositories that dnf can read")


@dataclass(frozen=True)
class Rpm:
    """Systems with dnf; `repositories` stands for a section that the cluster file would get for them."""

    repositories: Mapping[str, tuple[str, Key]] = field(default_factory=dict, hash=False)
    systems: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"rocky": ("9",)}, hash=False)
    supported: str = "Rocky Linux 9"
    operation: str = "dnf"
    fetcher: str = "dnf"
    fetcher_proxy: str = PROXY
    own_architecture: str = "uname -m"

    def package(self, name: str) -> Fact[PackageInfo | None]:
        """Ask rpm."""
        return RpmPackage(name)

    async def offered(self, on: Host, names: Sequence[str]) -> dict[str, list[str]]:
        """Ask dnf for every version."""
        return await offered_by(on, names)

    def fetches(self, cluster: Cluster, *, without: Collection[str] = ()) -> list[str]:
        """Return the indexes and the keys."""
        del cluster
        found = [one for title, one in self.repositories.items() if title not in without]
        return [f"{uri}/repodata/repomd.xml" for uri, _ in found] + [str(key.url) for _, key in found]

    def sources_readable(self) -> Check[Host]:
        """Let dnf list its repositories."""
        return RepositoriesRead()

    def proxy(self, cluster: Cluster) -> Step[Host]:
        """Edit a line of dnf's configuration."""
        edit = partial(_with_proxy, url=cluster.proxy.http or "")
        return FileEdited("dnf goes through the declared proxy", DNF_CONF, edit, "the declared proxy", needed=False)

    def in_order(self, cluster: Cluster) -> Step[Host]:
        """Remove what an unfinished transaction left twice."""
        del cluster
        return InOrder()

    def base_packages(self, cluster: Cluster) -> Sequence[str]:
        """Return this family's own names."""
        del cluster
        return ("curl", "gnupg2")

    def base_repository(self, cluster: Cluster) -> list[Step[Host]]:
        """Return none: nothing declares one."""
        del cluster
        return []

    def repository(self, title: str, cluster: Cluster) -> Step[Host]:
        """Write a file of yum's."""
        del cluster
        uri, key = self.repositories[title]
        return Repository(title, uri, key)

    def upgraded(self) -> Step[Host]:
        """Run `dnf upgrade`."""
        return Upgraded()

    def installed(
        self,
        name: str,
        packages: Versions,
        removable: Sequence[str] = (),
        *,
        restarts: str = "",
        permit: Permit = permit_always,
    ) -> Step[Host]:
        """Run `dnf install`."""
        return Packages(name, packages, tuple(removable), permit, restarts)

    def in_version(
        self, name: str, packages: Versions, removable: Sequence[str] = (), *, permit: Permit = permit_always
    ) -> Step[Host]:
        """Run `dnf install` with versions."""
        return PackagesInVersion(name, packages, tuple(removable), permit)

    def fetched(self, name: str, packages: Mapping[str, str]) -> Step[Host]:
        """Run `dnf install --downloadonly`."""
        return Packages(name, packages, (), permit_always, "")

    def beside(self, program: str, version: str, place: str) -> Step[Host]:
        """Install it: this double keeps nothing beside."""
        del place
        return Packages(f"{program} {version} is there", {program: version}, (), permit_always, "")

    def held(self, packages: Sequence[str]) -> Step[Host]:
        """Run `dnf versionlock add`."""
        return Held(tuple(packages))

    def indexed(self) -> Step[Host]:
        """Run `dnf makecache`."""
        return Indexed()

    async def pending(self, on: Host, scope: Scope, *, kernel: bool) -> list[Pending]:
        """Run `dnf check-update`."""
        return await pending_on(on, scope, kernel=kernel)

    def updates_fetched(self, scope: Scope, *, kernel: bool) -> Step[Host]:
        """Install them: this double fetches nothing alone."""
        return Updates(scope, kernel, "the updates are fetched")

    def updated(self, scope: Scope, removable: Sequence[str] = (), *, kernel: bool) -> Step[Host]:
        """Run `dnf upgrade`."""
        del removable
        return Updates(scope, kernel)

    async def restart_reasons(self, on: Host, since: float) -> list[str]:
        """Run `needs-restarting -r`."""
        del since
        said = await on.read(Says(("needs-restarting", "-r")))
        return ["the system asks for it"] if said.status == 1 else []

    async def changed_since(self, on: Host, names: Sequence[str], since: float) -> list[str]:
        """Ask rpm for the times of installation."""
        said = await on.read(Says(("rpm", "-q", "--qf", "%{NAME}|%{INSTALLTIME}\n", *names)))
        rows = [line.split("|") for line in said.stdout.splitlines() if "|" in line]
        return sorted(name for name, at in rows if int(at) > since)

    async def at_work(self, on: Host) -> str:
        """Look at who has dnf's pid file."""
        return (await on.read(FileText("/var/run/dnf.pid"))) or ""

    def drivers(self) -> None:
        """Install none."""

    def taken_back(self, packages: Sequence[str]) -> list[Step[Host]]:
        """Remove our files of yum's, run `dnf versionlock delete`."""
        return [TakenBack(tuple(packages))]
