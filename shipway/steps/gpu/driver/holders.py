"""Who has a GPU's device open on a host: what is asked before the driver below it is changed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shipway.errors import Refused
from shipway.facts.commands import Says
from shipway.gpu.chosen import VENDOR
from shipway.host.session import Host
from shipway.kube.nodes import few
from shipway.redact import tail
from shipway.step import Drift

ENDED = "all-asked"  # the last line: without it somebody was not asked, which is not nobody
# A line for each process that has one of the devices open: number, name, and the slice that it is in.
_ASK = f"""
for pid in $(find /proc/[0-9]*/fd -lname '{VENDOR.devices}' 2>/dev/null | cut -d/ -f3 | sort -un); do
  echo "$pid $(tr ' ' _ <"/proc/$pid/comm") $(tr '\\n' ' ' <"/proc/$pid/cgroup")"
done 2>/dev/null
command -v find cut sort >/dev/null && echo {ENDED}
"""
HOLDERS = Says(("sh", "-c", _ASK), 60)
# The driver's own services and those that only watch; the kernel keeps 15 characters of a name. They end with the
# restart that follows, and hold no work.
WATCHERS = re.compile(
    r"nvidia-persiste|nv-fabricmanage|nvlsm|nvidia-imex|nv-hostengine|dcgm-exporter|nvidia-device-p|gpu-feature-dis"
    r"|nvidia-smi"
)
PODS = "kubepods"


def find_holders(said: str, *, outside: bool) -> list[str]:
    """Return which programs hold a GPU, by what `HOLDERS` prints; with `outside` only those that are no pod's."""
    rows = [line.split(" ", 2) for line in said.splitlines() if line.count(" ") > 1]
    return [
        f"{name} ({pid})"
        for pid, name, group in rows
        if not WATCHERS.fullmatch(name) and not (outside and PODS in group)
    ]


@dataclass(frozen=True)
class Nobody:
    """Nobody holds a GPU; `outside`: nobody but pods, which a drain ends, and whatever else does forbids the change."""

    outside: bool = False

    @property
    def name(self) -> str:
        """The fact."""
        return f"no program{' outside of pods' if self.outside else ''} holds a GPU"

    async def check(self, on: Host) -> Drift | None:
        """Look at the open files of all processes. Raises Refused SHW-688 with who it is outside of pods.

        Where not all of them could be looked at that is no nobody: it is refused likewise, or drift.
        """
        said = await on.read(HOLDERS)
        if not said.ok or ENDED not in said.stdout.splitlines():
            why = f"it cannot be told who holds a GPU (status {said.status}: {tail(said.stderr) or 'cut short'})"
            if self.outside:
                look = f"Look for whoever has {VENDOR.devices} open on it (`lsof`), then run again."
                raise Refused(why, host=on.name, code="SHW-688", fix=look)
            return Drift(why, "held by nobody")
        found = find_holders(said.stdout, outside=self.outside)
        if found and self.outside:
            fix = "End them, or wait for their end, then run again: whatever computes on a GPU would fail."
            raise Refused(f"a GPU is held by {few(found)}", host=on.name, code="SHW-688", fix=fix)
        return Drift(f"held by {few(found)}", "held by nobody") if found else None
