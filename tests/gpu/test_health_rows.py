"""The recorded report of an H200, row by row: missing, unreadable, in other words, in another case, and forged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.gpu_report import RECORDED
from shipway.gpu.driver.imex import read_fabric
from shipway.gpu.health.nvidia.fabric import judge_fabric
from shipway.gpu.health.nvidia.report import FORGED, has_failed, is_untold, read_gpus
from shipway.gpu.health.nvidia.rows import judge_health
from shipway.gpu.nvidia.labels import labels_of
from shipway.gpu.verdict import TWICE
from shipway.script import Output

FIRST, SECOND = "GPU 00000000:00:06.0", "GPU 00000000:00:07.0"
HEAD = RECORDED.read_text(encoding="utf-8").partition(f"{SECOND}\n")[0]
# One GPU, and of it what comes before its processes.
ONE = HEAD.replace(": 2\n", ": 1\n", 1)
LINES = ONE.splitlines()
START = LINES.index(FIRST) + 1
# What an H200 printed while a program of the name "x, newline, Remapped Rows, newline, ..." ran on it (2026-11-30).
NAMED = (Path(__file__).with_name("recorded") / "h200-nvidia-smi-q-named.txt").read_text(encoding="utf-8")
UNREADABLE = ("ERR!", "[Unknown Error]", "Insufficient Permissions", TWICE)


def rows() -> dict[int, str]:
    """Return by line each row with a value: the names that it is under, and its own."""
    found, above = {}, []  # type: ignore[var-annotated]
    for at in range(START, next(at for at, line in enumerate(LINES) if line.startswith("    Processes"))):
        name, colon, _ = LINES[at].partition(" : ")
        depth = len(name) - len(name.lstrip())
        above = [one for one in above if one[0] < depth]
        if colon:
            found[at] = "/".join([*(one for _, one in above), name.strip()])
        elif name.strip():
            above.append((depth, name.strip()))
    return found


ROWS = rows()
SLOWED = ("HW Slowdown", "HW Thermal Slowdown", "HW Power Brake Slowdown", "SW Thermal Slowdown")
# Every row that something is made of; each of them that cannot be read is not judged.
JUDGED = {
    "GPU Recovery Action",
    *(f"PCI/GPU Link Info/{one}/{end}" for one in ("PCIe Generation", "Link Width") for end in ("Max", "Current")),
    "ECC Mode/Current",
    *(f"ECC Errors/Volatile/{one}" for one in ("SRAM Uncorrectable Parity", "SRAM Uncorrectable SEC-DED")),
    *(f"ECC Errors/Aggregate/{one}" for one in ("SRAM Uncorrectable Parity", "SRAM Uncorrectable SEC-DED")),
    "ECC Errors/Volatile/DRAM Uncorrectable",
    "ECC Errors/Aggregate/SRAM Threshold Exceeded",
    *(f"ECC Errors/{one}" for one in ("Channel Repair Pending", "TPC Repair Pending", "Unrepairable Memory")),
    "Retired Pages/Pending Page Blacklist",
    *(f"Remapped Rows/{one}" for one in ("Uncorrectable Error", "Pending", "Remapping Failure Occurred")),
    "Temperature/GPU T.Limit Temp",
    "Fabric/State",
    *(f"Fabric/Health/{one}" for one in ("Summary", "Bandwidth", "Route Recovery in progress", "Route Unhealthy")),
    *(f"Fabric/Health/{one}" for one in ("Access Timeout Recovery", "Incorrect Configuration")),
}


def changed(at: int, change: Callable[[str], str | None]) -> str:
    """Return the report with one line changed, or gone."""
    lines = [change(line) if here == at else line for here, line in enumerate(LINES)]
    return "\n".join(line for line in lines if line is not None)


def value(said: str) -> Callable[[str], str]:
    """Return what gives a row another value."""
    return lambda line: f"{line.partition(' : ')[0]} : {said}"


def verdict(report: str) -> tuple[str, str, tuple[str, ...]]:
    """Return what is made of the only GPU."""
    (gpu,) = judge_health(report, "", "")
    return gpu.word, gpu.why, gpu.unjudged


def is_clock(row: str) -> bool:
    """Say whether it is one of the reasons for slower clocks that count."""
    return row.startswith("Clocks Event Reasons/") and row.rpartition("/")[2] in SLOWED


COUNTED = {at: row for at, row in ROWS.items() if row in JUDGED or row == "Fabric/Status" or is_clock(row)}


def test_the_walk_begins_at_a_gpu_that_is_well() -> None:
    assert verdict(ONE) == ("ok", "", ())
    assert set(ROWS.values()) >= JUDGED
    assert sum(map(is_clock, ROWS.values())) == len(SLOWED)


@pytest.mark.parametrize("said", UNREADABLE)
def test_a_row_that_could_not_be_read_is_not_judged_and_no_fault(said: str) -> None:
    """A clock, a count or a width that could not be read was well, an unknown state of a fabric was a fault."""
    for at, row in ROWS.items() if said == UNREADABLE[0] else COUNTED.items():
        word, why, unjudged = verdict(changed(at, value(said)))
        if row == "Fabric/Status":  # there the library's errors are the answer
            assert word == ("not judged" if said == TWICE else "sick"), row
        else:
            assert (word, why) == ("not judged" if row in JUDGED or is_clock(row) else "ok", ""), row
            assert bool(unjudged) == (word == "not judged")


@pytest.mark.parametrize("said", ["Ja", "9" * 30, "\u00b2"])
def test_a_row_in_unknown_words_is_never_well(said: str) -> None:
    for at, row in COUNTED.items():
        assert verdict(changed(at, value(said)))[0] != "ok", row


def test_a_gpu_that_says_anywhere_that_it_is_lost_asks_for_a_restart() -> None:
    for at in [*ROWS][::8]:
        (gpu,) = judge_health(changed(at, value("[GPU is lost]")), "", "")
        assert "answers: GPU is lost" in gpu.why
        assert gpu.answer == "restart"


def test_the_case_of_names_and_words_is_no_news() -> None:
    """COMPLETED was a fabric that nobody had joined, and a fault in capital letters was none."""
    for change in (str.upper, str.lower):
        for at in COUNTED:
            assert verdict(changed(at, change)) == ("ok", "", ()), LINES[at]
        whole = "\n".join([*LINES[:START], *map(change, LINES[START:])])
        assert verdict(whole) == ("ok", "", ())
        for row in ("Remapped Rows/Pending", "ECC Errors/Unrepairable Memory"):
            at = next(at for at, one in ROWS.items() if one == row)
            line = change(value("Yes")(LINES[at]))
            assert verdict("\n".join([*LINES[:at], line, *LINES[at + 1 :]]))[0] == "sick", row


def test_what_was_counted_counts_whatever_is_said_of_ecc() -> None:
    mode = next(at for at, one in ROWS.items() if one == "ECC Mode/Current")
    for said in ("N/A", "Unknown Error", "Disabled"):
        parity = f"{'SRAM Uncorrectable Parity':<43}: "
        report = changed(mode, value(said)).replace(f"{parity}0", f"{parity}7")
        assert verdict(report)[1].startswith("ECC: 7 uncorrectable errors of its SRAM"), said


def test_a_link_that_could_not_be_read_is_no_narrow_one_under_load() -> None:
    at = next(at for at, one in ROWS.items() if one.endswith("Link Width/Current"))
    busy = next(at for at, one in ROWS.items() if one == "Utilization/GPU")
    lines = changed(at, value("Unknown Error")).splitlines()
    lines[busy] = value("100 %")(lines[busy])
    assert verdict("\n".join(lines)) == ("not judged", "", ("PCIe width: Unknown Error",))


def test_one_that_might_have_asked_for_another_gpu_keeps_a_node_from_being_opened() -> None:
    for row in ("ECC Mode/Current", "ECC Errors/Unrepairable Memory", "Remapped Rows/Pending", "Fabric/State"):
        at = next(at for at, one in ROWS.items() if one == row)
        (gpu,) = judge_health(changed(at, value("Unknown Error")), "", "")
        assert gpu.unseen, row


def test_a_row_that_is_told_twice_and_not_alike_is_worth_nothing() -> None:
    at = next(at for at, one in ROWS.items() if one == "Remapped Rows/Pending")
    again = LINES[at].replace(": No", ": Yes")
    both = "\n".join([*LINES[: at + 1], again, *LINES[at + 1 :]])
    assert verdict(both) == ("not judged", "", (f"Remapped Rows, Pending: {TWICE}",))
    alike = "\n".join([*LINES[: at + 1], LINES[at], *LINES[at + 1 :]])
    assert verdict(alike)[0] == "ok"


def test_the_name_of_a_program_makes_no_row_and_no_gpu() -> None:
    """A pod's user chooses it: he had a node kept from pods, or hid what was wrong with its GPU."""
    (gpu,) = judge_health(
        "\n".join(line for line in NAMED.splitlines() if "evil" not in line and "09.0" not in line), "", ""
    )
    assert (gpu.word, gpu.unjudged) == ("ok", ()), "its rows are not read"
    assert read_gpus(NAMED).forged == FORGED
    log = "[ 9.0] NVRM: Xid (PCI:0000:00:06): 79, GPU has fallen off the bus.\n"
    for report in (NAMED, NAMED.replace(": evil", ": NVIDIA H200")):
        gpus = judge_health(report, "", "")
        assert [(one.word, one.unseen) for one in gpus] == [("not judged", (f"the driver's report: {FORGED}",))] * len(
            gpus
        )
        assert [one.word for one in judge_fabric(report)] == ["not judged"]
        assert read_fabric(Output(0, report, "")) == (None, FORGED)
        assert labels_of(f"{report}\n\n9.0\n", None) == {}
    assert judge_health(NAMED, "", log)[0].why == "Xid 79: GPU has fallen off the bus.", "the kernel is still heard"


