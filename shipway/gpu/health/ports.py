"""The ports of InfiniBand and RoCE adapters, as the kernel shows them below /sys/class/infiniband, into a verdict.

The files and their words are the kernel's (Documentation/ABI/stable/sysfs-class-infiniband, drivers/infiniband/core/
sysfs.c); no adapter was at hand to record any. How much a counter may grow is what rdma-core suggests for ibqueryerrors
(infiniband-diags/etc/error_thresholds), but for links that went down: one is one too many beside a job.

Whether a port ought to be up no adapter tells. The cluster file may (`gpu.rails`); else it is what most hosts with the
same adapters have. Where neither says it, a port that is down is not judged.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from shipway.facts.commands import Says
from shipway.foreign.numbers import whole
from shipway.gpu.health.growth import FIRST, Counted

MOST: Mapping[str, int] = {
    "link_downed": 0,
    "link_error_recovery": 10,
    "symbol_error": 10,
    "port_rcv_errors": 10,
    "local_link_integrity_errors": 10,
    "excessive_buffer_overrun_errors": 10,
}
FILES = (
    "*/hca_type",
    "*/device/uevent",
    *(f"*/ports/*/{name}" for name in ("state", "phys_state", "rate", "link_layer")),
    *(f"*/ports/*/counters/{name}" for name in MOST),
)
SCRIPT = f"cd /sys/class/infiniband 2>/dev/null || exit 0; grep -sH . {' '.join(FILES)}; true"
LOOK = Says(("sh", "-c", SCRIPT))
UNTOLD = "its error counters are not told"
ACTIVE, LINK_UP = "ACTIVE", "LinkUp"
KNOWN_STATES = ("DOWN", "INIT", "ARMED", ACTIVE, "ACTIVE_DEFER")
LONGEST = 64  # characters of what a file says
FEWEST = 2  # equals that must say the same before one that differs is called wrong
_OF_ADAPTER = re.compile(r"([^/:\s]{1,64})/(hca_type|device/uevent):(.*)")
_OF_PORT = re.compile(r"([^/:\s]{1,64})/ports/([0-9]{1,3})/(?:counters/)?([a-z_]{1,40}):(.*)")
_NUMBERED = re.compile(r"[0-9]{1,3}: ([A-Za-z_]{1,40})")
_RATE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) Gb/sec\b")


@dataclass(frozen=True, slots=True)
class Port:
    """A port as it is: `name` is `ADAPTER/NUMBER`, `slot` its PCI address, `adapter` its type, "" what is not told."""

    name: str
    slot: str = ""
    adapter: str = ""
    layer: str = ""
    state: str = ""
    phys: str = ""
    rate: str = ""

    @property
    def up(self) -> bool:
        """Whether traffic may pass."""
        return self.state == ACTIVE

    @property
    def gigabits(self) -> float | None:
        """The rate in Gb/s; None where it is told in no such words."""
        found = _RATE.match(self.rate)
        return float(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class PortHealth:
    """What is made of a port: its faults, and what could not be judged."""

    port: Port
    faults: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()

    @property
    def word(self) -> Literal["ok", "sick", "not judged"]:
        """The verdict."""
        return "sick" if self.faults else "not judged" if self.unjudged else "ok"

    @property
    def title(self) -> str:
        """Who it is, for people."""
        kind = " ".join(word for word in (self.port.layer or "port", self.port.name, self.port.adapter) if word)
        return f"{kind} in {self.port.slot}" if self.port.slot else kind


@dataclass(frozen=True, slots=True)
class HostPorts:
    """The ports of a host by name, the rails that the cluster file declares for it, and what their counters grew by."""

    ports: Mapping[str, Port] = field(default_factory=dict)
    rails: Sequence[str] = ()
    grew: Mapping[str, Mapping[str, int] | None] = field(default_factory=dict)

    @property
    def kind(self) -> frozenset[tuple[str, str, str]]:
        """What makes hosts equals: ports of the same names, adapters and layers."""
        return frozenset((port.name, port.adapter, port.layer) for port in self.ports.values())


def read_ports(said: str) -> tuple[dict[str, Port], dict[str, dict[str, int]]]:
    """Return the ports of a host by name, and of each that tells its counters those that are not 0."""
    adapters: dict[str, dict[str, str]] = {}
    ports: dict[str, dict[str, str]] = {}
    for line in said.splitlines():
        if match := _OF_ADAPTER.fullmatch(line):
            key, value = match[2], match[3].strip()[:LONGEST]
            if key == "hca_type":
                adapters.setdefault(match[1], {})["adapter"] = value
            elif value.startswith("PCI_SLOT_NAME="):
                adapters.setdefault(match[1], {})["slot"] = value.partition("=")[2]
        elif match := _OF_PORT.fullmatch(line):
            ports.setdefault(f"{match[1]}/{match[2]}", {})[match[3]] = match[4].strip()[:LONGEST]
    found = {
        name: Port(
            name,
            state=_word(told.get("state", "")),
            phys=_word(told.get("phys_state", "")),
            rate=told.get("rate", ""),
            layer=told.get("link_layer", ""),
            **adapters.get(name.partition("/")[0], {}),
        )
        for name, told in sorted(ports.items())
    }
    return found, {
        name: {key: count for key in MOST if (count := whole(told.get(key, "")) or 0)}
        for name, told in ports.items()
        if any(whole(told.get(key, "")) is not None for key in MOST)
    }


def _word(said: str) -> str:
    """Return the word of `4: ACTIVE`; what is told otherwise as it is."""
    match = _NUMBERED.fullmatch(said)
    return match[1] if match else said


def judge_ports(hosts: Mapping[str, HostPorts]) -> dict[str, list[PortHealth]]:
    """Return by host the verdict on each of its ports, and on each rail that it lacks."""
    groups: dict[frozenset[tuple[str, str, str]], list[HostPorts]] = {}
    for one in hosts.values():
        groups.setdefault(one.kind, []).append(one)
    equals = {kind: _Equals(members) for kind, members in groups.items()}
    return {name: list(_judge_host(one, equals[one.kind])) for name, one in hosts.items()}


class _Equals:
    """What hosts with the same adapters show of each port: how many have it up, and at which rates."""

    def __init__(self, members: Sequence[HostPorts]) -> None:
        self.hosts = len(members)
        self.rates: dict[str, Counter[float | None]] = {}
        for member in members:
            for port in member.ports.values():
                self.rates.setdefault(port.name, Counter()).update([port.gigabits] if port.up else [])

    def ought(self, port: Port) -> bool | None:
        """Say whether a port that is down is up on most of the others (True), on none (False); None: not to be said."""
        others, up = self.hosts - 1, self.rates[port.name].total()
        if others < FEWEST:
            return None
        return True if up * 2 > others else False if not up else None

    def rate(self, port: Port) -> float | None:
        """Return the rate that most of the others that have it up show, in Gb/s; None where too few do."""
        others = self.rates[port.name] - Counter([port.gigabits])
        (rate, count), *_ = others.most_common(1) or [(None, 0)]
        return rate if count >= FEWEST and count * 2 > others.total() else None


def _judge_host(host: HostPorts, equals: _Equals) -> Iterator[PortHealth]:
    rails = [host.ports[name] for name in host.rails if name in host.ports]
    best = max((port.gigabits or 0.0 for port in rails if port.up), default=None)
    for port in host.ports.values():
        rail = port.name in host.rails
        made = PortHealth(port)
        more = host.grew.get(port.name)
        went = not port.up and (more or {}).get("link_downed", 0) > 0
        judged = (
            _up(port, equals.rate(port), best if rail else None)
            if port.up
            else _down(port, equals, rail=rail, went=went)
        )
        for fault, text in judged:
            made = _add(made, text, fault=fault)
        if port.up:
            for fault, text in _grown(more) if port.name in host.grew else [(False, UNTOLD)]:
                made = _add(made, text, fault=fault)
        yield made
    for name in host.rails:
        if name not in host.ports:
            yield PortHealth(Port(name), ("it is declared (rails), and is not there",))


def _add(made: PortHealth, text: str, *, fault: bool) -> PortHealth:
    if fault:
        return replace(made, faults=(*made.faults, text))
    return replace(made, unjudged=(*made.unjudged, text))


def _down(port: Port, equals: _Equals, *, rail: bool, went: bool) -> Iterator[tuple[bool, str]]:
    """Judge a port that is not up, as (whether it is a fault, what is said); one that `went` down since was used."""
    phys = f" ({port.phys})" if port.phys else ""
    said = f"its state is {port.state}{phys}"
    ought = equals.ought(port)
    if port.state not in KNOWN_STATES:
        yield False, f"its state is told as {port.state[:40] or 'nothing'}"
    elif rail:
        yield True, f"{said}, and it is declared (rails)"
    elif ought:
        yield True, f"{said}, and it is up on most hosts with the same adapters"
    elif went:
        yield True, f"{said}, and it went down since the last pass"
    elif ought is None:
        yield False, f"{said}, and nothing tells whether it ought to be up"


def _up(port: Port, equals: float | None, rails: float | None) -> Iterator[tuple[bool, str]]:
    """Judge a port that is up by its rate: `equals` is that of most equals, `rails` the best of its host's rails."""
    if port.phys == "LinkErrorRecovery":
        yield True, "its link is being recovered from errors right now"
    elif port.phys not in (LINK_UP, ""):
        yield False, f"it is ACTIVE while its physical state is {port.phys[:40]}"
    have = port.gigabits
    if have is None:
        yield False, f"its rate is told as {port.rate[:40] or 'nothing'}"
    elif equals is not None and have < equals:
        yield True, f"{have:g} Gb/s, and {equals:g} on most hosts with the same adapters"
    elif rails is not None and have < rails:
        yield True, f"{have:g} Gb/s, and {rails:g} on another rail of this host"


def _grown(more: Mapping[str, int] | None) -> Iterator[tuple[bool, str]]:
    if more is None:
        yield False, f"its error counters: {FIRST}"
        return
    bad = [f"{name} by {count}" for name, count in more.items() if count > MOST.get(name, count)]
    if bad:
        yield True, f"since the last pass grew {', '.join(bad)}"


def growth_of(ports: Mapping[str, Port], now: Counted, before: Counted | None) -> dict[str, Mapping[str, int] | None]:
    """Return by port what its counters grew by since a look before; None where there is nothing to compare with."""
    return {name: now.since(before, key_of(name)) for name in ports if key_of(name) in now.of}


def key_of(port: str) -> str:
    """Return what a port's counters are kept under, beside those of GPUs."""
    return f"port {port}"
