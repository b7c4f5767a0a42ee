"""The fabric that joins GPUs: told by the right switches, a living manager, and what each GPU says, in three values."""

from __future__ import annotations

from typing import Any, cast

import pytest

from shipway.facts.services import UnitState
from shipway.gpu.health.nvidia.fabric import judge_fabric
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.gpu.verdict import Verdict, read_sections
from shipway.host.session import Host
from shipway.known_failures.catalogue import diagnose
from shipway.step import Drift
from shipway.steps.gpu.healthy import FabricReady
from tests.places.facts import KnownFacts, said, unit

assert NVIDIA.fabric is not None
FABRIC = NVIDIA.fabric
# As an H200 in a guest said it, driver 580.159.04, 2026-11-28; two of its sections before it, cut short.
H200 = """
==============NVSMI LOG==============

Timestamp                                              : Sat Nov 28 05:03:02 2026
Driver Version                                         : 580.159.04
Attached GPUs                                          : 2
GPU 00000000:00:06.0
    Product Name                                       : NVIDIA H200
    MIG Mode
        Current                                        : Disabled
    PCI
        GPU Link Info
            PCIe Generation
                Max                                    : 5
            Link Width
                Max                                    : 16x
    Fabric
        State                                          : Completed
        Status                                         : Success
        CliqueId                                       : 0
        ClusterUUID                                    : 00000000-0000-0000-0000-000000000000
        Health
            Summary                                    : N/A
            Bandwidth                                  : N/A
            Route Recovery in progress                 : N/A
            Route Unhealthy                            : N/A
            Access Timeout Recovery                    : N/A
            Incorrect Configuration                    : N/A
            Partition Assigned                         : N/A
    Processes                                          : None
"""


def told(**changes: str) -> str:
    """Return the report with other words in some rows; a row's name has _ for its spaces."""
    lines = H200.splitlines()
    for key, value in changes.items():
        (at,) = (at for at, line in enumerate(lines) if line.strip().startswith(f"{key.replace('_', ' ')}  "))
        lines[at] = f"{lines[at].partition(' : ')[0]} : {value}"
    return "\n".join(lines)


def test_a_report_is_read_by_the_names_that_a_value_is_under() -> None:
    found = read_sections(H200)
    assert list(found) == ["GPU 00000000:00:06.0"]
    values = found["GPU 00000000:00:06.0"]
    assert values["PCI", "GPU Link Info", "Link Width", "Max"] == "16x"
    assert values["Fabric", "ClusterUUID"].startswith("0000")
    assert values["Product Name",] == "NVIDIA H200"
    assert read_sections("No devices were found\n") == {}


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        (H200, Verdict("ok")),
        (told(State="In Progress"), Verdict("sick", "the fabric's state is In Progress")),
        (told(Status="Insufficient Resources"), Verdict("sick", "the fabric's status is Insufficient Resources")),
        (told(Status="N/A"), Verdict("not judged", "the fabric's status is not told")),
        (told(State="N/A", Status="N/A"), Verdict("not judged", "the fabric's state is not told")),
        (told(Summary="Healthy", Bandwidth="Full", Route_Unhealthy="False"), Verdict("ok")),
        (told(Summary="Limited Capacity"), Verdict("sick", "the fabric's health is Summary Limited Capacity")),
        (
            told(Bandwidth="Degraded", Route_Unhealthy="True"),
            Verdict("sick", "the fabric's health is Bandwidth Degraded, Route Unhealthy True"),
        ),
        (
            told(Incorrect_Configuration="No Partition"),
            Verdict("sick", "the fabric's health is Incorrect Configuration No Partition"),
        ),
        (told(Bandwidth="Wide"), Verdict("not judged", "the fabric's health is Bandwidth Wide")),
        (told(Partition_Assigned="Yes"), Verdict("ok")),  # a row that nothing is known of
        ("GPU 0\n    Product Name : NVIDIA A10\n", Verdict("not judged", "the fabric's state is not told")),
    ],
)
def test_what_a_gpu_says_of_its_fabric_is_judged_in_three_values(report: str, verdict: Verdict) -> None:
    assert judge_fabric(report) == [verdict]


