"""Whether a control plane may be away for a while: etcd is asked, right before each one."""

from __future__ import annotations

from dataclasses import dataclass

from shipway.errors import Refused
from shipway.etcd.quorum import why_not_pause
from shipway.host.session import Host
from shipway.step import Drift
from shipway.steps.kubernetes.etcd_members import settled_members


@dataclass(frozen=True)
class QuorumStays:
    """etcd keeps its quorum while one of its members is away."""

    name: str = "etcd keeps its quorum without one of its members"

    async def check(self, on: Host) -> Drift | None:
        """Ask etcd on this host. Raises Refused SHW-823, and ApiUnavailable where it does not answer."""
        members = [one for one in await settled_members(on) if not one.learner]
        if why := why_not_pause(len(members), sum(one.healthy for one in members)):
            fix = "Bring every control plane back first (docs/control-planes.md), then run again."
            raise Refused(f"no control plane may be restarted now: {why}", host=on.name, code="SHW-823", fix=fix)
        return None
