"""How much memory a container may lock: as much as containerd itself, for Kubernetes sets no limit of its own.

systemd gives containerd 8 MiB (DefaultLimitMEMLOCK), and its packages' unit says nothing else. A pod that registers GPU
memory with a network card then cannot, and NCCL goes on over TCP without a word (nvidia-container-toolkit#2037). The
limit that counts is that of the process that runs: a drop-in reaches it when containerd is started the next time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from shipway.edits.containerd import CONFIG
from shipway.errors import Blocked
from shipway.facts.commands import Says
from shipway.facts.services import UnitState
from shipway.host.session import Host
from shipway.step import Drift, Impact
from shipway.steps.runtime.containerd import ContainerdLoaded
from shipway.steps.system.services import CONTAINERD

DROP_IN = "/etc/systemd/system/containerd.service.d/98-shipway-memlock.conf"
TEXT = "# Kept by Shipway: containers lock as much memory as they ask for.\n[Service]\nLimitMEMLOCK=infinity\n"
UNLIMITED = "unlimited"  # /proc/PID/limits (proc(5))
ASK = (
    "pid=$(systemctl show -p MainPID --value containerd.service); case $pid in ''|*[!0-9]*) pid=0 ;; esac; "
    "grep -H '^Max locked memory' /proc/$pid/limits /proc/1/limits; grep '^CapEff:' /proc/1/status"
)
LIMITS = Says(("sh", "-c", ASK))
_LINE = re.compile(
    r"^/proc/([1-9][0-9]{0,9})/limits:Max locked memory +(unlimited|[0-9]{1,20}) +(unlimited|[0-9]{1,20})", re.MULTILINE
)
_CAPABILITIES = re.compile(r"^CapEff:\s*([0-9a-f]{1,16})$", re.MULTILINE)
SYS_RESOURCE = 24  # CAP_SYS_RESOURCE (linux/capability.h): without it nobody raises a limit that is given


def read_limits(said: str) -> tuple[str, str]:
    """Return what containerd may lock, "" where it does not run, and the most that the first process can give it."""
    own = {int(match[1]): (match[2], match[3]) for match in _LINE.finditer(said)}
    first, bits = own.pop(1, (UNLIMITED, UNLIMITED)), _CAPABILITIES.search(said)
    raises = bits is None or bool(int(bits[1], 16) >> SYS_RESOURCE & 1)
    return next((soft for soft, _ in own.values()), ""), UNLIMITED if raises else first[1]


@dataclass(frozen=True)
class MemoryLockUnlimited:
    """The containerd that runs may lock any amount of memory, or as much as a host that is a container can give."""

    impact: ClassVar[Impact] = Impact.SERVICE
    restarts: ClassVar[str] = CONTAINERD
    unit: str = CONTAINERD
    name: str = "containers may lock memory without a limit"

    async def check(self, on: Host) -> Drift | None:
        """Read the limits of the process; one that does not run gets them when it is started."""
        info, said = await on.read(UnitState(f"{self.unit}.service"), LIMITS)
        if info.load == "not-found":
            raise Blocked(f"{self.unit} is not installed yet", host=on.name)
        have, most = read_limits(said.stdout)
        if have in ("", UNLIMITED) or (most != UNLIMITED and int(have) >= int(most)):
            return None
        return Drift(f"{have} bytes (Max locked memory of containerd)", f"{most}; a restart of containerd follows")

    async def apply(self, on: Host) -> None:
        """Restart containerd as after any change of what it reads at its start; raises as that does."""
        await ContainerdLoaded(self.unit, (CONFIG,)).apply(on)
