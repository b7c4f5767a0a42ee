"""Whether a control plane may be away for a while: etcd is asked, right before each one."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from shipway.errors import ApiUnavailable, Blocked, Refused, ShipwayError
from shipway.etcd.quorum import why_not_pause
from shipway.facts.commands import Says
from shipway.facts.files import Listing
from shipway.host.session import Host
from shipway.kubeadm.certificates import ETCD
from shipway.kubeadm.writes import MANIFESTS
from shipway.step import Check, Drift
from shipway.steps.kubernetes import etcd_members
from shipway.steps.kubernetes.etcd_members import says_healthy, settled_members

# What an etcd says of itself where its host asks it, without a certificate (kubeadm: --listen-metrics-urls).
OWN_WORD = Says(("curl", "-s", "--noproxy", "*", "--max-time", "5", "http://127.0.0.1:2381/health"), seconds=10)


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


@dataclass(frozen=True)
class EtcdMayStop:
    """etcd keeps its quorum while this host's own member is started anew, which any drift of these steps leads to.

    Before certificates that have expired are new, nobody can ask the members; then it cannot be told yet. A member that
    does not vote takes nothing away.
    """

    because: tuple[Check[Host], ...] = field(repr=False)
    name: str = "etcd keeps its quorum while its member here is started anew"

    async def check(self, on: Host) -> Drift | None:
        """Ask etcd on this host, where it is to be stopped. Raises Refused SHW-823, Blocked where it does not tell."""
        looks = await asyncio.gather(*(step.check(on) for step in self.because), return_exceptions=True)
        for look in looks:
            if isinstance(look, BaseException) and not isinstance(look, ShipwayError):
                raise look
        stops = any(isinstance(look, Drift) for look in looks)
        if not stops or f"{ETCD}.yaml" not in await on.read(Listing(MANIFESTS)) or not await _votes(on):
            return None
        try:
            return await QuorumStays().check(on)
        except ApiUnavailable as error:
            message = f"whether etcd keeps its quorum cannot be told: {error.message}"
            fix = "Bring every control plane back first (docs/control-planes.md), then run again."
            raise Blocked(message, host=on.name, fix=fix) from error


async def _votes(on: Host) -> bool:
    """Say whether this host's etcd votes: one that says so within the time that a start takes to settle."""
    ends = time.monotonic() + etcd_members.SETTLE_SECONDS
    while not says_healthy((await on.read(OWN_WORD)).stdout):
        if time.monotonic() > ends:
            return False
        await asyncio.sleep(etcd_members.EVERY_SECONDS)
        on.forget()
    return True
