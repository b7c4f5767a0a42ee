"""The lease of a cluster is really held inside `hold`, and who loses it hears of it; on the SIMULATED API."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from shipway import retry
from shipway.errors import ApiUnavailable, Refused, ShipwayError
from shipway.kube.client import Object
from shipway.locks import lease as cluster_lease
from shipway.locks.lease import LEASE_SECONDS, STAMP, hold, holder
from tests.places.kube import Place, answering, cluster_of, gpu_host, place

ELSEWHERE = "ops@elsewhere pid 7, drift of te"
MINE = holder("bootstrap of te")


@pytest.fixture
async def small() -> AsyncIterator[Place]:
    async with place(hosts=[gpu_host(1, 0)], cluster=cluster_of(["te1"])) as made:
        yield made


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a lease end a second after its last renewal, and all else as much sooner."""
    monkeypatch.setattr(cluster_lease, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(cluster_lease, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(cluster_lease, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(cluster_lease, "AWAY_SECONDS", 0.25)
    monkeypatch.setattr(cluster_lease, "GIVE_BACK_SECONDS", 0.5)


class Road:
    """The way to an API, which can be cut; who is cut off may hear of it late."""

    def __init__(self, where: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.slow, self._send = True, 0.0, where.kube.send
        monkeypatch.setattr(where.kube, "send", self.send)

    async def send(self, method: str, path: str, **more: object) -> tuple[int, str]:
        """Send a request, where there is a way."""
        if not self.open:
            await asyncio.sleep(self.slow)
            raise ApiUnavailable("no answer from the Kubernetes API")
        return await self._send(method, path, **more)  # type: ignore[arg-type]


async def left(small: Place, who: str, *, ahead: float = 0.0) -> Object:
    """Let somebody hold the lease whose clock is so many seconds ahead; return it."""
    with pytest.MonkeyPatch.context() as patch:
        stamp = (datetime.now(UTC) + timedelta(seconds=ahead)).strftime(STAMP)
        patch.setattr(cluster_lease, "_now", lambda: stamp)
        await cluster_lease._put(small.kube, await cluster_lease._read(small.kube), who=who)
    return await found(small)


async def found(small: Place) -> Object:
    seen = await cluster_lease._read(small.kube)
    assert seen is not None
    return seen


async def takes(small: Place) -> bool:
    """Say whether a run may hold the lease."""
    try:
        async with hold(answering(small.kube), MINE):
            return (await found(small))["spec"]["holderIdentity"] == MINE
    except Refused:
        return False


async def test_a_second_holder_is_refused_and_learns_who_holds_the_lease(small: Place) -> None:
    async with hold(answering(small.kube), ELSEWHERE):
        with pytest.raises(Refused, match=f"{ELSEWHERE} since 20") as refused:
            async with hold(answering(small.kube), MINE):
                pytest.fail("two runs hold one lease")
        assert refused.value.code == "SHW-102"
    assert await takes(small), "given back"


async def test_the_lease_of_a_dead_process_of_this_machine_is_free_at_once(small: Place) -> None:
    here = cluster_lease._origin()
    await left(small, f"ops@{socket.gethostname()} pid {2**22 + 1} of {here}, drift of te")
    assert await takes(small)
    await left(small, f"ops@{socket.gethostname()} pid {os.getpid()} of {here}, drift of te")
    assert not await takes(small)


@pytest.mark.parametrize("origin", [" of 0123abcd-4567.4026531836", ""])
async def test_a_process_id_of_another_boot_or_machine_of_this_name_says_nothing(small: Place, origin: str) -> None:
    await left(small, f"ops@{socket.gethostname()} pid {2**22 + 1}{origin}, drift of te")
    assert not await takes(small)


@pytest.mark.parametrize("ahead", [0.0, -30.0, 30.0])
async def test_a_lease_renewed_within_a_minute_of_this_clock_is_held(small: Place, ahead: float) -> None:
    await left(small, ELSEWHERE, ahead=ahead)
    began = time.monotonic()
    assert not await takes(small)
    assert time.monotonic() - began < 10, "reported at once"


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("ahead", [-2.0 * LEASE_SECONDS, 2.0 * LEASE_SECONDS, 31_536_000.0])
async def test_a_lease_that_nobody_renews_is_followed_whatever_its_clock_said(small: Place, ahead: float) -> None:
    await left(small, ELSEWHERE, ahead=ahead)
    began, heard = time.monotonic(), list[str]()
    async with hold(answering(small.kube), MINE, on_wait=heard.append):
        assert time.monotonic() - began >= 1, "it was watched for as long as a lease lasts"
        assert (await found(small))["spec"]["holderIdentity"] == MINE
    assert "left behind by ops@elsewhere" in heard[0]


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("ahead", [-2.0 * LEASE_SECONDS, 2.0 * LEASE_SECONDS])
async def test_a_living_holder_with_a_wrong_clock_is_not_followed(small: Place, ahead: float) -> None:
    await left(small, ELSEWHERE, ahead=ahead)

    async def renewed() -> None:
        await asyncio.sleep(0.4)
        await left(small, ELSEWHERE, ahead=ahead)

    renewing = asyncio.create_task(renewed())
    with pytest.raises(Refused, match=r"its clock and this machine's are about 1[12]. s apart"):
        async with hold(answering(small.kube), MINE):
            pytest.fail("two runs hold one lease")
    await renewing


@pytest.mark.usefixtures("hurried")
async def test_a_watched_lease_that_is_given_back_is_taken(small: Place) -> None:
    await left(small, ELSEWHERE, ahead=-120)
    giving = asyncio.create_task(cluster_lease._give_back(answering(small.kube), ELSEWHERE))
    assert await takes(small)
    await giving


async def test_where_the_api_does_not_answer_nothing_is_held(small: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry.wait_random_exponential, "__call__", lambda *_: 0.0)
    Road(small, monkeypatch).open = False
    with pytest.raises(ApiUnavailable):
        async with hold(answering(small.kube), MINE):
            pytest.fail("nobody gave a lease")


@pytest.mark.usefixtures("hurried")
async def test_a_lease_that_cannot_be_renewed_is_reported_and_again_when_it_is(
    small: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    road, heard = Road(small, monkeypatch), list[ShipwayError | None]()

    async def unsure(error: ShipwayError | None) -> None:
        heard.append(error)

    async with hold(answering(small.kube), MINE, unsure):
        await asyncio.sleep(0.15)
        road.open = False
        await asyncio.sleep(0.6)
        road.open = True
        await asyncio.sleep(0.3)
        before = (await found(small))["spec"]["renewTime"]
        await asyncio.sleep(0.3)
        assert (await found(small))["spec"]["renewTime"] > before, "it is renewed on"
    assert isinstance(heard[0], ApiUnavailable)
    assert "was not renewed for" in heard[0].message
    assert heard[-1] is None
    assert heard.count(None) == 1


@pytest.mark.usefixtures("hurried")
async def test_who_was_followed_hears_by_whom_and_leaves_the_lease_alone(small: Place) -> None:
    heard: list[ShipwayError | None] = []

    async def unsure(error: ShipwayError | None) -> None:
        heard.append(error)

    async with hold(answering(small.kube), MINE, unsure):
        await left(small, ELSEWHERE)
        await asyncio.sleep(0.4)
    assert len(heard) == 1
    assert isinstance(heard[0], Refused)
    assert (heard[0].code, ELSEWHERE in heard[0].message) == ("SHW-102", True)
    assert (await found(small))["spec"]["holderIdentity"] == ELSEWHERE


@pytest.mark.usefixtures("hurried")
async def test_a_lease_that_was_deleted_is_made_anew(small: Place) -> None:
    async with hold(answering(small.kube), MINE):
        await small.kube.delete(cluster_lease.API, cluster_lease.KIND, cluster_lease.NAME, cluster_lease.NAMESPACE)
        await asyncio.sleep(0.4)
        assert (await found(small))["spec"]["holderIdentity"] == MINE


@pytest.mark.usefixtures("hurried")
async def test_an_api_that_is_gone_at_the_end_holds_nobody_up(small: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    road = Road(small, monkeypatch)
    async with hold(answering(small.kube), MINE):
        road.open, road.slow = False, 60.0
        began = time.monotonic()
    assert time.monotonic() - began < 5
