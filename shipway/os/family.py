"""What the rest of Shipway needs of a family of operating systems: this, and nothing of its package manager."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Literal, Protocol

from shipway.cluster.model import Cluster
from shipway.facts.fact import Fact
from shipway.facts.packages import PackageInfo, Pending
from shipway.host.session import Host
from shipway.os.drivers import Drivers
from shipway.step import Check, Step

# What is asked right before packages change; it raises what keeps from it.
Permit = Callable[[Host], Awaitable[None]]
# Packages by name, each with the version wanted; None is any.
Versions = Mapping[str, str | None]
# Which updates of the system's own packages: every one, or those that its makers call security updates.
Scope = Literal["all", "security"]


async def permit_always(on: Host) -> None:
    """Let packages change whenever they differ."""


class Family(Protocol):
    """Systems with one package manager. A family is a package beside this file, and a line in `families.py`.

    What changes packages waits for another package manager's lock by itself, and raises SHW-401 where it stays.
    """

    @property
    def systems(self) -> Mapping[str, tuple[str, ...]]:
        """The `VERSION_ID`s that were tried, by the `ID` of /etc/os-release."""

    @property
    def supported(self) -> str:
        """The same for people: `Ubuntu 20.04-26.04 or Debian 11-14`."""

    @property
    def operation(self) -> str:
        """The operation of a host (see `Host.operate`) as which packages are changed."""

    @property
    def fetcher(self) -> str:
        """The program that fetches packages."""

    @property
    def fetcher_proxy(self) -> str:
        """Bash that exports `http_proxy` and `https_proxy` as the fetcher goes to `$u`; scheme and host are $s and $h.

        Without a proxy both are empty. It must not fail where the fetcher is not installed.
        """

    @property
    def own_architecture(self) -> str:
        """The command that prints what `{arch}` stands for in the addresses of this family's repositories."""

    def package(self, name: str) -> Fact[PackageInfo | None]:
        """Return the fact of a package of the host's own architecture; its value is None where it is not installed."""

    async def offered(self, on: Host, names: Sequence[str]) -> dict[str, list[str]]:
        """Return the versions that the host's repositories offer of packages, newest first; uses no network."""

    def fetches(self, cluster: Cluster, *, without: Collection[str] = ()) -> list[str]:
        """Return what is fetched first: every repository's index but of those `without`, then their keys.

        The placeholders that only a host can fill in are left in the addresses.
        """

    def sources_readable(self) -> Check[Host]:
        """Return the check that the package manager can read its own list of repositories."""

    def proxy(self, cluster: Cluster) -> Step[Host]:
        """Return the step that gives the fetcher the declared proxy, or takes one away that was declared once."""

    def in_order(self, cluster: Cluster) -> Step[Host]:
        """Return the step that finishes what an interrupted package manager began."""

    def base_packages(self, cluster: Cluster) -> Sequence[str]:
        """Return the names, in this family, of the packages that every host has before anything else is installed."""

    def base_repository(self, cluster: Cluster) -> list[Step[Host]]:
        """Return the steps that put a site's repository in place of the distribution's own; none is declared: []."""

    def repository(self, title: str, cluster: Cluster) -> Step[Host]:
        """Return the step that makes a declared repository known, with its own pinned key; `title` as in the file."""

    def upgraded(self) -> Step[Host]:
        """Return the step that upgrades the base packages once, before the host joins: no driver, kernel or runtime."""

    def installed(
        self,
        name: str,
        packages: Versions,
        removable: Sequence[str] = (),
        *,
        restarts: str = "",
        permit: Permit = permit_always,
    ) -> Step[Host]:
        """Return the step that installs what is missing; what is there keeps its version.

        Nothing is removed that is not `removable`. `restarts` is the unit that the packages' own scripts start anew.
        """

    def in_version(
        self, name: str, packages: Versions, removable: Sequence[str] = (), *, permit: Permit = permit_always
    ) -> Step[Host]:
        """Return the step that brings packages to their versions; it may end workloads, and its impact says so."""

    def fetched(self, name: str, packages: Mapping[str, str]) -> Step[Host]:
        """Return the step that fetches packages in their versions, and installs nothing."""

    def beside(self, program: str, version: str, place: str) -> Step[Host]:
        """Return the step that puts a package's program of that version at a place of its own, unless it is installed.

        The program is called as its package is, and lies in /usr/bin there; the package is not installed.
        """

    def held(self, packages: Sequence[str]) -> Step[Host]:
        """Return the step that keeps an upgrade in passing from changing packages."""

    def indexed(self) -> Step[Host]:
        """Return the step that fetches the repositories' indexes where the last time is more than an hour ago."""

    async def pending(self, on: Host, scope: Scope, *, kernel: bool) -> list[Pending]:
        """Return what `updated` would change, by the indexes that the host has; uses no network.

        Held packages, GPU drivers, the container runtime and Kubernetes are never among it, the kernel only with
        `kernel`. Raises CommandFailed where the package manager cannot tell.
        """

    def updates_fetched(self, scope: Scope, *, kernel: bool) -> Step[Host]:
        """Return the step that fetches what is pending, and installs nothing."""

    def updated(self, scope: Scope, removable: Sequence[str] = (), *, kernel: bool) -> Step[Host]:
        """Return the step that brings all that is pending to its newest version; it may end workloads.

        Nothing is removed that is not `removable`. What is left out keeps its version, whatever depends on it.
        """

    async def restart_reasons(self, on: Host, since: float) -> list[str]:
        """Return why the system asks to be restarted: its own mark, or what all rests on changed after `since`.

        `since` is when it was booted, in seconds since 1970 by its own clock.
        """

    async def changed_since(self, on: Host, names: Sequence[str], since: float) -> list[str]:
        """Return which of these packages were installed or changed after a moment (as in `restart_reasons`)."""

    async def at_work(self, on: Host) -> str:
        """Return which package manager is at work on the host now; "" for none."""

    def drivers(self) -> Drivers | None:
        """Return how a GPU's driver is installed here; None where nobody has tried."""

    def taken_back(self, packages: Sequence[str]) -> list[Step[Host]]:
        """Return the steps that take back what the others wrote: repositories, their keys, holds of these packages.

        What they switched off of a host's own repositories is on again; packages stay as they are.
        """
