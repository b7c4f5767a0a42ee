"""Faults that only show when hosts are compared: clones that replace each other as nodes, and clocks apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median_low

from shipway.errors import ErrorReport
from shipway.survey import Survey

SKEW_SECONDS = 5.0  # more breaks certificates ("not yet valid") and tokens (kubeadm#1988)
# Not unique on purpose: what firmware shows where its maker never set one (dmidecode prints the third of them a lot).
UNSET_UUIDS = (
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "03000200-0400-0500-0006-000700080009",
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One thing that must hold between hosts; `traps` are numbers of docs/traps.md."""

    title: str
    find: Callable[[Sequence[Survey]], Iterator[ErrorReport]]
    traps: tuple[int, ...]


def _shared(surveys: Sequence[Survey], of: Callable[[Survey], Sequence[str]]) -> list[tuple[str, ...]]:
    """Give the groups of hosts that show the same value."""
    hosts: dict[str, list[str]] = defaultdict(list)
    for one in surveys:
        for value in of(one):
            hosts[value].append(one.host)
    return list(dict.fromkeys(tuple(names) for names in hosts.values() if len(names) > 1))


def machine_ids(surveys: Sequence[Survey]) -> Iterator[ErrorReport]:
    """Clones have the same machine-id, and kubelet, network and DHCP take it for the host (kubeadm#31)."""
    fix = "Give each clone its own: `rm /etc/machine-id && systemd-machine-id-setup`, then reboot it."
    for hosts in _shared(surveys, lambda one: (one.machine_id,) if one.machine_id else ()):
        cause = f"the same machine-id on {', '.join(hosts)}: clones replace each other as nodes"
        for host in hosts:
            yield ErrorReport(host, "machine-id is unique", "SHW-311", cause, fix, retryable=False)


def product_uuids(surveys: Sequence[Survey]) -> Iterator[ErrorReport]:
    """Each node needs a product_uuid of its own (kubernetes.io, "Installing kubeadm")."""
    fix = "Two entries of the file may be one machine; else give each virtual machine its own UUID where it is made."
    for hosts in _shared(surveys, lambda one: _set(one.product_uuid)):
        cause = f"the same product_uuid on {', '.join(hosts)}: one machine twice, or clones"
        for host in hosts:
            yield ErrorReport(host, "product_uuid is unique", "SHW-314", cause, fix, retryable=False)


def _set(uuid: str) -> tuple[str, ...]:
    known = uuid.strip().lower()
    return (known,) if known and known not in UNSET_UUIDS else ()


def hardware_addresses(surveys: Sequence[Survey]) -> Iterator[ErrorReport]:
    """Two interfaces with one MAC in one network take each other's packets (kubernetes.io, "Installing kubeadm")."""
    fix = "See `ip -o link` on both; give the clone's network card a MAC of its own where the machine is made."
    for hosts in _shared(surveys, lambda one: one.macs):
        cause = f"the same MAC address on {', '.join(hosts)}: each gets the other's packets"
        for host in hosts:
            yield ErrorReport(host, "MAC addresses are unique", "SHW-315", cause, fix, retryable=False)


def clocks(surveys: Sequence[Survey]) -> Iterator[ErrorReport]:
    """Compare with the clock of a host in the middle: a mean between two groups would show neither to be off."""
    middle = median_low(one.skew for one in surveys) if surveys else 0.0
    for one in surveys:
        apart = one.skew - middle
        if abs(apart) > SKEW_SECONDS:
            cause = f"its clock is {apart:+.0f} s off the other hosts'"
            fix = f"Let {one.host} take its time from a server (chrony or systemd-timesyncd), then run again."
            yield ErrorReport(one.host, "the clocks agree", "SHW-312", cause, fix, retryable=False)


COMPARISONS: tuple[Comparison, ...] = (
    Comparison("machine-ids are unique", machine_ids, (12,)),
    Comparison("product_uuids are unique", product_uuids, (12,)),
    Comparison("MAC addresses are unique", hardware_addresses, (12,)),
    Comparison("the clocks agree", clocks, (15,)),
)


def compared(surveys: Sequence[Survey]) -> list[ErrorReport]:
    """Give every fault between hosts."""
    return [fault for comparison in COMPARISONS for fault in comparison.find(surveys)]
