"""What GPUs tell of their health: every row by its name, in three values, with the answer that it asks for."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from lab.gpu_report import RECORDED as RECORDED_REPORT
from lab.gpu_report import change_rows
from lab.simulated.adapters import Adapter
from shipway.facts.files import FileText
from shipway.gpu.health.growth import FIRST as NOTHING
from shipway.gpu.health.growth import Counted
from shipway.gpu.health.model import ADVICE, ANSWERS, GpuHealth, beside, sick
from shipway.gpu.health.nvidia.links import read_link_errors
from shipway.gpu.health.nvidia.rows import _SLOWED as SLOWED
from shipway.gpu.health.nvidia.rows import judge_health
from shipway.gpu.health.nvidia.xids import (
    ANSWER_TO,
    INFORMATIONAL,
    SCRIPT,
    find_serials,
    find_switch_faults,
    find_xids,
    slot_of,
)
from shipway.gpu.health.ports import LOOK as PORTS
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.host.session import Host
from shipway.script import Output
from shipway.survey.first_look import CLOCK, Survey
from shipway.survey.gpu_health import UPTIME, HealthLook, look_at_health, with_growth, with_missing
from tests.places.facts import KnownFacts, said

# As two H200 in a guest said it, driver 580.159.04, on 2026-11-28; UUIDs are replaced, serial numbers masked.
H200 = RECORDED_REPORT.read_text(encoding="utf-8")
FIRST, SECOND = "GPU-00000002-0000-4000-8000-000000000002", "GPU-00000001-0000-4000-8000-000000000001"


# Two H200 that share a host's NVLink, each at work on a matrix, the same driver, 2026-11-29.
RECORDED = Path(__file__).parent / "recorded"
LOADED = (RECORDED / "h200-nvidia-smi-q-under-load.txt").read_text(encoding="utf-8")
LINKS = (RECORDED / "h200-nvidia-smi-nvlink-s.txt").read_text(encoding="utf-8")


def told(*rows: tuple[str, str]) -> str:
    """Return the report with other words in rows of its second GPU: `Section/Row` (the last name of each) to value."""
    head, second = H200.split("\nGPU 00000000:00:07.0\n")
    return f"{head}\nGPU 00000000:00:07.0\n{change_rows(second, dict(rows))}"


def judged(report: str = H200, links: str = "", log: str = "") -> GpuHealth:
    """Return the second GPU, after the first was found to be well."""
    first, second = judge_health(report, links, log)
    assert (first.uuid, first.word) == (FIRST, "ok")
    assert second.uuid == SECOND
    return second


def test_a_healthy_gpu_is_ok_in_every_row_and_has_a_name_for_people() -> None:
    gpu = judged()
    assert (gpu.word, gpu.answer, gpu.faults, gpu.unjudged) == ("ok", None, (), ())
    assert gpu.title == f"NVIDIA H200 {SECOND} in 0000:00:07.0, serial masked"


def test_two_that_are_at_work_and_joined_by_eighteen_links_are_ok_in_every_row() -> None:
    both = judge_health(LOADED, LINKS, "")
    assert [(gpu.word, gpu.faults, gpu.unjudged) for gpu in both] == [("ok", (), ())] * 2
    assert LOADED.count(": 100 %\n") == 2
    lame = LINKS.replace("\t Link 3: 26.562 GB/s", "\t Link 3: <inactive>", 1)
    first, second = judge_health(LOADED, lame, "")
    assert (first.why, second.word) == ("NVLink: 17 links are active, 18 on its equals", "ok")
    narrow = change_rows(LOADED, {"PCI/GPU Link Info/Link Width/Current": "8x"})
    assert judge_health(narrow, LINKS, "")[0].why == "PCIe width: 8x of 16x under load"


@pytest.mark.parametrize(
    ("rows", "why", "answer"),
    [
        ([("GPU Recovery Action", "Reset")], "the driver asks for: Reset", "reset"),
        ([("GPU Recovery Action", "Node Reboot")], "the driver asks for: Node Reboot", "restart"),
        ([("GPU Recovery Action", "Something New")], "the driver asks for: Something New", "look closer"),
        ([("Remapped Rows/Pending", "Yes")], "Remapped Rows: Pending", "reset"),
        ([("Remapped Rows/Remapping Failure Occurred", "Yes")], "Remapped Rows: Remapping Failure Occurred", "replace"),
        ([("Remapped Rows/Uncorrectable Error", "513")], "Remapped Rows: 513 for uncorrectable errors", "replace"),
        (
            [
                ("ECC Errors/Volatile/SRAM Uncorrectable Parity", "1"),
                ("ECC Errors/Volatile/SRAM Uncorrectable SEC-DED", "2"),
            ],
            "ECC: 3 uncorrectable errors of its SRAM since the driver was loaded",
            "reset",
        ),
        (
            [("ECC Errors/Aggregate/SRAM Uncorrectable SEC-DED", "5")],
            "ECC: 5 uncorrectable errors of its SRAM in its life",
            "replace",
        ),
        ([("ECC Errors/Aggregate/SRAM Threshold Exceeded", "Yes")], "ECC Errors: SRAM Threshold Exceeded", "replace"),
        ([("ECC Errors/Unrepairable Memory", "Yes")], "ECC Errors: Unrepairable Memory", "replace"),
        ([("ECC Errors/Channel Repair Pending", "Yes")], "ECC Errors: Channel Repair Pending", "reset"),
        (
            [("ECC Errors/Volatile/DRAM Uncorrectable", "2")],
            "ECC: 2 uncorrectable errors of its memory since the driver was loaded",
            "look closer",
        ),
        (
            [("Clocks Event Reasons/HW Slowdown", "Active"), ("Clocks Event Reasons/HW Thermal Slowdown", "Active")],
            "clocks are held down: HW Slowdown, HW Thermal Slowdown",
            "look closer",
        ),
        ([("GPU T.Limit Temp", "0 C")], "temperature: 0 C left before it slows itself down", "look closer"),
        (
            [("Link Width/Current", "8x"), ("Utilization/GPU", "99 %")],
            "PCIe width: 8 of 16 under load",
            "look closer",
        ),
    ],
)
def test_a_row_that_is_wrong_names_itself_and_what_it_asks_for(
    rows: Sequence[tuple[str, str]], why: str, answer: str
) -> None:
    gpu = judged(told(*rows))
    assert (gpu.word, gpu.answer) == ("sick", answer)
    assert gpu.why.replace("8x of 16x", "8 of 16") == why


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([("ECC Mode/Current", "N/A")], "ECC: not told"),
        ([("Link Width/Current", "8x")], "PCIe width: 8x of 16x on an idle GPU"),
        ([("Remapped Rows/Pending", "Maybe")], "Remapped Rows, Pending: Maybe"),
        ([("GPU T.Limit Temp", "N/A")], "temperature: not told"),
        ([("GPU Recovery Action", "N/A")], "the driver asks for: not told"),
        (
            [(f"Remapped Rows/{name}", "N/A") for name in ("Uncorrectable Error", "Pending")],
            "Remapped Rows, Uncorrectable Error, Pending: not told",
        ),
        (
            [(f"ECC Errors/Volatile/SRAM Uncorrectable {name}", "N/A") for name in ("Parity", "SEC-DED")],
            "ECC, Volatile SRAM Uncorrectable: not told",
        ),
        ([("ECC Errors/Volatile/DRAM Uncorrectable", "N/A")], "ECC, Volatile DRAM Uncorrectable: not told"),
        (
            [(f"Clocks Event Reasons/{name}", "N/A") for name in SLOWED],
            "clocks: not told",
        ),
        ([("Fabric/Status", "N/A")], "fabric: the fabric's status is not told"),
    ],
)
def test_what_is_not_told_or_told_in_unknown_words_is_not_judged(rows: Sequence[tuple[str, str]], why: str) -> None:
    gpu = judged(told(*rows))
    assert (gpu.word, gpu.faults) == ("not judged", ())
    assert gpu.unjudged == (why,)


def test_without_ecc_nothing_counts_errors_and_a_gpu_that_retires_pages_remaps_no_rows() -> None:
    rows = [
        (f"Remapped Rows/{name}", "N/A") for name in ("Uncorrectable Error", "Pending", "Remapping Failure Occurred")
    ]
    assert judged(told(*rows)).unjudged == (
        f"{rows[0][0].replace('/', ', ')}, Pending, Remapping Failure Occurred: not told",
    )
    assert judged(told(*rows, ("Retired Pages/Pending Page Blacklist", "No"))).word == "ok"
    counts = [
        (f"ECC Errors/Volatile/{name}", "N/A")
        for name in ("SRAM Uncorrectable Parity", "SRAM Uncorrectable SEC-DED", "DRAM Uncorrectable")
    ]
    assert judged(told(("ECC Mode/Current", "Disabled"), *counts, *rows)).word == "ok"


def test_a_log_or_links_that_could_not_be_read_make_no_gpu_well() -> None:
    """`ok` was said of GPUs of whose kernel nothing could be read: dmesg was refused, or out of time."""
    assert [gpu.unjudged for gpu in judge_health(H200, "", None)] == [("the kernel's log: not told",)] * 2
    assert [gpu.unjudged for gpu in judge_health(H200, None, "")] == [("NVLink: not told",)] * 2
    assert [bool(gpu.unseen) for gpu in (judge_health(H200, "", None)[0], judge_health(H200, None, "")[0])] == [
        True,
        False,
    ]
    only = LINKS[: LINKS.index("GPU 1:")]
    assert judge_health(LOADED, only, "")[1].unjudged == ("NVLink: not told, 18 links are active on its equals",)


def test_a_gpu_that_has_not_joined_its_fabric_is_reset_and_one_without_a_fabric_is_not_asked() -> None:
    """Every GPU was `ok` while no program got a context (error 802)."""
    gpu = judged(told(("Fabric/State", "In Progress"), ("Fabric/Status", "N/A")))
    assert (gpu.answer, gpu.why) == ("reset", "fabric: the fabric's state is In Progress")
    assert judged(told(("Fabric/State", "N/A"), ("Fabric/Status", "N/A"))).word == "ok"


def test_the_clock_that_an_idle_gpu_or_a_power_limit_holds_down_is_no_fault() -> None:
    assert judged(told(("Clocks Event Reasons/SW Power Cap", "Active"))).word == "ok"


XIDS = """\
[  812.000001] NVRM: Xid (PCI:0000:00:07): 31, pid=4121, name=python3, Ch 00000008, intr 00000000. MMU Fault
[ 4817.123456] NVRM: Xid (PCI:0000:00:07): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
[ 4818.000000] NVRM: Xid (PCI:0000:00:07): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
[ 4819.000000] NVRM: Xid (PCI:0000:00:07): 154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot)
"""


def test_xids_are_counted_by_kind_and_the_gravest_counts() -> None:
    gpu = judged(log=XIDS)
    assert gpu.answer == "restart"
    assert gpu.why == "Xid 79 (2 times): GPU has fallen off the bus."
    assert [(fault.row, fault.answer, fault.at) for fault in gpu.faults] == [
        ("Xid 31", "application", 812.000001),
        ("Xid 79 (2 times)", "restart", 4818.0),
    ]


def test_the_applications_xids_make_no_gpu_sick() -> None:
    gpu = judged(log=XIDS.splitlines()[0])
    assert (gpu.word, gpu.answer, gpu.why) == ("ok", "application", "")


def test_a_gpu_that_fell_off_the_bus_is_told_of_by_its_slot_and_a_switch_by_its_own() -> None:
    log = "NVRM: Xid (PCI:0000:41:00): 79, GPU has fallen off the bus.\n"
    log += "[1.5] nvidia-nvswitch2: SXid (PCI:0000:86:00.0): 20034, Fatal, Link 30 LTSSM Fault Up\n"
    log += "[1.6] nvidia-nvswitch2: SXid (PCI:0000:86:00.0): 22013, Non-fatal, Link 30 Minion\n"
    *_, lost, switch = judge_health(H200, "", log)
    assert (lost.uuid, lost.slot, lost.answer) == ("", "0000:41:00.0", "restart")
    assert lost.title == "a GPU that does not answer in 0000:41:00.0"
    assert (switch.product, switch.slot, switch.why) == (
        "NVSwitch",
        "0000:86:00.0",
        "SXid 20034: Fatal, Link 30 LTSSM Fault Up",
    )


def test_a_storm_of_one_fault_is_one_fault() -> None:
    storm = "".join(f"[{at}.5] NVRM: Xid (PCI:0000:00:07): 95, pid=1, Uncontained\n" for at in range(5000))
    ((slot, fault),) = find_xids(storm)
    assert (slot, fault.row, fault.at) == ("0000:00:07.0", "Xid 95 (5000 times)", 4999.5)


def run_script(dmesg: str, journal: str = "return 1") -> tuple[int, str]:
    """Run the look at the kernel's log with these bodies of its two programs; return its status and what it said."""
    doubles = f"dmesg() {{ {dmesg}; }}; timeout() {{ {journal}; }}\n"
    done = subprocess.run(["sh", "-c", doubles + SCRIPT], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


ONE = "echo '[ 1.5] NVRM: Xid (PCI:0000:41:00): 79, GPU has fallen off the bus.'"


def test_the_look_at_the_log_tells_each_kind_of_each_gpu_whatever_storm_of_another_there_is() -> None:
    """Of 500 lines the last 400 were told: those of one GPU hid that another had fallen off the bus."""
    line = "NVRM: Xid (PCI:0000:42:00): 95, pid=1, Uncontained"
    storm = f'i=0; while [ $i -lt 500 ]; do echo "[ $i.5] {line}"; i=$((i+1)); done'
    status, told = run_script(
        f"{ONE}; {storm}; echo '[ 3.0] nvidia-nvswitch2: SXid (PCI:0000:86:00.0): 20034, Fatal, x'"
    )
    assert (status, told.count("\n")) == (0, 3)
    assert sorted((slot, fault.row, fault.at) for slot, fault in find_xids(told)) == [
        ("0000:41:00.0", "Xid 79", 1.5),
        ("0000:42:00.0", "Xid 95 (500 times)", 499.5),
    ]
    assert [fault.at for _, fault in find_switch_faults(told)] == [3.0]


def test_what_has_left_the_ring_is_taken_from_the_journal_and_counted_once() -> None:
    late = "echo '[ 9.5] host kernel: NVRM: Xid (PCI:0000:41:00): 79, GPU has fallen off the bus.'"
    early = ONE.replace("] ", "] host kernel: ")
    status, told = run_script(ONE, f"{early}; {late}; {late.replace('79', '48')}")
    assert status == 0
    assert sorted((fault.row, fault.at) for _, fault in find_xids(told)) == [("Xid 48", 9.5), ("Xid 79 (2 times)", 9.5)]


@pytest.mark.parametrize(
    ("dmesg", "journal", "told"),
    [
        ("echo 'read kernel buffer failed: Operation not permitted' >&2; return 1", "return 1", False),
        ("return 1", "return 0", False),  # a container's journal has nothing of a kernel
        ("echo half; return 1", "return 124", False),
        ("return 1", "echo '[ 0.0] host kernel: Linux version 6.1'", True),
        ("echo '[ 0.0] Linux version 6.1'", "return 1", True),
    ],
)
def test_a_log_that_neither_program_could_read_was_not_told(dmesg: str, journal: str, told: bool) -> None:  # noqa: FBT001
    """Its status was that of the last program of the pipe, always 0: no Xid, and a node was opened."""
    assert (run_script(dmesg, journal)[0] == 0) is told


def test_a_real_kernel_log_of_faulty_programs_is_read_and_tells_which_gpu_it_was() -> None:
    """One H200 (580.159.04, 2026-11-30): wild and misaligned writes, a trap, an assertion; UUID and serial replaced."""
    status, told = run_script(f"cat {RECORDED}/h200-kernel-log.txt")
    assert status == 0
    found = sorted((slot, fault.row, fault.answer, fault.at) for slot, fault in find_xids(told))
    assert found == [
        ("0000:00:06.0", "Xid 13 (5 times)", "application", 66.566715),
        ("0000:00:06.0", "Xid 31 (7 times)", "application", 69.877106),
        ("0000:00:06.0", "Xid 43 (3 times)", "application", 67.634418),
    ]
    assert find_serials(told) == {"0000:00:06.0": "1650000000001"}
    assert judged(log=told).word == "ok"


async def test_a_gpu_that_is_lost_is_told_of_by_the_serial_number_that_the_log_has() -> None:
    """Without it nobody knows which of the machine's GPUs is to be replaced."""
    who = "NVRM: GPU at PCI:0000:00:07: GPU-00000001-0000-4000-8000-000000000001"
    first, second = f"echo '[ 1.0] {who}'", "echo '[ 1.0] NVRM: GPU Board Serial Number: 1650000000007'"
    _, told = run_script(f"{first}; {second}; {ONE.replace('0000:41:00', '0000:00:07')}")
    (*_, lost) = judge_health(H200[: H200.index("GPU 00000000:00:07.0")], "", told)
    assert lost.title == "a GPU that does not answer in 0000:00:07.0, serial 1650000000007"
    quiet = "\n".join(line for line in told.splitlines() if "Xid" not in line)
    look = with_missing(await looked(said(H200[: H200.index("GPU 00000000:00:07.0")]), quiet), survey_of(driver=1), 2)
    assert look.gpus[1].title == lost.title
    assert find_serials("NVRM: GPU at PCI:0000:00:07: GPU-1") == {}, "half of it names nobody"


def test_every_xid_has_one_answer_and_every_answer_has_advice() -> None:
    assert not set(ANSWER_TO) & INFORMATIONAL
    assert set(ANSWER_TO.values()) <= set(ANSWERS) == set(ADVICE)
    ((_, unknown),) = find_xids("NVRM: Xid (PCI:0000:00:07): 9999, a new one")
    assert unknown.answer == "look closer"


@pytest.mark.parametrize("address", ["00000000:00:07.0", "0000:00:07", "00:07"])
def test_addresses_are_those_of_sysfs(address: str) -> None:
    assert slot_of(address) == "0000:00:07.0"


def test_a_gpu_with_fewer_active_links_than_its_equals_is_looked_at_closer() -> None:
    links = "".join(
        f"GPU {at}: NVIDIA H200 (UUID: {uuid})\n"
        + "".join(f"\t Link {link}: {'<inactive>' if link < lost else '26.562 GB/s'}\n" for link in range(18))
        for at, (uuid, lost) in enumerate([(FIRST, 0), (SECOND, 2)])
    )
    assert judged(links=links).why == "NVLink: 16 links are active, 18 on its equals"
    assert judged(links=links.replace("26.562 GB/s", "<inactive>")).word == "ok"  # no bridge between any of them
    other = H200.replace("Product Name                                       : NVIDIA H200", "Product Name : A", 1)
    assert judge_health(other, links, "")[1].why == "NVLink: 16 of 18 links are active"  # of another product, no equal


def test_a_link_that_is_down_at_both_ends_is_seen() -> None:
    """Only fewer than on its equals was a fault: of two GPUs that a bridge joins both have lost the same link."""
    lame = LINKS.replace("\t Link 3: 26.562 GB/s", "\t Link 3: <inactive>")
    assert [gpu.why for gpu in judge_health(LOADED, lame, "")] == ["NVLink: 17 of 18 links are active"] * 2
    bridged = change_rows(LOADED, {"Fabric/State": "N/A", "Fabric/Status": "N/A"})
    first = judge_health(bridged, lame, "")[0]
    assert first.word == "not judged", "no switch: a link may have no bridge, and that is no fault"
    assert "17 of 18 links are active" in str(first.unjudged)


def test_a_host_without_any_active_link_is_told_of_where_most_others_with_its_gpus_have_some() -> None:
    well, dark = judge_health(LOADED, LINKS, ""), judge_health(LOADED, LINKS.replace("26.562 GB/s", "<inactive>"), "")
    hosts = {"a": well, "b": well, "c": dark}
    why = "NVLink: none of its links is active, 18 on its equals of other hosts"
    assert [gpu.why for gpu in beside("c", hosts)] == [why] * 2
    assert [gpu.word for gpu in (*beside("a", hosts), *beside("c", hosts | {"b": dark}))] == ["ok"] * 4
    assert [gpu.word for gpu in beside("c", {"a": well, "c": dark})] == ["ok"] * 2, "one other host is no measure"


@pytest.mark.parametrize(
    "report", ["", "No devices were found", "GPU 0\n    :\n", "\0GPU x : y", "GPU 00000000:00:07.0\n    A : B"]
)
def test_an_answer_that_is_no_report_is_no_verdict_of_a_gpu_that_is_well(report: str) -> None:
    assert all(gpu.word != "ok" for gpu in judge_health(report, report, report))


def test_the_gravest_is_told_first() -> None:
    gpus = judge_health(told(("Remapped Rows/Remapping Failure Occurred", "Yes")), "", XIDS.replace("00:07", "00:06"))
    assert [gpu.answer for gpu in sick(gpus)] == ["replace", "restart"]


# As two H200 told it, 580.159.04, 2026-11-30; UUIDs are replaced.
ERRORS = (RECORDED / "h200-nvidia-smi-nvlink-e.txt").read_text(encoding="utf-8")


def counted(errors: str, at: float, booted: float = 10.0) -> HealthLook:
    """Return a look at which the links' counters said so."""
    return HealthLook(tuple(judge_health(H200, "", "")), counted=Counted(at, booted, read_link_errors(errors)))


def test_error_counters_of_links_are_read_by_gpu_link_and_name() -> None:
    assert read_link_errors(ERRORS) == {FIRST: {}, SECOND: {}}
    lame = ERRORS.replace("Link 3: Replay Errors: 0", "Link 3: Replay Errors: 7", 1)
    assert read_link_errors(lame) == {FIRST: {"Link 3: Replay Errors": 7}, SECOND: {}}
    assert read_link_errors("GPU 0: A (UUID: GPU-1)\n\t Link 0: Replay Errors: N/A\n\t Link 0: 3 GB/s\n") == {}


@pytest.mark.parametrize(
    ("counter", "before", "now", "word", "said"),
    [
        ("Replay", 70, 70, "ok", ""),
        ("Replay", 70, 71, "sick", "NVLink errors: 1 more Replay Errors on Link 3"),
        ("Recovery", 0, 2, "sick", "NVLink errors: 2 more Recovery Errors on Link 3"),
        ("CRC", 0, 100 * 1800 - 1, "ok", ""),
        (
            "CRC",
            0,
            100 * 1800,
            "sick",
            "NVLink errors: 180000 more CRC Errors on Link 3",
        ),
        ("Symbol", 0, 5, "not judged", "NVLink errors: 5 more Symbol Errors on Link 3"),
        ("Replay", 5, 1, "not judged", f"errors of its links: {NOTHING}"),
    ],
)
def test_errors_of_links_count_by_their_growth_alone(counter: str, before: int, now: int, word: str, said: str) -> None:
    def lame(count: int) -> str:
        renamed = ERRORS.replace("Replay", counter) if counter == "Symbol" else ERRORS
        head, second = renamed.split("GPU 1:")
        return f"{head}GPU 1:{second.replace(f'Link 3: {counter} Errors: 0', f'Link 3: {counter} Errors: {count}')}"

    earlier = counted(lame(before), 1000.0).counted
    first, second = with_growth(counted(lame(now), 2800.0), earlier).gpus
    assert (first.word, second.word) == ("ok", word)
    ago = " since the last pass, 30 min ago" if "more" in said else ""
    assert second.why + "".join(second.unjudged) == f"{said}{ago}"
    assert second.answer in (None, "look closer")  # no pod is kept away for it


def test_without_an_earlier_look_or_after_a_boot_errors_of_links_are_not_judged() -> None:
    lame = ERRORS.replace("Link 3: Replay Errors: 0", "Link 3: Replay Errors: 7")
    look = counted(lame, 2800.0)
    for before in (None, Counted(), counted(lame, 2800.0).counted):
        assert [gpu.unjudged for gpu in with_growth(look, before).gpus] == [(f"errors of its links: {NOTHING}",)] * 2
    booted = replace(look, counted=replace(look.counted, booted=2000.0))
    assert {gpu.word for gpu in with_growth(booted, counted(lame, 1000.0).counted).gpus} == {"not judged"}
    without = counted("", 2800.0)  # a GPU without such links has no such row
    assert {gpu.word for gpu in with_growth(without, None).gpus} == {"ok"}


def test_links_that_have_counted_no_error_at_all_are_judged_at_the_first_look() -> None:
    """Every GPU of a healthy host was `not judged` in its first pass (two H200 with NVLink)."""
    for before in (None, Counted(), counted(ERRORS.replace("Errors: 0", "Errors: 3"), 1000.0).counted):
        assert {gpu.word for gpu in with_growth(counted(ERRORS, 2800.0), before).gpus} == {"ok"}


async def test_what_the_kernel_told_is_dated_by_the_hosts_clock() -> None:
    health = NVIDIA.health
    assert health is not None
    facts: dict[Any, Any] = {
        health.report: said(H200),
        health.links: said("", 1),
        health.errors: said(ERRORS),
        health.capabilities: said("9.0\n9.0\n"),
        health.whole: said("<nvidia_smi_log/>\n"),
        PORTS: said(Adapter("mlx5_0").write(0)),
        health.log: said(XIDS),
        CLOCK: said("1000004818.0\n"),
        UPTIME: "4828.0 99.0\n",
    }
    look = await look_at_health(cast("Host", KnownFacts(facts)))
    assert [fault.at for fault in look.gpus[1].faults] == [999999990 + 812.000001, 999999990 + 4818.0]
    assert "GPU has fallen off the bus" in look.evidence
    assert FIRST in look.evidence
    assert "<nvidia_smi_log/>" in look.evidence
    assert look.report.endswith("9.0\n9.0\n")
    assert "Replay Errors: 0" in look.evidence
    assert list(look.ports) == ["mlx5_0/1"]
    assert look.counted == Counted(1000004818.0, 999999990.0, {FIRST: {}, SECOND: {}, "port mlx5_0/1": {}})
    sound = await look_at_health(cast("Host", KnownFacts({**facts, health.log: said("")})))
    assert "<nvidia_smi_log/>" not in sound.evidence  # asked of a host with an unfit GPU alone
    facts[UPTIME] = None
    undated = await look_at_health(cast("Host", KnownFacts(facts)))
    assert [fault.at for fault in undated.gpus[1].faults] == [None, None]
    assert FileText("/proc/uptime") == UPTIME


def survey_of(*, gpus: int = 2, driver: int = 2) -> Survey:
    """Return what the first look showed of the host of the two GPUs."""
    slots = ("0000:00:06.0", "0000:00:07.0")[:gpus]
    told = {"driver_gpus": driver, "driver_uuids": (FIRST, SECOND)[:driver], "slots": slots}
    return Survey(
        "te2", gpus=gpus, joined=True, driver_said="", toolkit=True, machine_id="m", product_uuid="p", skew=0.0, **told
    )  # type: ignore[arg-type]


async def looked(report: Output, log: str = "") -> HealthLook:
    """Return the look at a host whose driver reports so."""
    health = NVIDIA.health
    assert health is not None
    facts: dict[Any, Any] = {health.report: report, health.links: said(""), health.log: said(log)}
    return await look_at_health(cast("Host", KnownFacts(facts)))


async def test_a_gpu_that_pci_shows_and_the_driver_does_not_list_asks_for_a_restart() -> None:
    """Without an Xid in the log nothing was known of it, and its node stayed open."""
    one = H200[: H200.index("GPU 00000000:00:07.0")]
    look = with_missing(await looked(said(one)), survey_of(driver=1), 2)
    first, second = look.gpus
    assert (first.word, second.slot, second.answer) == ("ok", "0000:00:07.0", "restart")
    assert second.why == "counted: nvidia-smi tells of 1 of 2"
    assert second.title == "a GPU that does not answer in 0000:00:07.0"
    gone = with_missing(await looked(said(one)), survey_of(gpus=1, driver=1), 2)
    assert [(gpu.slot, gpu.answer) for gpu in gone.gpus] == [("0000:00:06.0", None), ("", "restart")]
    assert with_missing(await looked(said(one)), survey_of(gpus=1, driver=1), 1).gpus == look.gpus[:1]


async def test_a_driver_that_hangs_or_fails_asks_for_a_restart_of_each_gpu() -> None:
    for report, why in (
        (said("", 124), NVIDIA.hangs),
        (said("Failed to initialize NVML", 18), "Failed to initialize NVML"),
    ):
        look = with_missing(await looked(report), survey_of(driver=0), 2)
        assert [(gpu.slot, gpu.answer, gpu.why) for gpu in look.gpus] == [
            (slot, "restart", f"answers: {why}") for slot in ("0000:00:06.0", "0000:00:07.0")
        ]
    cut = with_missing(await looked(said(H200, 124)), survey_of(), 2)
    assert {gpu.answer for gpu in cut.gpus} == {"restart"}, "it listed them, and did not end"
    assert {gpu.uuid for gpu in cut.gpus} == {FIRST, SECOND}
    assert with_missing(await looked(said("", 127)), survey_of(gpus=0, driver=0), 0).gpus == ()


async def test_gpus_that_the_driver_lists_and_cannot_report_on_are_not_judged() -> None:
    look = with_missing(await looked(said("Unknown Error", 255)), survey_of(), 2)
    assert [(gpu.uuid, gpu.word) for gpu in look.gpus] == [(FIRST, "not judged"), (SECOND, "not judged")]
    assert look.gpus[0].unseen == ("the driver's report: Unknown Error",)
    cut = with_missing(await looked(said(H200, 14)), survey_of(), 2)
    assert [gpu.unseen for gpu in cut.gpus] == [("the driver's report: nvidia-smi ended with status 14",)] * 2


async def test_a_gpu_that_the_log_names_and_the_driver_has_lost_is_one_gpu() -> None:
    one = H200[: H200.index("GPU 00000000:00:07.0")]
    health = NVIDIA.health
    assert health is not None
    facts: dict[Any, Any] = {health.report: said(one), health.links: said(""), health.log: said(XIDS)}
    look = with_missing(await look_at_health(cast("Host", KnownFacts(facts))), survey_of(driver=1), 2)
    assert [gpu.slot for gpu in look.gpus] == ["0000:00:06.0", "0000:00:07.0"]
    assert look.gpus[1].why == "Xid 79 (2 times): GPU has fallen off the bus.; counted: nvidia-smi tells of 1 of 2"
