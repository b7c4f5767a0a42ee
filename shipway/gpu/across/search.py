"""Find what makes a collective across hosts slow: a rail of a host, a host, the path between two, or blocks of hosts.

Pairs come first: in two rounds (three for an odd number of hosts) every host has worked with two others. Who is slow
with both is asked again beside one that is well, with half of its rails, and half of those. Hosts that are well then
form one ring; where that is slow, its halves are measured, and theirs. So a fault among n hosts of r rails is named in
O(log n + log r) rounds; what is measured in one round has no host in common.

A rail is one GPU of each host with the network card beside it, by its number on the host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

SHARE = 0.8  # of what equals reach, below it a rate is slow: two healthy pairs of one fabric differ by some percent
PAIR = 2
EQUALS = 3  # pairs: of fewer none is the measure of the others

T = TypeVar("T")
Hosts = tuple[str, ...]
Rails = tuple[int, ...]
Kind = Literal["rail", "host", "path", "blocks"]
# Returns the rate of each rail, GB/s, of a collective over these rails of these hosts; None where it did not work.
Measure = Callable[[Hosts, Rails], Awaitable[float | None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is slow: rail `rail` of the host, the host, the path between two hosts, or what joins two blocks of hosts.

    `rate` is what it reached and `wanted` what it had to, GB/s per rail; None where it did not work at all.
    """

    kind: Kind
    hosts: Hosts
    rate: float | None
    wanted: float
    rail: int | None = None
    others: Hosts = ()  # of blocks: the other one

    def __str__(self) -> str:
        """Say who, for people."""
        if self.kind == "rail":
            return f"rail {self.rail} of {self.hosts[0]}"
        if self.kind == "blocks":
            return f"what joins {_named(self.hosts)} and {_named(self.others)}"
        return self.hosts[0] if self.kind == "host" else f"the path between {self.hosts[0]} and {self.hosts[1]}"


@dataclass(slots=True)
class Search:
    """What was found: faults, the rates of pairs and ring (GB/s per rail), and how many rounds it took.

    `wanted` is None where nothing was judged, and `why` says so.
    """

    faults: list[Fault] = field(default_factory=list)
    pairs: dict[Hosts, float | None] = field(default_factory=dict)
    ring: float | None = None
    wanted: float | None = None
    rounds: int = 0
    why: str = ""


async def search(hosts: Sequence[str], rails: int, measure: Measure, *, floor: float | None = None) -> Search:
    """Return what makes collectives over `rails` rails of these hosts slow.

    What a pair must reach is `SHARE` of the last of the better half, and never less than `floor` (GB/s per rail) where
    one is known; with neither enough pairs nor a floor nothing is judged, unless a pair did not work at all.
    """
    return await _Searching(tuple(hosts), tuple(range(rails)), measure, floor).run()


