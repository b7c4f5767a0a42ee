"""A host whose kubelet runs a new version: after its own API server, with its packages held as before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from shipway.cluster.model import Cluster
from shipway.errors import Blocked, PostconditionFailed, Refused
from shipway.facts.commands import Says
from shipway.facts.services import UnitState
from shipway.facts.versions import ProgramVersion
from shipway.host.session import Command, Host
from shipway.kube.client import Kube
from shipway.kube.drain import cordon_note, left_note, uncordon
from shipway.kube.nodes import nodes_by_name
from shipway.kube.status import posted_at, why_not_ready
from shipway.rules.compatibility import triple
from shipway.step import Drift, Impact, Step
from shipway.steps.kubernetes.evidence import add_last_words
from shipway.steps.kubernetes.skew import server_version, version_of
from shipway.steps.upgrade.control_plane import OwnApi, upgrade
from shipway.steps.upgrade.possible import kubelet_of

UPGRADING = "upgrade to"  # how the note on a node begins that an upgrade keeps closed: only an upgrade opens it
STAYS_SECONDS = 5
# The program that a kubelet was started from: "/usr/bin/kubelet (deleted)" once a package has put a new one there.
EXECUTABLE = Says(("sh", "-c", 'readlink "/proc/$(systemctl show -p MainPID --value kubelet)/exe"'))


async def permit_not_newer(on: Host, *, wanted: str, apis: Sequence[OwnApi] = ()) -> None:
    """Return where no API server that may answer this host's kubelet is older than the kubelet that is to come.

    A worker's is asked as its kubelet asks it, a control plane's (`apis`) one by one: behind a load balancer any of
    them may answer. Raises Refused SHW-785 where one is older, and Blocked where nobody can tell.
    """
    if apis:
        said = await on.read_all([api.version for api in apis])
        served = {api.address: version_of(one.stdout) for api, one in zip(apis, said, strict=True)}
    else:
        served = {"the one that it asks": have} if (have := await server_version(on)) is not None else {}
    if silent := [where for where, have in served.items() if have is None]:
        message = f"the version of the API server of {', '.join(silent)} cannot be determined"
        raise Blocked(message, host=on.name, code="SHW-331", fix="Bring it back first, then run again.")
    old = [f"{where} runs v{have}" for where, have in served.items() if have and triple(have) < triple(wanted)]
    if old:
        fix = "Run `shipway upgrade` again: it brings every API server to the version before a kubelet that it answers."
        message = f"API servers are older than the kubelet that is to come (v{wanted}): {', '.join(old)}"
        raise Refused(message, host=on.name, code="SHW-785", fix=fix)


@dataclass(frozen=True)
class KubeletRunsVersion:
    """kubelet and kubectl have a version, and the kubelet that runs is the one that is installed.

    `apis` are the API servers that may answer it on a control plane. On a worker `kubeadm upgrade node` goes before
    (`by_kubeadm`): it takes the kubelet's configuration from the cluster. Where a run was killed between the two, both
    are done again, and are as wanted to kubeadm.
    """

    impact: ClassVar[Impact] = Impact.WORKLOADS
    restarts: ClassVar[str] = "kubelet"
    version: str
    packages: Step[Host] = field(repr=False)
    held: Step[Host] = field(repr=False)
    cluster: Cluster = field(repr=False, compare=False)
    apis: tuple[OwnApi, ...] = ()
    by_kubeadm: bool = False

    @property
    def name(self) -> str:
        """The version."""
        return f"the kubelet that runs is {self.version}"

    async def check(self, on: Host) -> Drift | None:
        """Ask the package manager, systemd and the kernel."""
        if (drift := await self.packages.check(on)) is not None:
            return drift
        info, program = await on.read(UnitState("kubelet.service"), EXECUTABLE)
        if info.active != "active":
            return Drift(f"the kubelet is {info.active}", "active")
        if info.needs_reload:
            return Drift("its unit changed since systemd read it", "systemd has read it")
        if "(deleted)" in program.stdout:
            return Drift("the kubelet was started before its program changed", "started after")
        return None

    async def apply(self, on: Host) -> None:
        """Let kubeadm write its configuration, install, restart. Raises Refused SHW-785 for an older API server."""
        await permit_not_newer(on, wanted=self.version, apis=self.apis)
        if self.by_kubeadm:
            kubeadm = await on.read(ProgramVersion("kubeadm"))
            if kubeadm != self.version:
                raise Blocked(f"kubeadm is {kubeadm or 'not there'}, and not {self.version}", host=on.name)
            await upgrade(on, self.cluster, self.version, apply=False)
        if await self.packages.check(on) is not None:
            await self.packages.apply(on)
        await self.held.apply(on)  # what is installed by name is held no more
        await on.do(
            Command(("systemctl", "daemon-reload"), seconds=60),
            Command(("systemctl", "restart", "kubelet"), seconds=120),
        )
        await _see_it_stay(on, self.version)


async def _see_it_stay(on: Host, version: str) -> None:
    """See a kubelet stay up for a moment: one that its configuration or a flag ends dies within it.

    Raises PostconditionFailed SHW-796 with its last words.
    """
    for _ in range(STAYS_SECONDS):
        await asyncio.sleep(1.0)
        on.forget()
        info = await on.read(UnitState("kubelet.service"))
        if info.active != "active":
            fix = f"Mend that on {on.name}, then run again; docs/upgrade.md has the way back to the old packages."
            error = PostconditionFailed(f"kubelet {version} does not stay up", host=on.name, code="SHW-796", fix=fix)
            raise await add_last_words(on, error)


@dataclass(frozen=True)
class NodeReports:
    """A node's kubelet says that it is of a version, and is Ready, since it was started last.

    `since` is that start in whole seconds since 1970, by the host's clock: for 40 s after a kubelet went away its node
    still says what it said before.
    """

    node: str
    version: str
    since: int = 0

    @property
    def name(self) -> str:
        """The node and the version."""
        return f"node {self.node} is Ready with v{self.version}"

    async def check(self, on: Kube) -> Drift | None:
        """Read its status."""
        node = (await nodes_by_name(on)).get(self.node)
        why = why_not_ready(node)
        have = kubelet_of(node or {})
        if not why and have == self.version and posted_at(node or {}) >= self.since:
            return None
        return Drift(why or f"v{have}, posted before its kubelet was started", f"Ready with v{self.version}")


@dataclass(frozen=True)
class NodeOpenedAgain:
    """A node that Shipway closed takes pods again; one that somebody else closed stays theirs."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    node: str

    @property
    def name(self) -> str:
        """The node."""
        return f"node {self.node} takes pods, unless somebody else closed it"

    async def check(self, on: Kube) -> Drift | None:
        """Look for our own note on a closed node, and for one that it has outlived."""
        node = (await nodes_by_name(on)).get(self.node) or {"metadata": {}}
        if note := cordon_note(node):
            return Drift(f"closed by Shipway: {note}", "open")
        return Drift(f"Shipway's note {note}", "no note") if (note := left_note(node)) else None

    async def apply(self, on: Kube) -> None:
        """Open it."""
        await uncordon(on, self.node)