def beside(one: str, other: str) -> str:
    """Return the report of two GPUs."""
    return f"{one}\n{other.replace('00:06.0', '00:07.0')}"


async def look(**seen: Any) -> Drift | None:
    """Look at a host with switches of the kind `of` (4, 5, none), its report, and what else differs from all well."""
    kind, processes = seen.get("of", 4), seen.get("processes", "7 nv-fabricmanage\n8 nvlsm\n")
    vpd = "/sys/class/infiniband/mlx5_4/device/vpd\n" if kind == 5 else ""
    host = KnownFacts(
        {
            FABRIC.switches: ("0000:05:00.0",) if kind == 4 else (),
            FABRIC.ports: seen.get("ports", ("mlx5_0", "mlx5_4")),
            FABRIC.managed: said(vpd, 0 if vpd else 1),
            FABRIC.loaded: ("abi_version", "umad0") if seen.get("umad", True) else (),
            FABRIC.running: seen.get("running") or said(processes, 0 if processes else 1),
            FABRIC.driver: "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release\n",
            FABRIC.manager: said(f"Fabric Manager version is : {seen.get('manager', '580.159.04')}\n"),
            FABRIC.states: said(seen.get("report", H200)),
            **(
                {UnitState("nvidia-fabricmanager.service"): unit(seen.get("active", "active"))}
                if "no" not in seen
                else {}
            ),
        }
    )
    return await FabricReady().check(cast("Host", host))


async def test_a_machine_without_switches_is_asked_for_nothing_more() -> None:
    host = KnownFacts({})
    assert await FabricReady().check(cast("Host", host)) is None
    assert host.asked == [FABRIC.switches, FABRIC.ports]


@pytest.mark.parametrize(
    "seen",
    [
        {},
        {"report": told(State="N/A", Status="N/A")},  # NVLink 4 and older drivers: the manager has judged
        {"processes": "7 nv-fabricmanage\n"},  # nvlsm is NVLink 5's
        {"running": said("", 127)},  # no pgrep there: the unit counts
        {"of": 5},
        {"of": 5, "report": told(Summary="Healthy", Bandwidth="Full")},
        {"of": None, "no": True},  # GB200: the switches are managed elsewhere, no manager is missing here
        {"of": None, "no": True, "report": told(State="N/A", Status="N/A")},  # GH200, or GPUs beside InfiniBand
        {"of": None, "no": True, "report": "NVIDIA-SMI has failed\n"},  # told by another check
    ],
)
async def test_a_fabric_that_is_as_its_kind_of_machine_has_it_is_ready(seen: dict[str, Any]) -> None:
    assert await look(**seen) is None


@pytest.mark.parametrize(
    ("seen", "have"),
    [
        ({"no": True}, "nvidia-fabricmanager is not installed"),
        ({"active": "failed"}, "nvidia-fabricmanager is failed"),
        ({"manager": "580.126.20"}, "nvidia-fabricmanager is of version 580.126.20, the driver of 580.159.04"),
        ({"processes": ""}, "nvidia-fabricmanager is active, and its process nv-fabricmanager does not run"),
        (
            {"report": beside(told(State="In Progress"), told(State="In Progress"))},
            "the fabric's state is In Progress on 2 GPUs",
        ),
        ({"report": beside(H200, told(Status="Timeout"))}, "the fabric's status is Timeout on 1 GPUs"),
        ({"of": 5, "no": True}, "nvidia-fabricmanager is not installed"),
        (
            {"of": 5, "processes": "7 nv-fabricmanage\n"},
            "nvidia-fabricmanager is active, and its process nvlsm does not run",
        ),
        ({"of": 5, "umad": False}, "ib_umad is not loaded"),
        ({"of": 5, "report": told(State="N/A")}, "the fabric's state is not told on 1 GPUs"),
        ({"of": None, "no": True, "report": told(State="In Progress")}, "the fabric's state is In Progress on 1 GPUs"),
    ],
)
async def test_what_keeps_a_fabric_from_being_ready_is_named(seen: dict[str, Any], have: str) -> None:
    drift = await look(**seen)
    assert drift
    assert drift.have == have
    assert ("nvlsm, ib_umad" in drift.want) == (seen.get("of") == 5)
    known = diagnose(drift.have)
    assert known
    assert known.code == "SHW-456"
