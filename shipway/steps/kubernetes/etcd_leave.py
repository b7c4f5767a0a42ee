"""A member leaves etcd: by its id, through a healthy member, and only where the rule of the quorum lets it go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from shipway.errors import Refused
from shipway.etcd.quorum import least, why_not_leave
from shipway.host.session import Host
from shipway.step import Drift, Impact
from shipway.steps.kubernetes.etcd_members import Member, member_of, members_of, remove_member


def why_stay(members: Sequence[Member], leaving: Member, *, allow: bool) -> str:
    """Return why a member may not leave now; "" where it may.

    `allow` is that a person or the cluster file wants fewer members. One that is not healthy leaves nothing worse
    behind, so an even number is no reason to keep it; one without a vote takes none away.
    """
    voters = [one for one in members if not one.learner]
    healthy = sum(one.healthy for one in voters)
    if leaving.learner:
        short = healthy < least(len(voters))
        return f"etcd has no quorum ({healthy} of {len(voters)} members are healthy)" if short else ""
    return why_not_leave(len(voters), healthy, goes_healthy=leaving.healthy, allow=allow or not leaving.healthy)


@dataclass(frozen=True)
class MemberGone:
    """No member of etcd has the address or the name of a host; asked, and done, on the host of another member."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    host: str
    address: str
    allow: bool = False

    @property
    def name(self) -> str:
        """The host."""
        return f"{self.host} is no member of etcd"

    async def check(self, on: Host) -> Drift | None:
        """List the members."""
        own = member_of(await members_of(on), self.host, self.address)
        return Drift(own.said, "no member") if own else None

    async def apply(self, on: Host) -> None:
        """Look again, ask the rule, and remove it. Raises Refused SHW-707 where it may not leave."""
        on.forget()
        members = await members_of(on)
        own = member_of(members, self.host, self.address)
        if own is None:
            return
        if why := why_stay(members, own, allow=self.allow):
            fix = "See `shipway drift` for the members that are not healthy; mend those, then run again."
            raise Refused(f"its member of etcd may not leave: {why}", host=self.host, code="SHW-707", fix=fix)
        await remove_member(on, own)
        on.forget()