class _Searching:
    """One search under way. What a method returns as `rounds` is how many measurements it made one after another."""

    def __init__(self, hosts: Hosts, rails: Rails, measure: Measure, floor: float | None) -> None:
        self.hosts, self.rails, self.measure, self.floor = hosts, rails, measure, floor
        self.found = Search()

    async def run(self) -> Search:
        """Go through pairs, suspects and ring."""
        found = self.found
        if len(self.hosts) < PAIR:
            found.why = "there is one host"
            return found
        for pairs in rounds_of_pairs(self.hosts):
            found.pairs.update(zip(pairs, await self._measured(pairs), strict=True))
            found.rounds += 1
        found.wanted = self._wanted()
        if found.wanted is None:
            found.why = f"{len(found.pairs)} pairs have no equals to be held against, and no floor is known"
            return found
        well = await self._judge_pairs()
        if len(well) > PAIR:
            found.ring = await self.measure(well, self.rails)
            found.rounds += 1
            if self._slow(found.ring):
                found.rounds += await self._halve(well, found.ring)
        return found

    async def _measured(self, groups: Sequence[Hosts]) -> list[float | None]:
        """Measure groups that have no host in common, all at once."""
        return await asyncio.gather(*(self.measure(hosts, self.rails) for hosts in groups))

    def _wanted(self) -> float | None:
        told = [rate for rate in self.found.pairs.values() if rate is not None]
        known = [] if self.floor is None else [self.floor]
        if len(told) >= EQUALS:
            known.append(SHARE * sorted(told, reverse=True)[len(told) // 2 - 1])  # one sick host is in two pairs
        if not known and len(told) < len(self.found.pairs):
            return 0.0  # what did not work at all is a fault on any hardware
        return max(known, default=None)

    def _slow(self, rate: float | None) -> bool:
        return rate is None or rate < (self.found.wanted or 0.0)

    def _blame(
        self, kind: Kind, hosts: Hosts, rate: float | None, *, rail: int | None = None, others: Hosts = ()
    ) -> None:
        self.found.faults.append(Fault(kind, hosts, rate, self.found.wanted or 0.0, rail, others))

    async def _judge_pairs(self) -> Hosts:
        """Find whose fault slow pairs are; return the hosts that are well.

        Of two that a slow path joins only the first is among them.
        """
        slow = {pair: rate for pair, rate in self.found.pairs.items() if self._slow(rate)}
        met = {host: [pair for pair in self.found.pairs if host in pair] for host in self.hosts}
        suspects = [host for host in self.hosts if all(pair in slow for pair in met[host])]
        partners = [host for host in self.hosts if not any(pair in slow for pair in met[host])]
        if suspects and not partners:  # each was slow with somebody: nothing tells them apart
            for pair, rate in slow.items():
                self._blame("path", pair, rate)
            return ()
        sick: set[str] = set()
        for at in range(0, len(suspects), len(partners) or 1):
            beside = list(zip(suspects[at:], partners, strict=False))
            asked = await asyncio.gather(*(self._ask_again(host, other) for host, other in beside))
            sick |= {host for (host, _), (is_sick, _) in zip(beside, asked, strict=True) if is_sick}
            self.found.rounds += max(rounds for _, rounds in asked)
        paths = {pair: rate for pair, rate in slow.items() if not sick & set(pair)}
        for pair, rate in paths.items():
            self._blame("path", pair, rate)
        return tuple(host for host in self.hosts if host not in sick | {pair[1] for pair in paths})

    async def _ask_again(self, host: str, beside: str) -> tuple[bool, int]:
        """Say whether a suspect is slow beside a host that is well, too, and how many rounds that took.

        Its fault is told: its slow rails, or itself.
        """
        rate = await self.measure((host, beside), self.rails)
        if not self._slow(rate):
            return False, 1
        slow, rounds = await self._slow_rails((host, beside), self.rails)
        if 0 < len(slow) < len(self.rails):
            for rail, reached in slow.items():
                self._blame("rail", (host,), reached, rail=rail)
        else:  # every rail, or none alone: what they share
            self._blame("host", (host,), rate)
        return True, 1 + rounds

    async def _slow_rails(self, pair: Hosts, rails: Rails) -> tuple[dict[int, float | None], int]:
        """Return which of these rails are slow alone. Halves are one after another: they share the host's memory."""
        slow: dict[int, float | None] = {}
        rounds = 0
        for half in halves(rails) if len(rails) > 1 else ():
            rate = await self.measure(pair, half)
            rounds += 1
            if self._slow(rate) and len(half) == 1:
                slow[half[0]] = rate
            elif self._slow(rate):
                deeper, more = await self._slow_rails(pair, half)
                slow |= deeper
                rounds += more
        return slow, rounds

    async def _halve(self, ring: Hosts, rate: float | None) -> int:
        """Go on in the halves of a slow ring that are slow; where none is, in what joins them. Return the rounds."""
        one, other = halves(ring)  # a ring has three hosts at least
        told = await self._measured([half for half in (one, other) if len(half) > 1])
        slow = [(half, reached) for half, reached in zip((one, other), told, strict=False) if self._slow(reached)]
        if not slow:
            return 1 + await self._cross(one, other, rate)
        return 1 + max(await asyncio.gather(*(self._halve(half, reached) for half, reached in slow)))

    async def _cross(self, one: Hosts, other: Hosts, rate: float | None) -> int:
        """Go on in halves of one with halves of the other, while one such is slow: a path, or else what joins both."""
        if len(one) == len(other) == 1:
            self._blame("path", one + other, rate)
            return 0
        ones, others = halves(one), halves(other)
        straight = list(zip(ones, others, strict=False))
        crossed = list(zip(ones, others[::-1], strict=False)) if len(others) > 1 else [(a, others[0]) for a in ones[1:]]
        if len(ones) == 1:
            straight, crossed = [(one, others[0])], [(one, others[1])]
        slow = []
        for pairs in (straight, crossed):  # no host is in two of one round
            told = await self._measured([a + b for a, b in pairs])
            slow += [(a, b, reached) for (a, b), reached in zip(pairs, told, strict=True) if self._slow(reached)]
        if len(slow) != 1:  # none: only all of them together are slow; several: it is not one path
            self._blame("blocks", one, rate, others=other)
            return 2
        return 2 + await self._cross(*slow[0])


def rounds_of_pairs(hosts: Hosts) -> list[list[Hosts]]:
    """Return pairs of neighbours of the ring of these hosts, in rounds in which each host is in one pair at most."""
    if len(hosts) == PAIR:  # each other's only neighbour
        return [[hosts]]
    edges: list[Hosts] = [(hosts[at], hosts[(at + 1) % len(hosts)]) for at in range(len(hosts))]
    last = [edges.pop()] if len(edges) % 2 else []
    return [some for some in (edges[::2], edges[1::2], last) if some]


def halves(whole: tuple[T, ...]) -> list[tuple[T, ...]]:
    """Return the first and the second half, of an odd number the first with one more; one alone is its only half."""
    middle = (len(whole) + 1) // 2
    return [half for half in (whole[:middle], whole[middle:]) if half]


def _named(hosts: Hosts) -> str:
    return hosts[0] if len(hosts) == 1 else f"{hosts[0]} to {hosts[-1]} ({len(hosts)} hosts)"
