"""Which locks a run asks for, in which order, and what it does without: on locks in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shipway.errors import ApiUnavailable, ConnectionLost, Refused, ShipwayError
from shipway.step import Impact
from shipway.survey.first_look import Survey
from tasks import locking
from tasks.context import Run, View
from tasks.locking import claim_again, claim_host, lease, lease_or_host, new_lease, still_alone
from tests.drift.test_parts import run_of


@dataclass
class Locks:
    """The lease and the claim: what keeps from each, which are held, in the order in which they were asked for."""

    keeps: dict[str, ShipwayError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    left: bool = False  # whether the host is claimed already
    hosts: list[str] = field(default_factory=list)  # those whose claim was asked for

    def lock(self, name: str) -> Callable[..., AbstractAsyncContextManager[None]]:
        """Return what holds one of them."""

        @asynccontextmanager
        async def held(*given: Any) -> AsyncIterator[None]:
            self.asked.append(name)
            if name == "claim":
                self.hosts.append(given[0].name)
            elif callable(given[-1]):
                given[-1]("it is watched for 60 s")
            if name in self.keeps:
                raise self.keeps[name]
            yield

        return held

    async def claim_left(self, _: Any) -> bool:
        """Say whether the host is claimed."""
        return self.left

    async def claim_anew(self, session: Any, _: str) -> None:
        """Hold the host after its boot."""
        self.asked.append(f"claim of {session.name} again")


@pytest.fixture
def locks(monkeypatch: pytest.MonkeyPatch) -> Locks:
    made = Locks()
    monkeypatch.setattr(locking, "hold", made.lock("lease"))
    monkeypatch.setattr(locking, "claim", made.lock("claim"))
    monkeypatch.setattr(locking, "claim_left", made.claim_left)
    monkeypatch.setattr(locking, "claim_anew", made.claim_anew)
    return made


def changing(**joined: bool) -> Run:
    """Return a run that may change everything, which has seen these hosts."""
    run = run_of()
    run.allow = Impact.WORKLOADS
    run.seen.surveys = {name: cast("Survey", SimpleNamespace(joined=one)) for name, one in joined.items()}
    return run


HELD = Refused("another run works on this cluster", code="SHW-102")
AWAY = ApiUnavailable("no answer")


@pytest.mark.parametrize(
    ("joined", "left", "asked"),
    [
        ({"te1": False, "te2": False}, False, ["claim"]),  # no cluster yet
        ({"te1": True, "te2": False}, False, ["lease"]),
        ({"te1": False, "te2": True}, False, ["lease"]),  # its control plane is what is broken
        ({"te2": False}, False, ["lease"]),  # nobody could look at the control plane's host
        ({"te1": True}, True, ["claim", "lease"]),
    ],
)
async def test_a_run_holds_the_lease_of_a_cluster_and_the_claim_where_there_is_none_or_one_is_left(
    locks: Locks, joined: dict[str, bool], asked: list[str], *, left: bool
) -> None:
    run, locks.left = changing(**joined), left
    assert await lease(run) is None
    assert locks.asked == asked
    assert (run.locks.leased, run.locks.claimed) == ("lease" in asked, "claim" in asked)
    assert await lease(run) is None
    assert locks.asked == asked, "what is held is not asked for again"
    await run.close()


@pytest.mark.parametrize("joined", [True, False])
async def test_who_finds_the_host_claimed_by_another_run_does_not_ask_for_the_lease(
    locks: Locks, *, joined: bool
) -> None:
    locks.left, locks.keeps = True, {"claim": HELD}
    assert await lease(changing(te1=joined)) is HELD
    assert locks.asked == ["claim"]


async def test_who_finds_the_lease_taken_is_kept_out_and_claims_nothing(locks: Locks) -> None:
    locks.keeps = {"lease": HELD}
    run = changing(te1=True)
    assert await lease(run) is HELD
    assert locks.asked == ["lease"]
    assert not run.locks.leased


@pytest.mark.parametrize("keeps", [None, HELD, ConnectionLost("the host is away")])
async def test_where_the_api_is_away_the_claim_decides(locks: Locks, keeps: ShipwayError | None) -> None:
    locks.keeps = {"lease": AWAY, **({"claim": keeps} if keeps else {})}
    assert await lease(changing(te1=True)) is keeps
    assert locks.asked == ["lease", "claim"]


async def test_what_a_run_waits_for_and_does_without_is_reported(locks: Locks) -> None:
    said: list[str] = []
    locks.keeps = {"lease": AWAY}
    run = changing(te1=True)
    run.view = cast("View", SimpleNamespace(show_wait=lambda *words: said.append(words[-1])))
    await lease(run)
    assert said == ["it is watched for 60 s", "the cluster's lease is not taken: no answer"]
    await run.close()


@pytest.mark.parametrize("joined", [True, False])
async def test_a_plan_holds_nothing(locks: Locks, *, joined: bool) -> None:
    run = changing(te1=joined)
    run.allow = Impact.NOTHING
    assert await lease(run) is None
    await new_lease(run)
    assert locks.asked == []


async def test_a_lease_that_another_run_has_now_ends_this_run(locks: Locks) -> None:
    run = changing(te1=True)
    run.locks.leased = True
    still_alone(run)
    await locking._unsure(run, HELD)
    assert not run.locks.leased
    with pytest.raises(Refused, match=r"begins nothing more: another run works") as refused:
        still_alone(run)
    assert refused.value.code == "SHW-102"
    assert locks.asked == []


async def test_a_lease_that_cannot_be_renewed_is_made_up_for_by_the_claim_until_it_is_again(locks: Locks) -> None:
    run = changing(te1=True)
    run.locks.leased = True
    await locking._unsure(run, AWAY)
    still_alone(run)
    assert locks.asked == ["claim"]
    run.locks.claimed, locks.keeps = False, {"claim": HELD}
    await locking._unsure(run, AWAY)
    with pytest.raises(Refused):
        still_alone(run)
    await locking._unsure(run, None)
    still_alone(run)
    assert run.locks.leased
    await run.close()


@pytest.mark.parametrize(
    ("keeps", "gone", "kept_out", "hosts"),
    [
        ({}, True, None, []),
        ({"lease": HELD}, True, HELD, []),  # another run is at work on it: it is not gone
        ({"lease": AWAY, "claim": HELD}, True, HELD, ["te1"]),
        ({"lease": AWAY, "claim": AWAY}, False, AWAY, ["te1"]),
        ({"lease": AWAY, "claim": AWAY}, True, AWAY, ["te1", "te2"]),
    ],
)
async def test_the_host_that_is_reset_is_held_alone_only_where_a_person_says_that_the_cluster_is_gone(
    locks: Locks, keeps: dict[str, ShipwayError], kept_out: ShipwayError | None, hosts: list[str], *, gone: bool
) -> None:
    run, locks.keeps = changing(te1=True), keeps
    run.retirement.cluster_gone = gone
    assert await lease_or_host(run, "te2") is kept_out
    assert locks.hosts == hosts
    await run.close()


async def test_where_the_cluster_is_gone_a_host_that_can_be_claimed_is_enough(
    locks: Locks, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plain = changing(te1=True), locking.claim
    locks.keeps = {"lease": AWAY}

    @asynccontextmanager
    async def of_te2(session: Any, who: str) -> AsyncIterator[None]:
        async with plain(session, who):
            if session.name != "te2":
                raise AWAY
            yield

    monkeypatch.setattr(locking, "claim", of_te2)
    run.retirement.cluster_gone = True
    assert await lease_or_host(run, "te2") is None
    assert (locks.hosts, run.locks.claimed) == (["te1", "te2"], True)
    await run.close()


@pytest.mark.parametrize(
    ("keeps", "kept_out", "asked"),
    [
        ({}, None, ["lease", "claim"]),
        ({"lease": HELD}, HELD, ["lease"]),
        ({"lease": AWAY}, None, ["lease", "claim"]),
        ({"claim": HELD}, HELD, ["lease", "claim"]),
    ],
)
async def test_who_replaces_the_clusters_data_holds_the_host_and_asks_the_lease_alone(
    locks: Locks, keeps: dict[str, ShipwayError], kept_out: ShipwayError | None, asked: list[str]
) -> None:
    run, locks.keeps = changing(te1=True), keeps
    assert await claim_host(run) is kept_out
    assert (locks.asked, run.locks.leased, run.locks.claimed) == (asked, False, kept_out is None)
    await run.close()
    run.allow, locks.asked[:] = Impact.NOTHING, []
    assert (await claim_host(run), locks.asked) == (None, []), "a plan holds nothing"


@pytest.mark.parametrize(
    ("claimed", "host", "asked"),
    [(True, "te1", ["claim of te1 again"]), (True, "te2", []), (False, "te1", [])],
)
async def test_a_claim_ends_with_a_boot_and_is_made_again_where_the_run_had_it(
    locks: Locks, host: str, asked: list[str], *, claimed: bool
) -> None:
    run = changing(te1=True)
    run.locks.claimed = claimed
    await claim_again(run, host)
    assert locks.asked == asked
