"""The connections of a run: how many are made at once, who shares a jump host, and that each is closed; in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from shipway.errors import ShipwayError, Unreachable
from shipway.host.ssh import pool as module
from shipway.host.ssh.config import Way
from shipway.host.ssh.pool import HANDSHAKES, STARTUPS, Pool, Roads
from shipway.host.target import Target

GATE = Target("te1 (jump host)", "gate")
HOST = Target("te1", "10.0.0.1", jump=GATE)


@dataclass
class Made:
    """A connection, and the one that it leads through."""

    net: Net
    name: str
    through: Made | None
    closed: bool = False

    def is_closed(self) -> bool:
        """Say so."""
        return self.closed

    def close(self) -> None:
        """End it."""
        self.closed = True
        self.net.ended.append(self.name)

    async def wait_closed(self) -> None:
        """Be closed."""


@dataclass
class Net:
    """What stands for connecting: it takes a turn of the loop, fails, or never ends."""

    made: list[Made] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    fails: Callable[[Target], ShipwayError | None] = lambda _: None
    hangs: bool = False
    now: int = 0
    most: int = 0
    cancelled: int = 0

    async def connect(self, way: Way, through: Made | None) -> Made:
        """Connect."""
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await (asyncio.Event().wait() if self.hangs else asyncio.sleep(0.001))
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)  # to put away what it had begun
            self.cancelled += 1
            raise
        finally:
            self.now -= 1
        if error := self.fails(way.target):
            raise error
        one = Made(self, way.target.address, through)
        self.made.append(one)
        return one


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    one = Net()
    monkeypatch.setattr(module, "connect", one.connect)
    return one


async def through(roads: Roads, target: Target = HOST) -> Any:
    """Return the connection that a host's connection leads through."""
    connection, _ = await asyncio.wait_for(roads.connection(target), 5)
    return connection.through  # type: ignore[attr-defined]


def hosts(count: int, *, jump: Target | None = GATE) -> list[Target]:
    """Return hosts, each behind its own name of the jump host, as a cluster file has them."""
    named = [replace(jump, name=f"te{one} (jump host)") if jump else None for one in range(count)]
    return [Target(f"te{one}", f"10.0.0.{one}", jump=named[one]) for one in range(count)]


async def test_all_behind_a_jump_host_share_one_connection_to_it_while_it_lives(net: Net) -> None:
    roads = Roads()
    ways = await asyncio.gather(*(through(roads, host) for host in hosts(10)))
    assert {way.name for way in ways} == {"gate"}
    assert len({id(way) for way in ways}) == 1
    ways[0].closed = True
    assert await through(roads) is not ways[0]
    assert [made.name for made in net.made].count("gate") == 2


async def test_a_host_without_a_jump_host_leads_through_nothing(net: Net) -> None:
    assert await through(Roads(), replace(HOST, jump=None)) is None
    assert len(net.made) == 1


async def test_an_attempt_that_failed_or_was_cancelled_is_made_anew_and_each_host_is_named(net: Net) -> None:
    roads = Roads()
    net.fails = lambda target: Unreachable("no answer", host=target.name) if target.address == "gate" else None
    ended = await asyncio.gather(*(through(roads, host) for host in hosts(3)), return_exceptions=True)
    assert [error.host for error in ended if isinstance(error, Unreachable)] == [
        f"te{one} (jump host)" for one in range(3)
    ]
    net.fails = lambda _: None
    way = await through(roads)
    (key,) = roads._jumps
    roads._jumps[key] = asyncio.create_task(asyncio.sleep(60))  # type: ignore[arg-type]
    roads._jumps[key].cancel()
    await asyncio.sleep(0)
    assert await through(roads) is not way


@pytest.mark.parametrize(
    ("targets", "most"),
    [
        ([replace(host, address="10.0.0.1") for host in hosts(40, jump=None)], STARTUPS),
        (hosts(200, jump=None), HANDSHAKES),
    ],
)
async def test_no_sshd_and_not_this_machine_has_too_many_handshakes_at_once(
    net: Net, targets: list[Target], most: int
) -> None:
    roads = Roads()
    await asyncio.gather(*(roads.connection(target) for target in targets))
    assert net.most == most


async def test_at_the_end_jump_hosts_are_closed_the_last_first_and_attempts_are_broken_off(net: Net) -> None:
    roads = Roads()
    inner = replace(GATE, name="", address="inner", jump=replace(GATE, name=""))
    await through(roads, replace(HOST, jump=inner))
    assert {way.address for way in roads._jumps} == {"inner", "gate"}
    net.hangs = True
    waiting = asyncio.create_task(roads.connection(replace(HOST, jump=replace(GATE, address="silent"))))
    await asyncio.sleep(0.01)
    await asyncio.wait_for(roads.close(), 5)
    assert net.cancelled == 1
    assert net.ended == ["inner", "gate"], "it leads through the other one"
    await asyncio.gather(waiting, return_exceptions=True)
    net.hangs = False
    assert (await through(roads)).closed is False, "what is asked for later is made anew"


async def test_a_pool_has_one_session_a_target_and_closes_all_that_it_made(net: Net) -> None:
    pool = Pool()
    others = [pool.host(target) for target in hosts(3)]
    assert [pool.host(target) for target in hosts(3)] == others
    for host in others:
        await host.shell._open()  # type: ignore[attr-defined]
    await pool.hang_up(Target("other", "10.9.9.9"))
    assert net.ended == []
    await pool.hang_up(hosts(3)[1])
    assert net.ended == ["10.0.0.1"]
    await pool.close()
    assert sorted(net.ended) == ["10.0.0.0", "10.0.0.1", "10.0.0.1", "10.0.0.2", "gate"]
    assert net.ended[-1] == "gate", "those that lead through it first"
    assert pool.host(hosts(1)[0]) is not others[0]
