"""Which boot a host is in, since when, and with which kernel."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from shipway.facts.fact import Fact, Words
from shipway.script import Output

# What the first process is called may hold anything, so that file comes last.
ASK = (
    "cat /proc/sys/kernel/random/boot_id; uname -r; getconf CLK_TCK; sed -n 's/^btime //p' /proc/stat; date +%s; "
    "cat /proc/1/stat"
)
_STARTED = 19  # of /proc/PID/stat behind its first two fields (proc(5): the 22nd is starttime)


@dataclass(frozen=True, slots=True)
class Boot:
    """A boot: what tells it apart from others, when it was (seconds since 1970 by the host's clock), and its kernel.

    `id` is the kernel's own, with when the first process was started: a container is started anew under one kernel.
    """

    id: str
    since: float
    now: float
    kernel: str


@dataclass(frozen=True)
class BootIs(Fact[Boot | None]):
    """The boot that a host is in; None where its /proc does not tell."""

    def words(self) -> Words:
        """Print all of it at once."""
        return ("sh", "-c", ASK)

    def parse(self, output: Output) -> Boot | None:
        """Read the lines in their order."""
        boot_id, kernel, ticks, born, now, first = (*output.stdout.split("\n", 5), "", "", "", "", "", "")[:6]
        try:
            started = int(first.rpartition(")")[2].split()[_STARTED])
            boot = Boot(f"{boot_id}-{started}", int(born) + started / int(ticks), float(now), kernel)
        except (ValueError, IndexError, ArithmeticError):
            return None
        return boot if boot_id and kernel and math.isfinite(boot.since) and math.isfinite(boot.now) else None


def order_kernels(kernel: str) -> tuple[tuple[int, ...], str]:
    """Return what kernels are ordered by: their numbers, as 6.8.0-49 comes before 6.8.0-101."""
    return tuple(int(number) for number in re.findall(r"[0-9]{1,9}", kernel)), kernel
