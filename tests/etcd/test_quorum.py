"""No sequence of removals that is allowed, one after the other, ever leaves an etcd without its quorum."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipway.etcd.quorum import least, why_not_leave, why_not_pause

MEMBERS = st.integers(min_value=1, max_value=9)


@st.composite
def clusters(draw: st.DrawFn) -> tuple[int, int]:
    """Draw how many members there are, and how many of them are healthy."""
    members = draw(MEMBERS)
    return members, draw(st.integers(min_value=0, max_value=members))


def can_leave(members: int, healthy: int) -> list[bool]:
    """Return which kinds of member there are to leave: a healthy one, one that is not."""
    return [True] * (healthy > 0) + [False] * (healthy < members)


@given(clusters(), st.lists(st.tuples(st.booleans(), st.booleans()), max_size=12))
def test_no_allowed_sequence_of_removals_loses_the_quorum(
    cluster: tuple[int, int], asked: list[tuple[bool, bool]]
) -> None:
    members, healthy = cluster
    for goes_healthy, allow in asked:
        if goes_healthy not in can_leave(members, healthy):
            continue
        if why_not_leave(members, healthy, goes_healthy=goes_healthy, allow=allow):
            continue
        members, healthy = members - 1, healthy - goes_healthy
        assert members >= 1
        assert healthy >= least(members)


@given(clusters(), st.booleans())
def test_whatever_a_person_allows_the_rule_itself_holds(cluster: tuple[int, int], allow: bool) -> None:  # noqa: FBT001 - drawn
    members, healthy = cluster
    for goes_healthy in can_leave(members, healthy):
        if not why_not_leave(members, healthy, goes_healthy=goes_healthy, allow=allow):
            assert 2 * healthy > members, "the removal itself has to be voted"
            assert healthy - goes_healthy >= (members - 1) // 2 + 1
            assert not goes_healthy or healthy == members, "members that are not healthy go first"


@given(MEMBERS, st.booleans())
def test_the_last_member_never_leaves(healthy: int, allow: bool) -> None:  # noqa: FBT001 - drawn
    assert why_not_leave(1, 1, goes_healthy=True, allow=allow)
    if healthy == 1:
        assert why_not_leave(1, 0, goes_healthy=False, allow=allow)


@pytest.mark.parametrize(
    ("members", "healthy", "goes_healthy", "alone", "allowed"),
    [
        (3, 3, True, "could lose none", ""),
        (3, 2, False, "could lose none", ""),
        (3, 2, True, "not healthy", "not healthy"),
        (3, 1, False, "no quorum", "no quorum"),
        (5, 5, True, "", ""),
        (5, 4, False, "", ""),
        (5, 3, False, "could lose none", ""),
        (5, 2, False, "no quorum", "no quorum"),
        (4, 4, True, "", ""),
        (4, 3, False, "", ""),
        (4, 2, False, "no quorum", "no quorum"),
        (2, 2, True, "one member would be left", ""),
        (2, 1, False, "no quorum", "no quorum"),
        (1, 1, True, "last member", "last member"),
    ],
)
def test_the_table_of_the_rule(members: int, healthy: int, goes_healthy: bool, alone: str, allowed: str) -> None:  # noqa: FBT001 - a table
    for allow, want in ((False, alone), (True, allowed)):
        said = why_not_leave(members, healthy, goes_healthy=goes_healthy, allow=allow)
        assert (want in said) if want else not said, said


@pytest.mark.parametrize(
    ("members", "healthy", "goes_healthy"), [(0, 0, False), (3, 4, True), (3, 0, True), (3, 3, False), (3, -1, False)]
)
def test_numbers_that_no_cluster_has_are_a_fault(members: int, healthy: int, goes_healthy: bool) -> None:  # noqa: FBT001 - a table
    with pytest.raises(ValueError, match="members"):
        why_not_leave(members, healthy, goes_healthy=goes_healthy)


@given(clusters())
def test_a_member_pauses_only_while_the_others_have_a_quorum_or_it_is_the_only_one(cluster: tuple[int, int]) -> None:
    members, healthy = cluster
    if not why_not_pause(members, healthy):
        assert healthy >= least(members)
        assert members == 1 or healthy - 1 >= least(members)
    else:
        assert healthy - 1 < least(members)


def test_a_cluster_that_there_is_not_pauses_nobody() -> None:
    for members, healthy in ((0, 0), (3, 4), (3, -1)):
        with pytest.raises(ValueError, match="members"):
            why_not_pause(members, healthy)
    assert [not why_not_pause(count, count) for count in (1, 2, 3, 4, 5)] == [True, False, True, True, True]
