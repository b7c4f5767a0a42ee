"""What a run that upgrades a cluster has seen of the versions that run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar

from shipway.kubeadm.certificates import APISERVER as API
from shipway.rules.compatibility import triple
from shipway.stage import StageName
from tasks.passes.waves import OrderRow, WavePass

FULL = re.compile(r"\d{1,4}\.\d{1,4}\.\d{1,5}")


@dataclass(frozen=True, slots=True)
class HostVersions:
    """What a host runs (1.36.2 each, empty where it is not there): programs, the kubelet by its node, static pods.

    `static` has the tag of each of kubeadm's static pods, by its name. `held`: an update in passing changes none of its
    packages.
    """

    kubeadm: str = ""
    program: str = ""
    static: tuple[tuple[str, str], ...] = ()
    held: bool = True

    def runs(self, version: str, kubelet: str) -> bool:
        """Say whether all of it is of a version, as is the kubelet that its node tells of."""
        tags = [tag for name, tag in self.static if name != "etcd"]
        return {self.kubeadm, self.program, kubelet, *(tag.removeprefix("v") for tag in tags)} == {version}

    def begun(self, version: str) -> bool:
        """Say whether a part of it is of a version already."""
        return version in {self.kubeadm, self.program, *(tag.removeprefix("v") for _, tag in self.static)}


@dataclass
class UpgradePass(WavePass):
    """`have` is what the API server ran when the run began, `hosts` what runs by host.

    `gone` are the APIs that clients ask for and the version does not have.
    """

    verb: ClassVar[str] = "upgrade"
    command: ClassVar[str] = "upgrade"
    look: ClassVar[StageName] = StageName.UPGRADE_LOOK
    possible: ClassVar[StageName] = StageName.UPGRADE_POSSIBLE
    worker: ClassVar[StageName] = StageName.UPGRADE_WORKER
    have: str = ""
    hosts: dict[str, HostVersions] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)

    def oldest(self) -> str:
        """Return the oldest version of a control plane that was seen, by its manifest: the API that answered is one."""
        tags = [tag.removeprefix("v") for one in self.hosts.values() for part, tag in one.static if part == API]
        return min([self.have, *(tag for tag in tags if FULL.fullmatch(tag))], key=triple)

    def said(self, row: OrderRow) -> str:
        """Return in few words what becomes of a host."""
        return f"has v{row.have}"
