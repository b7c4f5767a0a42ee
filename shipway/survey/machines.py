"""Faults that only show when hosts are compared: clones that replace each other as nodes, and clocks apart."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median_low

from shipway.errors import ErrorReport
from shipway.survey.first_look import Survey

SKEW_SECONDS = 5.0  # more breaks certificates ("not yet valid") and tokens (kubeadm#1988)
# What firmware shows where its maker never set one: AMI's template, digits in order, Dell's template without a service
# tag. Each stands for its other byte order too: SMBIOS 2.6 turned the first three fields around (SMBIOS reference,
# 7.2.1), and firmware shows the one or the other. A UUID that repeats its digits is recognised by its form.
UNSET_UUIDS = (
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "03000200-0400-0500-0006-000700080009",
    "12345678-1234-5678-90ab-cddeefaabbcc",
    "01234567-8910-1112-1314-151617181920",
    "01234567-89ab-cdef-0123-456789abcdef",
    "4c4c4544-0000-2010-8020-80c04f202020",
    "fefefefe-fefe-fefe-fefe-fefefefefefe",
)
NO_CLONE = "not_cloned"  # the key of a host's entry that says so


@dataclass(frozen=True, slots=True)
class Comparison:
    """One thing that must hold between hosts; `traps` are numbers of docs/traps.md."""

    title: str
    find: Callable[[Sequence[Survey]], Iterator[ErrorReport]]
    traps: tuple[int, ...]


def _find_shared(surveys: Sequence[Survey], of: Callable[[Survey], Sequence[str]]) -> list[tuple[str, ...]]:
    """Return the groups of hosts that show the same value."""
    hosts: dict[str, list[str]] = defaultdict(list)
    for one in surveys:
        for value in of(one):
            hosts[value].append(one.host)
    return list(dict.fromkeys(tuple(names) for names in hosts.values() if len(names) > 1))


def machine_ids(surveys: Sequence[Survey]) -> Iterator[ErrorReport]:
    """Clones have the same machine-id, and kubelet, network and DHCP take it for the host (kubeadm#31)."""
    fix = "Give each clone its own: `rm /etc/machine-id && systemd-machine-id-setup`, then reboot it, drained first."
    for hosts in _find_shared(surveys, lambda one: (one.machine_id,) if one.machine_id else ()):
        cause = f"the same machine-id on {', '.join(hosts)}: clones replace each other as nodes"
        for host in hosts:
            yield ErrorReport(host, "machine-id is unique", "SHW-311", cause, fix, retryable=False)


def product_uuids(surveys: Sequence[Survey]) -> Iterator[ErrorReport]:
    """Each node needs a product_uuid of its own (kubernetes.io, "Installing kubeadm")."""
    fix = (
        "Two entries of the file may be one machine; else give each virtual machine its own UUID where it is made. "
        f"Where they are machines whose maker set one UUID for all: `{NO_CLONE}: true` in the host's entry."
    )
    for hosts in _find_shared(surveys, lambda one: () if one.vouched else _set(one.product_uuid)):
        cause = f"the same product_uuid on {', '.join(hosts)}: one machine twice, or clones"
        for host in hosts:
            yield ErrorReport(host, "product_uuid is unique", "SHW-314", cause, fix, retryable=False)


def other_order(uuid: str) -> str:
    """Return a UUID with its first three fields in the other byte order (SMBIOS 2.6)."""
    first, second, third, *rest = uuid.split("-")
    return "-".join([*(bytes.fromhex(part)[::-1].hex() for part in (first, second, third)), *rest])


def _set(uuid: str) -> tuple[str, ...]:
    """Return the UUID where it is one that a maker or a hypervisor gave to this machine; else nothing to compare.

    What is no UUID ("Not Settable", "Not Specified"), the dummies in both byte orders, and any that repeats one or two
    digits or is nil but for its last field tell nothing of a machine; machine-id and MAC are compared beside it.
    """
    known = uuid.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", known):
        return ()
    digits = known.replace("-", "")
    repeated = digits in (digits[0] * 32, digits[:2] * 16, digits[:4] * 8)
    dummy = {known, other_order(known)} & set(UNSET_UUIDS)
    return () if dummy or repeated or not digits[:20].strip("0") else (known,)


def hardware_addresses(surveys: Sequence[Survey]) -> Iterator[ErrorReport]:
    """Two interfaces with one MAC in one network take each other's packets (kubernetes.io, "Installing kubeadm")."""
    fix = "See `ip -o link` on both; give the clone's network card a MAC of its own where the machine is made."
    for hosts in _find_shared(surveys, lambda one: one.macs):
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


def compare(surveys: Sequence[Survey]) -> list[ErrorReport]:
    """Return every fault between hosts."""
    return [fault for comparison in COMPARISONS for fault in comparison.find(surveys)]
