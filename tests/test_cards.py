"""Cards are judged before anything is changed, and what a host will run into later is told."""

from __future__ import annotations

from typing import Any, cast

import pytest

from shipway.catalogue import diagnose
from shipway.facts.fact import Fact
from shipway.facts.files import FileState, FileText, Listing
from shipway.facts.services import UnitState
from shipway.host import Host
from shipway.notices import FORWARD, KERNELS, MODULES, RUNNING, UFW, firewall, next_kernel, noticed
from shipway.script import Output
from shipway.step import Drift
from shipway.steps.cards import KERNEL_LOG, SECURE_BOOT, SWITCHES, CardsHealthy, FabricReady, fabric_states
from shipway.survey import DRIVER, HANGS, PCI, PCI_CLASSES
from tests.facts_place import Told, said, unit

ONE_CARD: dict[Fact[Any], Any] = {
    PCI: said("/sys/bus/pci/devices/0000:10:00.0/vendor\n"),
    PCI_CLASSES: said("/sys/bus/pci/devices/0000:10:00.0/class\n"),
    DRIVER: said("GPU 0: NVIDIA A10 (UUID: GPU-1)\n"),
}
SILENT = said("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", 9)
FABRIC = "GPU 0\n    Fabric\n        State                             : {}\n        Status : Success\n"


async def of(facts: dict[Fact[Any], Any], declared: int | None = None) -> Drift | None:
    return await CardsHealthy(declared).check(cast("Host", Told(facts)))


async def test_a_card_that_the_driver_shows_is_well() -> None:
    assert await of(ONE_CARD) is None
    assert await of({}, 0) is None


@pytest.mark.parametrize(
    ("facts", "declared", "have", "code"),
    [
        ({}, 1, "0 on PCI", None),
        ({DRIVER: SILENT}, None, "couldn't communicate", "SHW-453"),
        ({DRIVER: said("", 124)}, None, HANGS, "SHW-461"),
        ({FileText("/proc/modules"): "nouveau 1 0 - Live\n"}, None, "Nouveau", "SHW-455"),
        ({DRIVER: said("Failed to initialize NVML: Driver/library version mismatch\n", 18)}, 1, "mismatch", "SHW-451"),
        (
            {DRIVER: SILENT, KERNEL_LOG: said("[ 4.1] nvidia: Loading of unsigned module is rejected\n")},
            None,
            "the kernel says: [ 4.1] nvidia: Loading of unsigned",
            "SHW-454",
        ),
        ({DRIVER: SILENT, SECURE_BOOT: said("SecureBoot enabled\n")}, None, "Secure Boot is on", "SHW-453"),
    ],
)
async def test_what_is_wrong_with_a_card_is_named_so_that_the_catalogue_knows_it(
    facts: dict[Fact[Any], Any], declared: int | None, have: str, code: str | None
) -> None:
    drift = await of({**(ONE_CARD if facts else {}), **facts}, declared)
    assert drift is not None
    assert have in drift.have
    assert "\n" not in drift.have
    known = diagnose(drift.have)
    assert (known.code if known else None) == code


async def fabric(**other: Any) -> Drift | None:
    state, manager, active = other.get("state", "Completed"), other.get("manager", "535.129.03"), other.get("active")
    host = Told({SWITCHES: ("0000:05:00.0",), FileText("/proc/driver/nvidia/version"): other.get("driver", "")})
    check = FabricReady()
    host.facts[UnitState("nvidia-fabricmanager.service")] = unit(active or "active")
    answers = {"nv-fabricmanager": f"Fabric Manager version is : {manager}\n", "nvidia-smi": FABRIC.format(state) * 2}
    read_all = host.read_all

    async def answered(facts: Any) -> list[Any]:
        values = await read_all(facts)
        return [
            said(answers[fact.command[0]]) if getattr(fact, "command", ("",))[0] in answers else value
            for fact, value in zip(facts, values, strict=True)
        ]

    host.read_all = answered  # type: ignore[method-assign]
    return await check.check(cast("Host", host))