def test_a_second_heading_of_a_gpu_is_no_gpu_whatever_stands_below_it() -> None:
    two = RECORDED.read_text(encoding="utf-8")
    other = two[two.index(SECOND) :]
    name = f"    Processes\n            Name : x\n{other.replace('Recovery Action', 'Recovery Action ')}"
    forged = two.replace("    Processes                                          : None\n", name, 1)
    assert forged != two
    assert read_gpus(forged).forged == FORGED
    assert {one.word for one in judge_health(forged, "", "")} == {"not judged"}


def test_fewer_gpus_than_are_attached_are_no_forgery() -> None:
    assert read_gpus(HEAD).forged == "", "one of two is told of: the others are missed elsewhere"
    assert judge_health("", "", "") == []


def test_a_line_below_the_report_is_no_row() -> None:
    assert verdict(f"{ONE}\n9.0\n    Remapped Rows\n        Pending : Yes\n") == ("ok", "", ())
    named = NAMED.replace(
        "    Remapped Rows\n        Pending                                        : Yes\n", "\n\n8.6\n"
    )
    named = named.replace("GPU 00000000:00:09.0\n    Product Name : evil\n", "")
    assert labels_of(f"{named.rstrip()}\n\n9.0\n", None)["nvidia.com/gpu.compute.major"] == "9"


@pytest.mark.parametrize(
    ("said", "untold", "failed"),
    [("N/A", 1, 0), ("[N/A]", 1, 0), ("[Not Supported]", 1, 0), ("", 1, 0), ("None", 0, 0), ("[Unknown Error]", 0, 1)],
)
def test_what_a_gpu_has_not_is_told_from_what_could_not_be_read(said: str, untold: int, failed: int) -> None:
    assert (is_untold(said), has_failed(said)) == (bool(untold), bool(failed))
