"""What a run that upgrades a cluster was asked for, and what it has seen of the versions that run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal

from shipway.errors import ErrorReport
from shipway.steps.upgrade.gpu_jobs import GpuJob

Cordon = Literal["", "ours", "another's"]


@dataclass(frozen=True, slots=True)
class HostVersions:
    """What a host runs (1.36.2 each, empty where it is not there): programs, the kubelet by its node, static pods.

    `static` has the tag of each of kubeadm's static pods, by its name.
    """

    kubeadm: str = ""
    program: str = ""
    static: tuple[tuple[str, str], ...] = ()

    def runs(self, version: str, kubelet: str) -> bool:
        """Say whether all of it is of a version, as is the kubelet that its node tells of."""
        tags = [tag for name, tag in self.static if name != "etcd"]
        return {self.kubeadm, self.program, kubelet, *(tag.removeprefix("v") for tag in tags)} == {version}

    def begun(self, version: str) -> bool:
        """Say whether a part of it is of a version already."""
        return version in {self.kubeadm, self.program, *(tag.removeprefix("v") for _, tag in self.static)}


@dataclass(frozen=True, slots=True)
class OrderRow:
    """One host of the order in which a run goes: what it has now, in which wave it comes, what its drain means.

    `pods` is how many pods of users would leave, `jobs` the pods that hold its GPUs with what was decided of each.
    """

    host: str
    wave: str
    have: str
    want: str
    pods: int = 0
    jobs: tuple[str, ...] = ()


@dataclass
class UpgradePass:
    """`backup` says whether the run takes one itself; `have` is what the API server ran when the run began.

    `hosts` and `kubelets` are what runs by host, `cordons` who closed its node, `skipped` why a host is left out,
    `gone` the APIs that clients ask for and the version does not have, `stopped` why the run went no further, `begun`
    whether this run or an earlier one has begun with a host, `changed` whether this run was about to change something.
    """

    backup: bool = True
    have: str = ""
    hosts: dict[str, HostVersions] = field(default_factory=dict)
    kubelets: dict[str, str] = field(default_factory=dict)
    cordons: dict[str, Cordon] = field(default_factory=dict)
    pods: dict[str, int] = field(default_factory=dict)
    jobs: list[GpuJob] = field(default_factory=list)
    order: list[OrderRow] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    stopped: ErrorReport | None = None
    begun: bool = False
    changed: bool = False
    proving: asyncio.Lock = field(default_factory=asyncio.Lock)
