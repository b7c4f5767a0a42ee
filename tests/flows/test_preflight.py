"""What a host must be is found by looking, before anything is changed."""

from __future__ import annotations

from typing import Any, cast

import pytest

from shipway.cluster_file import parse_cluster
from shipway.errors import Permanent
from shipway.facts.commands import Says
from shipway.facts.fact import Fact
from shipway.facts.files import FileInfo, FileState, FileText
from shipway.host.session import Host
from shipway.step import Check, Drift, Step
from shipway.steps.system.preflight import BEGUN, AddressOnHost, CgroupFits, PortsFree, SizeEnough, SystemSupported
from tasks.stages import preflight
from tests.places.facts import DEBIAN, KnownFacts, said

Facts = dict[Fact[Any], Any]
UBUNTU = 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\nID=ubuntu\nVERSION_ID="22.04"\n'
THERE = FileInfo("0" * 64, "600", "root:root", 1)
SOCKETS = (
    'LISTEN 0 4096 *:10250 *:* users:(("kubelet",pid=7,fd=3))\n'
    'LISTEN 0 128 [::]:22 [::]:* users:(("sshd",pid=1,fd=3))\n'
    "LISTEN 0 128 127.0.0.1:2379 0.0.0.0:*\n"
)


async def look(check: Check[Host], facts: Facts) -> Drift | None:
    return await check.check(cast("Host", KnownFacts(facts)))


def machine(**other: str) -> Facts:
    values = {"os": UBUNTU, "arch": "x86_64", "init": "systemd"} | other
    return {
        FileText("/etc/os-release"): values["os"],
        Says(("uname", "-m")): said(f"{values['arch']}\n"),
        FileText("/proc/1/comm"): f"{values['init']}\n",
    }


@pytest.mark.parametrize(
    ("facts", "have"),
    [
        (machine(), None),
        (machine(arch="aarch64", os='ID=debian\nVERSION_ID="12"\n'), None),
        (machine(os='ID=debian\nPRETTY_NAME="Debian GNU/Linux forky/sid"\n'), None),  # testing has no version
        (machine(os='ID=ubuntu\nVERSION_ID="18.04"\nPRETTY_NAME="Ubuntu 18.04.6 LTS"\n'), "Ubuntu 18.04.6 LTS"),
        (machine(os='ID=haiku\nPRETTY_NAME="Haiku"\n'), "Haiku"),
        (machine(arch="armv7l"), "armv7l"),
        (machine(init="bash"), "no systemd"),
        ({}, "unknown system, unknown architecture, no systemd"),
    ],
)
async def test_systems_that_were_not_tried_are_refused(facts: Facts, have: str | None) -> None:
    drift = await look(SystemSupported(), facts)
    assert (drift.have if drift else None) == have


def size(cpus: str, kib: int, free: int) -> Facts:
    table = f"Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda1 1 1 {free} 1% /\n"
    return {
        Says(("nproc",)): said(f"{cpus}\n"),
        FileText("/proc/meminfo"): f"MemTotal:  {kib} kB\nMemFree: 1 kB\n",
        Says(("df", "-Pk", "/var/lib")): said(table),
    }


@pytest.mark.parametrize(
    ("facts", "control", "have"),
    [
        (size("2", 2_000_000, 9 * 2**20), True, None),
        (size("1", 1_000_000, 9 * 2**20), False, None),
        (size("1", 1_000_000, 9 * 2**20), True, "1 CPU, 976 MB memory"),
        (size("64", 2**30, 2**20), False, "1.0 GiB free in /var/lib"),
        ({}, False, "0 CPU, 0 MB memory, 0.0 GiB free in /var/lib"),
    ],
)
async def test_a_host_too_small_is_named_with_what_it_lacks(facts: Facts, have: str | None, *, control: bool) -> None:
    drift = await look(SizeEnough(control), facts)
    assert (drift.have if drift else None) == have


@pytest.mark.parametrize(
    ("kind", "minor", "allowed", "fits"),
    [
        ("cgroup2fs", (1, 36), False, True),
        ("tmpfs", (1, 34), False, True),
        ("tmpfs", (1, 35), False, False),
        ("tmpfs", (1, 35), True, True),  # by name: failCgroupV1 is set for the kubelet
        ("", (1, 37), False, False),
    ],
)
async def test_cgroup_v1_is_refused_from_1_35_on_unless_it_is_allowed_by_name(
    kind: str, minor: tuple[int, int], *, allowed: bool, fits: bool
) -> None:
    facts: Facts = {Says(("stat", "-fc", "%T", "/sys/fs/cgroup")): said(f"{kind}\n")}
    assert (await look(CgroupFits(minor, allowed), facts) is None) == fits


async def test_a_taken_port_is_reported_with_who_has_it_and_our_own_are_no_fault() -> None:
    facts: Facts = {Says(("ss", "-Hltnp")): said(SOCKETS)}
    with pytest.raises(Permanent, match="2379 is used by unknown, 10250 is used by kubelet") as raised:
        await look(PortsFree((10250, 2379, 6443)), facts)
    assert raised.value.code == "SHW-474"
    assert await look(PortsFree((6443,)), facts) is None
    for ours in BEGUN:
        assert await look(PortsFree((10250,)), {**facts, FileState(ours): THERE}) is None


async def test_the_nodes_address_must_be_on_the_host() -> None:
    listed = "1: lo    inet 127.0.0.1/8 scope host lo\n2: eth0    inet 10.0.0.1/24 brd 10.0.0.255 scope global eth0\n"
    facts: Facts = {Says(("ip", "-o", "-4", "addr", "show")): said(listed)}
    assert await look(AddressOnHost("10.0.0.1"), facts) is None
    assert await look(AddressOnHost("127.3.3.3"), facts) is None
    drift = await look(AddressOnHost("10.0.0.2"), facts)
    assert drift is not None
    assert drift.have == "127.0.0.1, 10.0.0.1"


def test_preflight_can_change_nothing() -> None:
    made = parse_cluster("name: demo\nhosts: [10.0.0.1, 10.0.0.2]\n")
    found = [check for host in made.hosts for check in preflight.checks(made, host, DEBIAN)]
    assert len(found) > 15
    assert not any(isinstance(check, Step) for check in found)
