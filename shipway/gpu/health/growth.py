"""Growth of error counters between two looks at a host: what a link has counted in its life says nothing of today."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CLOCKS = 60.0  # seconds: a boot's time is the clock's less the uptime, and both are rounded or set right meanwhile
FIRST = "nothing to compare with yet"


@dataclass(frozen=True, slots=True)
class Counted:
    """What a host's counters said at a look: by what they are of (a GPU's UUID, a port) the counters that are not 0.

    `at` is when, `booted` when the host started, both in seconds since 1970 by the host's clock; 0: not known.
    """

    at: float = 0.0
    booted: float = 0.0
    of: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def since(self, before: Counted | None, what: str) -> Mapping[str, int] | None:
        """Return by how much each counter of a thing has grown; None where there is nothing to compare with.

        So it is at a first look, after a boot, and where counters were set back (a driver was loaded anew): a link
        that comes up counts errors while it trains. What has counted nothing at all has not grown either.
        """
        if what in self.of and not self.of[what]:
            return {}
        if before is None or what not in self.of or what not in before.of:
            return None
        if not before.at < self.at or self.booted > before.at + CLOCKS:
            return None
        now, then = self.of[what], before.of[what]
        if any(count > now.get(name, 0) for name, count in then.items()):
            return None
        return {name: count - then.get(name, 0) for name, count in now.items() if count > then.get(name, 0)}
