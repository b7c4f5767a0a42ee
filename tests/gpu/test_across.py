"""A slow collective across hosts: the search names the one thing that is slow, in few rounds."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipway.gpu.across.search import Fault, Hosts, Rails, Search, rounds_of_pairs, search

WELL, SLOW = 40.0, 24.0  # GB/s per rail: a network card of 400 Gb/s, and one at half its speed with some overhead


@dataclass
class Fabric:
    """SIMULATED hosts with rails; a collective is as fast as the slowest thing it goes through."""

    hosts: Hosts
    rails: int
    slow: Callable[[Hosts, Rails], bool]
    at_work: set[str] = field(default_factory=set)
    measured: list[tuple[Hosts, Rails]] = field(default_factory=list)
    jitter: float = 0.03

    async def measure(self, hosts: Hosts, rails: Rails) -> float | None:
        """Return the rate; no host may be in two collectives at once."""
        assert not self.at_work & set(hosts), "a host in two collectives at once spoils both"
        self.at_work |= set(hosts)
        await asyncio.sleep(0)
        self.at_work -= set(hosts)
        self.measured.append((hosts, rails))
        unsteady = 1 - self.jitter * (crc32(repr((hosts, rails)).encode()) % 100) / 100
        return (SLOW if self.slow(hosts, rails) else WELL) * unsteady

    def find(self, floor: float | None = None) -> Search:
        """Search it."""
        return asyncio.run(search(self.hosts, self.rails, self.measure, floor=floor))


def named(number: int) -> Hosts:
    """Return so many host names."""
    return tuple(f"gpu-{at:03}" for at in range(number))


def neighbours(ring: Hosts) -> set[frozenset[str]]:
    """Return who is beside whom in a ring."""
    return {frozenset((ring[at], ring[(at + 1) % len(ring)])) for at in range(len(ring))}


@given(st.integers(4, 80), st.data())
def test_one_slow_rail_is_named(number: int, data: st.DataObject) -> None:
    """Among any number of hosts, in rounds that grow with the logarithm of the rails alone."""
    hosts = named(number)
    host, rail = data.draw(st.sampled_from(hosts)), data.draw(st.integers(0, 7))
    found = Fabric(hosts, 8, lambda some, rails: host in some and rail in rails).find()
    assert [(fault.kind, fault.hosts, fault.rail) for fault in found.faults] == [("rail", (host,), rail)]
    assert found.faults[0].rate is not None
    assert found.faults[0].rate < found.wanted < found.ring  # type: ignore[operator]
    assert found.rounds <= 3 + 1 + 2 * 3 + 1


def test_one_slow_rail_of_64_hosts() -> None:
    """64 hosts of 8 rails: a dozen rounds at most where all pairs of hosts would be 2,016."""
    found = Fabric(named(64), 8, lambda hosts, rails: "gpu-037" in hosts and 5 in rails).find()
    assert [str(fault) for fault in found.faults] == ["rail 5 of gpu-037"]
    assert found.rounds <= 2 + 2 * math.log2(64)


@given(st.integers(4, 64), st.data())
def test_a_slow_host_is_named(number: int, data: st.DataObject) -> None:
    """Where all rails of it are slow, and where they are only together."""
    hosts = named(number)
    host = data.draw(st.sampled_from(hosts))
    together = data.draw(st.booleans())
    found = Fabric(hosts, 4, lambda some, rails: host in some and (not together or len(rails) == 4)).find()
    assert [(fault.kind, fault.hosts) for fault in found.faults] == [("host", (host,))]


@given(st.integers(6, 64), st.data())
def test_a_slow_path_between_neighbours_is_named(number: int, data: st.DataObject) -> None:
    """Both hosts are well with others; the ring then goes without one of them."""
    hosts = named(number)
    at = data.draw(st.integers(0, number - 1))
    two = {hosts[at], hosts[(at + 1) % number]}
    found = Fabric(hosts, 8, lambda some, _: two <= set(some)).find()
    assert [(fault.kind, set(fault.hosts)) for fault in found.faults] == [("path", two)]
    assert found.ring is not None
    assert found.ring >= found.wanted  # type: ignore[operator]


@given(st.sampled_from([8, 16, 32, 64]), st.data())
def test_what_joins_two_blocks_is_named(number: int, data: st.DataObject) -> None:
    """Each block is well, and pairs of hosts across them are: their uplink is too narrow for more than one."""
    hosts = named(number)
    edge = number // 2
    one, other = set(hosts[:edge]), set(hosts[edge:])
    narrow = data.draw(st.integers(1, 2))

    def slow(some: Hosts, _: Rails) -> bool:
        return len(one & set(some)) > narrow and len(other & set(some)) > narrow

    found = Fabric(hosts, 8, slow).find()
    assert [fault.kind for fault in found.faults] == ["blocks"]
    fault = found.faults[0]
    assert set(fault.hosts) <= one
    assert set(fault.others) <= other
    assert found.rounds <= 3 + 2 * 2 * math.log2(number)


@given(st.sampled_from([8, 16, 32, 64]), st.data())
def test_a_path_between_hosts_that_were_no_pair(number: int, data: st.DataObject) -> None:
    """Only the ring goes over it: halves, then halves of one with halves of the other."""
    hosts = named(number)
    first = data.draw(st.integers(0, number - 3))
    second = data.draw(st.integers(first + 2, number - 1).filter(lambda at: (at + 1) % number != first))
    two = {hosts[first], hosts[second]}
    found = Fabric(hosts, 8, lambda some, _: two <= set(some)).find()
    assert [(fault.kind, set(fault.hosts)) for fault in found.faults] == [("path", two)]
    assert found.rounds <= 3 + 3 * math.log2(number)


@given(st.integers(12, 64), st.sets(st.integers(0, 60), min_size=2, max_size=3))
def test_several_slow_rails_are_all_named(number: int, where: set[int]) -> None:
    """Each of its host, when neighbours are among them, too."""
    hosts = named(number)
    sick = {hosts[at % number]: at % 8 for at in where}
    found = Fabric(hosts, 8, lambda some, rails: any(sick[one] in rails for one in some if one in sick)).find()
    assert {(fault.hosts[0], fault.rail) for fault in found.faults} == set(sick.items())


@pytest.mark.parametrize("number", [2, 3, 5, 64])
def test_a_fabric_that_is_well(number: int) -> None:
    """Nothing is named; the ring of all was measured, where it is more than a pair."""
    fabric = Fabric(named(number), 8, lambda _hosts, _rails: False)
    found = fabric.find(floor=30.0)
    assert not found.faults
    assert (found.ring is None) == (number == 2)
    assert found.wanted is not None
    assert found.rounds <= 4


def test_two_hosts_without_a_floor_are_not_judged() -> None:
    """One pair has no equals: that it is well is not said."""
    found = Fabric(named(2), 8, lambda _hosts, _rails: True).find()
    assert (found.wanted, found.faults, found.ring) == (None, [], None)
    assert "no floor is known" in found.why
    slow = Fabric(named(2), 8, lambda _hosts, _rails: True).find(floor=30.0)
    assert [str(fault) for fault in slow.faults] == ["the path between gpu-000 and gpu-001"]


def test_one_host_has_nobody() -> None:
    """Nothing is measured."""
    found = Fabric(named(1), 8, lambda _hosts, _rails: True).find()
    assert (found.rounds, found.why) == (0, "there is one host")


def test_what_does_not_work_at_all_is_a_fault_without_any_floor() -> None:
    """A pair whose collective fails is named on hardware of which nothing is known."""

    async def fail(_hosts: Hosts, _rails: Rails) -> float | None:
        return None

    found = asyncio.run(search(named(2), 8, fail))
    assert found.faults == [Fault("path", ("gpu-000", "gpu-001"), None, 0.0)]


@given(st.integers(2, 99))
def test_pairs_meet_each_neighbour_once(number: int) -> None:
    """Each host is with two others (of two with one), and in one pair of a round at most."""
    hosts = named(number)
    rounds = rounds_of_pairs(hosts)
    assert {frozenset(pair) for pairs in rounds for pair in pairs} == neighbours(hosts)
    for pairs in rounds:
        assert len({host for pair in pairs for host in pair}) == 2 * len(pairs)
    assert len(rounds) == (1 if number == 2 else 2 + number % 2)
