"""What a simulated lab is asked to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lab.simulated.failures import Spec
from lab.simulated.ssh.limits import SshLimits
from lab.simulated.systems import SYSTEMS, System


@dataclass(frozen=True)
class Options:
    """The size and the world of a lab; `scale` is wall seconds for one second of a real host (0: nothing waits)."""

    hosts: int = 4
    gpus: int = 1
    profile: str = "seed"
    system: str = "ubuntu-22.04"
    seed: int = 1
    scale: float = 0.1
    control_plane_gpus: int | None = None
    swap: bool = True
    names: tuple[str, ...] = ()
    failures: tuple[Spec, ...] = ()
    drifts: tuple[Spec, ...] = ()
    cluster: dict[str, Any] = field(default_factory=dict)  # put over the cluster file that is written
    keep: bool = False
    sshd: SshLimits = field(default_factory=SshLimits)
    noisy: bool = True  # of several hosts the last: its login shell prints before each command

    @property
    def os(self) -> System:
        """The operating system of every host."""
        return SYSTEMS[self.system]

    def host_names(self) -> tuple[str, ...]:
        """Return the hosts' names: te1, te2, ... as in the guide."""
        return self.names or tuple(f"te{number}" for number in range(1, self.hosts + 1))

    def gpus_of(self, index: int) -> int:
        """Return the number of GPUs of the host at this place."""
        return self.control_plane_gpus if index == 0 and self.control_plane_gpus is not None else self.gpus
