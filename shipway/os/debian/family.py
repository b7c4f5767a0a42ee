"""Debian and Ubuntu as the rest of Shipway sees them: what stages ask for, from the modules beside this one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from shipway.cluster.model import Cluster
from shipway.cluster.parts import AptRepository
from shipway.edits.files import FileAbsent
from shipway.facts.fact import Fact
from shipway.facts.packages import PackageInfo, Pending
from shipway.host.session import Host
from shipway.os.debian import asking
from shipway.os.debian import drivers as driver_packages
from shipway.os.debian.apt import RepositoryIs
from shipway.os.debian.dpkg import Package
from shipway.os.debian.fetched import PackagesFetched, ProgramBeside
from shipway.os.debian.packages import (
    BaseUpgraded,
    DpkgInOrder,
    PackagesHeld,
    PackagesInstalled,
    PackagesInVersion,
    madison,
    offers,
)
from shipway.os.debian.proxy import APT_CONF, AptThroughProxy, apt_conf
from shipway.os.debian.readable import AptReadsSources
from shipway.os.debian.taken_back import PackagesLoose, SourcesTakenBack
from shipway.os.debian.updates import (
    HOLDERS,
    PackagesIndexed,
    PackagesUpdated,
    UpdatesFetched,
    find_changed,
    find_restart_reasons,
    read_pending,
)
from shipway.os.family import Permit, Scope, Versions, permit_always
from shipway.step import Check, Step

SYSTEMS = {"ubuntu": ("20.04", "22.04", "24.04", "26.04"), "debian": ("11", "12", "13", "14")}


@dataclass(frozen=True)
class Debian:
    """Systems with apt and dpkg; what each method promises stands in `shipway.os.family.Family`."""

    systems: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: SYSTEMS, hash=False)
    supported: str = "Ubuntu 20.04-26.04 or Debian 11-14"
    operation: str = "apt"
    fetcher: str = "apt"
    fetcher_proxy: str = asking.PROXY
    own_architecture: str = asking.ARCHITECTURE

    def package(self, name: str) -> Fact[PackageInfo | None]:
        """Ask dpkg."""
        return Package(name)

    async def offered(self, on: Host, names: Sequence[str]) -> dict[str, list[str]]:
        """Ask `apt-cache madison`."""
        return offers((await on.read(madison(names))).stdout)

    def fetches(self, cluster: Cluster, *, without: Collection[str] = ()) -> list[str]:
        """Return the signed indexes and the keys."""
        sources = cluster.sources
        declared = [item for title, item in sources.apt.items() if title not in without]
        declared += [sources.base_apt] if sources.base_apt else []
        urls = [_index(item) for item in declared] + [item.key.url for item in declared if item.key.url]
        major, minor = cluster.kubernetes.minor
        return [url.replace("{minor}", f"{major}.{minor}") for url in urls]

    def sources_readable(self) -> Check[Host]:
        """Let apt list its indexes."""
        return AptReadsSources()

    def proxy(self, cluster: Cluster) -> Step[Host]:
        """Write a file of apt's configuration, or remove it."""
        if cluster.proxy.declared:
            return AptThroughProxy(apt_conf(cluster))
        return FileAbsent("apt has no proxy that was declared once", APT_CONF)

    def in_order(self, cluster: Cluster) -> Step[Host]:
        """Let dpkg configure what it left, and apt install what is missing to that."""
        return DpkgInOrder(removable=cluster.system.may_remove)

    def base_packages(self, cluster: Cluster) -> Sequence[str]:
        """Return `system.packages`, as the profile or the file has them."""
        return cluster.system.packages

    def base_repository(self, cluster: Cluster) -> list[Step[Host]]:
        """Replace the distribution's archive in the hosts' own sources by `sources.base_apt`."""
        base = cluster.sources.base_apt
        return [RepositoryIs("base", base, cluster.kubernetes.minor, alone=True)] if base else []

    def repository(self, title: str, cluster: Cluster) -> Step[Host]:
        """Make a repository of `sources.apt` known."""
        declared = {str(known): item for known, item in cluster.sources.apt.items()}
        return RepositoryIs(title, declared[title], cluster.kubernetes.minor)

    def upgraded(self) -> Step[Host]:
        """Run `apt-get upgrade`."""
        return BaseUpgraded()

    def installed(
        self,
        name: str,
        packages: Versions,
        removable: Sequence[str] = (),
        *,
        restarts: str = "",
        permit: Permit = permit_always,
    ) -> Step[Host]:
        """Run `apt-get install`, simulated first."""
        return PackagesInstalled(name, packages, tuple(removable), restarts, permit)

    def in_version(
        self, name: str, packages: Versions, removable: Sequence[str] = (), *, permit: Permit = permit_always
    ) -> Step[Host]:
        """Run `apt-get install` with downgrades and held packages allowed, simulated first."""
        return PackagesInVersion(name, packages, tuple(removable), permit=permit)

    def fetched(self, name: str, packages: Mapping[str, str]) -> Step[Host]:
        """Run `apt-get install --download-only`."""
        return PackagesFetched(name, packages)

    def beside(self, program: str, version: str, place: str) -> Step[Host]:
        """Take it out of what `apt-get download` fetches."""
        return ProgramBeside(program, version, place)

    def held(self, packages: Sequence[str]) -> Step[Host]:
        """Run `apt-mark hold`."""
        return PackagesHeld(tuple(packages))

    def indexed(self) -> Step[Host]:
        """Run `apt-get update`."""
        return PackagesIndexed()

    async def pending(self, on: Host, scope: Scope, *, kernel: bool) -> list[Pending]:
        """Simulate `apt-get upgrade --with-new-pkgs`."""
        return await read_pending(on, scope, kernel=kernel)

    def updates_fetched(self, scope: Scope, *, kernel: bool) -> Step[Host]:
        """Run `apt-get install --download-only`."""
        return UpdatesFetched(scope, kernel)

    def updated(self, scope: Scope, removable: Sequence[str] = (), *, kernel: bool) -> Step[Host]:
        """Run `apt-get upgrade --with-new-pkgs` while what stays is held."""
        return PackagesUpdated(scope, kernel, tuple(removable))

    async def restart_reasons(self, on: Host, since: float) -> list[str]:
        """Look at /run/reboot-required and at dpkg's dates."""
        return await find_restart_reasons(on, since)

    async def changed_since(self, on: Host, names: Sequence[str], since: float) -> list[str]:
        """Look at dpkg's dates."""
        return await find_changed(on, names, since)

    async def at_work(self, on: Host) -> str:
        """Look at who holds apt's and dpkg's locks."""
        return ", ".join((await on.read(HOLDERS)).stdout.splitlines())

    def drivers(self) -> driver_packages.DebianDrivers:
        """Install its packages in one transaction, pinned and held."""
        return driver_packages.DebianDrivers()

    def taken_back(self, packages: Sequence[str]) -> list[Step[Host]]:
        """Remove our sources, keys and pins, put entries that we switched off on again, run `apt-mark unhold`."""
        return [SourcesTakenBack(), PackagesLoose(tuple(packages)), *driver_packages.taken_back()]


def _index(repository: AptRepository) -> str:
    """Return the address of a repository's signed index (flat ones have it beside their packages)."""
    uri, suite = repository.uri.rstrip("/"), repository.suite.strip("./")
    folder = f"{uri}/dists/{suite}" if repository.components else f"{uri}/{suite}".rstrip("/")
    return f"{folder}/InRelease"
