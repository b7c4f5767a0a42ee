"""Whether a member may leave an etcd cluster: the one place for that arithmetic, which every verb asks.

etcd takes a write, a change of its members too, when more than half of all members agree (etcd documentation, "FAQ" and
"Runtime reconfiguration"). Members leave one at a time, and this is asked anew before each one.
"""

from __future__ import annotations


def least(members: int) -> int:
    """Return how many members must be healthy for a cluster of so many to take writes."""
    return members // 2 + 1


def why_not_leave(members: int, healthy: int, *, goes_healthy: bool, allow: bool = False) -> str:
    """Return why one member may not leave a cluster of `members` voters of which `healthy` are; "" where it may.

    `goes_healthy` says whether the one that goes is healthy itself. `allow` is what a person decided: to be left with
    an even number of members that can lose none, or with one. Nothing allows more than that. Raises ValueError for
    numbers that no cluster has.
    """
    if not 0 <= healthy <= members or (goes_healthy and not healthy):
        raise ValueError(f"{healthy} healthy of {members} members, one of them goes")
    if not goes_healthy and healthy == members:
        raise ValueError(f"all {members} members are healthy, and the one that goes is not")
    left, sound, ill = members - 1, healthy - goes_healthy, members - healthy
    never = (
        (not left, "it is the last member of etcd: with it the cluster's data is gone"),
        (
            healthy < least(members),
            f"etcd has no quorum ({healthy} of {members} members are healthy): no change of its members can be voted",
        ),
        (
            goes_healthy and ill > 0,
            f"{ill} of {members} members of etcd {'is' if ill == 1 else 'are'} not healthy: such a one goes first",
        ),
        (
            sound < least(left),
            f"{sound} of the {left} members that are left would be healthy, and etcd needs {least(left)}",
        ),
    )
    unless_allowed = (
        (left == 1, "one member would be left, which is as safe as its one disk"),
        (
            left % 2 == 0 and sound == least(left),
            f"{left} members would be left, and etcd could lose none of them",
        ),
    )
    return next((why for so, why in (*never, *(() if allow else unless_allowed)) if so), "")


def why_not_pause(members: int, healthy: int) -> str:
    """Return why one healthy member may not be away for a while, as for a restart of its host; "" where it may.

    The only member of a cluster may: then its API is away for as long, and nothing is lost with it. Raises ValueError
    for numbers that no cluster has.
    """
    if not 0 <= healthy <= members or not members:
        raise ValueError(f"{healthy} healthy of {members} members")
    if healthy < least(members):
        return f"etcd has no quorum ({healthy} of {members} members are healthy)"
    if members > 1 and healthy - 1 < least(members):
        return f"{healthy - 1} of {members} members of etcd would be left, and it needs {least(members)}"
    return ""