async def test_a_machine_without_switches_is_asked_for_nothing_more() -> None:
    host = Told({})
    assert await FabricReady().check(cast("Host", host)) is None
    assert host.asked == [SWITCHES]


DRIVER_535 = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 2023\nGCC version: 12.3\n"


@pytest.mark.parametrize(
    ("other", "have"),
    [
        ({}, None),
        ({"state": "N/A"}, None),
        ({"active": "failed"}, "nvidia-fabricmanager is failed"),
        ({"manager": "535.104.05"}, "is of version 535.104.05, the driver of 535.129.03"),
        ({"state": "In Progress"}, "the fabric's state is In Progress on 2 cards"),
    ],
)
async def test_the_fabric_is_ready_when_its_manager_runs_in_the_drivers_version_and_says_so(
    other: dict[str, str], have: str | None
) -> None:
    drift = await fabric(driver=DRIVER_535, **other)
    assert (drift is None) == (have is None)
    if drift and have:
        assert have in drift.have
        known = diagnose(drift.have)
        assert known is not None
        assert known.code == "SHW-456"


def test_an_old_driver_tells_no_fabric() -> None:
    assert fabric_states("GPU 0\n    Product Name : NVIDIA A10\n") == []


@pytest.mark.parametrize(
    ("kernels", "modules", "told"),
    [
        (("6.8.0-49-generic",), "6.8.0-49-generic", False),
        (("6.8.0-101-generic", "6.8.0-49-generic"), "6.8.0-49-generic", True),  # 101 comes after 49
        (("6.8.0-101-generic", "6.8.0-49-generic"), "6.8.0-49-generic 6.8.0-101-generic", False),
        (("6.5.0-14-generic", "6.8.0-49-generic"), "6.8.0-49-generic", False),  # an older one is no next one
        (("6.8.0-101-generic", "6.8.0-49-generic"), "", False),  # no card, no module
        ((), "", False),
    ],
)
def test_a_next_kernel_without_the_driver_is_told(kernels: tuple[str, ...], modules: str, *, told: bool) -> None:
    paths = "".join(f"/lib/modules/{kernel}/updates/dkms/nvidia.ko.zst\n" for kernel in modules.split())
    found = next_kernel("6.8.0-49-generic", kernels, paths)
    assert bool(found) == told
    assert not told or "linux-headers-6.8.0-101-generic" in found


@pytest.mark.parametrize(
    ("ufw", "forward", "told"),
    [
        ("ENABLED=no\n", "-P FORWARD ACCEPT\n", ""),
        ("# x\nENABLED=yes\n", "-P FORWARD DROP\n", "ufw is on"),
        ("", "-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n", "drops forwarded packets"),
        ("", "", ""),
    ],
)
def test_a_firewall_that_is_on_is_told_with_what_to_open(ufw: str, forward: str, told: str) -> None:
    found = firewall(ufw, forward)
    assert told in found
    assert bool(told) == bool(found)


async def test_a_host_that_has_joined_is_past_its_firewall() -> None:
    facts: dict[Fact[Any], Any] = {
        RUNNING: said("6.8.0-49-generic\n"),
        KERNELS: ("6.8.0-49-generic",),
        MODULES: Output(1, "", "no such folder"),
        UFW: "ENABLED=yes\n",
        FORWARD: said("-P FORWARD DROP\n"),
        FileState("/run/reboot-required"): "there",
    }
    bare = await noticed(cast("Host", Told(facts)))
    assert [text.split(" ")[0] for text in bare] == ["it", "ufw"]
    joined = await noticed(cast("Host", Told({**facts, FileState("/etc/kubernetes/kubelet.conf"): "there"})))
    assert [text.split(" ")[0] for text in joined] == ["it"]
    assert await noticed(cast("Host", Told({Listing("/x"): ()}))) == ()
