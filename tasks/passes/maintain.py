"""What a run that maintains the hosts' systems has seen of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from shipway.facts.packages import Pending
from shipway.stage import StageName
from tasks.passes.waves import WavePass


@dataclass(frozen=True, slots=True)
class SystemState:
    """A host's system: what is pending, why it is to be restarted, the kernel that runs.

    `runtime` is what containerd is and what the file pins it to ("1.6.20", "1.7.27"), empty where they agree. `kernel`
    says whether the kernel is among what may change. `held` says that packages are held by a run that was broken off.
    `driver` is what the GPUs' driver is and what is declared, None where they agree or nothing of it is asked. `mode`
    says that one of the reasons is a mode of MIG, with which the GPUs are other ones for pods.
    """

    pending: tuple[Pending, ...] = ()
    reasons: tuple[str, ...] = ()
    running: str = ""
    runtime: tuple[str, str] | None = None
    kernel: bool = True
    held: bool = False
    driver: tuple[str, str] | None = None
    mode: bool = False

    @property
    def needs(self) -> bool:
        """Whether anything of the host is to be changed."""
        return bool(self.pending or self.reasons or self.runtime or self.held or self.driver)


@dataclass
class MaintainPass(WavePass):
    """`hosts` is what was seen of each host's system; a run about the `driver` changes nothing else."""

    verb: ClassVar[str] = "maintenance"
    command: ClassVar[str] = "maintain"
    look: ClassVar[StageName] = StageName.MAINTAIN_LOOK
    possible: ClassVar[StageName] = StageName.MAINTAIN_POSSIBLE
    worker: ClassVar[StageName] = StageName.MAINTAIN_WORKER
    closes_all: ClassVar[bool] = True
    driver: bool = False
    hosts: dict[str, SystemState] = field(default_factory=dict)
