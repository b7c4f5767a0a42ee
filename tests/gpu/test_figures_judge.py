"""Figures are good, bad or not judged: by equals, by a GPU's own history, by a table; never good for want of these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from shipway.gpu.figures.faults import FAULTS
from shipway.gpu.figures.floors import Floors
from shipway.gpu.figures.history import (
    FIRST,
    LAST,
    Record,
    find_swapped,
    read_records,
    record_of,
    with_record,
    write_records,
)
from shipway.gpu.figures.judge import Row, judge
from shipway.gpu.figures.model import Heard, Measured, Where, has_ended, read_heard

UNKNOWN = "NVIDIA X900"
# What an H200 reached (2026-11-29), rounded.
REACHED = {
    "name": "NVIDIA H200", "power_limit": 700, "matmul": 400.0, "library_matmul": 760.0, "copy": 4300.0,
    "to_gpu": 55.0, "from_gpu": 55.0, "exact": True, "checksum": "1bc30882fb2871fc", "reasons": 4, "pcie_width": 16,
    "pcie_gen": 5, "nvlinks": 18, "driver": "580.159.04", "kernel": "6.8.0", "serial": "1654",
    "ecc_errors": 0, "remapped_rows": 0,
}  # fmt: skip


def uuid(number: int) -> str:
    return f"GPU-00000000-0000-0000-0000-{number:012}"


def gpu(number: int, **other: Any) -> dict[str, Any]:
    """Return the line of a GPU as an H200 has it, but for what is given."""
    said = {
        "kind": "gpu",
        "number": number,
        "uuid": uuid(number),
        "bus": f"0000:0{number % 8}:00.0",
        **REACHED,
        **other,
    }
    return {name: value for name, value in said.items() if value is not None}


RING = {"kind": "collective", "gpus": 2, "bytes": 1 << 30, "algorithm": "ring", "bandwidth": 331.0, "right": True}


def heard(*lines: Mapping[str, Any], host: str = "w1", where: Where = "pod") -> Heard:
    return read_heard(host, where, "\n".join([*map(json.dumps, lines), "figures-ended 0"]))


def rows(
    *said: Heard, history: Mapping[str, list[Record]] | None = None, own: Floors | None = None
) -> dict[tuple[str, str], Row]:
    """Return the rows by the GPU's UUID (a host where they are of none) and the figure."""
    return {(one.uuid or one.host, one.figure): one for one in judge(said, history or {}, own or {})}


def test_two_that_are_as_they_should_be_are_good_in_all_that_was_measured() -> None:
    found = rows(heard(gpu(0), gpu(1, matmul=397.0), RING), heard(gpu(0), gpu(1), where="host"))
    assert {row.word for row in found.values()} == {"good"}
    row = found[uuid(1), "matmul"]
    assert row.margins == {"equals": -0.0075, "floor": 0.1083}
    assert found["w1", "all-reduce"].margins == {"floor": 0.1351}


def test_what_a_site_says_of_its_machines_counts_in_place_of_the_table() -> None:
    guest = {"to_gpu": 44.0, "from_gpu": 36.0}
    said = heard(gpu(0, **guest), gpu(1, **guest), {**RING, "bandwidth": 250.0})
    assert {row.figure for row in rows(said).values() if row.word == "bad"} == {"to_gpu", "from_gpu", "all-reduce"}
    own = {
        "NVIDIA-H200": {"to_gpu": 40.0, "from_gpu": 37.0, "all_reduce": 200.0},
        "NVIDIA-X900": {"copy": 1.0},
    }
    found = rows(said, own=own)
    assert {figure for (_, figure), row in found.items() if row.word == "bad"} == {"from_gpu"}
    assert (
        "at least 37 is known of its product (gpu.figures.least of the cluster file)" in found[uuid(0), "from_gpu"].why
    )
    assert (found[uuid(0), "to_gpu"].margins["floor"], found["w1", "all-reduce"].word) == (0.1, "good")
    assert rows(heard(gpu(0, name=UNKNOWN)), own=own)[uuid(0), "copy"].word == "good", "a product of no table"


def test_hardware_of_which_nothing_is_known_is_not_judged_and_never_good() -> None:
    found = rows(heard(gpu(0, name=UNKNOWN)))
    judged = {figure for (_, figure), row in found.items() if row.word != "not judged"}
    assert judged == {"checksum", "clocks", "memory errors"}  # what is right or wrong by itself
    assert "no equal here and no history" in found[uuid(0), "matmul"].why


def test_another_power_limit_or_other_links_are_not_judged_by_this_table() -> None:
    found = rows(heard(gpu(0, power_limit=600, matmul=330.0), RING | {"gpus": 4}))
    assert found[uuid(0), "matmul"].word == "not judged"
    assert found["w1", "all-reduce"].word == "not judged"
    assert rows(heard(gpu(0, nvlinks=0), RING))["w1", "all-reduce"].word == "not judged"


def test_one_of_many_equals_is_found_that_is_eight_percent_slow_with_no_table() -> None:
    equals = [heard(gpu(at, name=UNKNOWN, matmul=100.0 + at % 3), host=f"w{at}") for at in range(63)]
    found = rows(*equals, heard(gpu(63, name=UNKNOWN, matmul=92.5), host="w63"))
    assert [key[0] for key, row in found.items() if row.word == "bad"] == [uuid(63)]
    assert "101 is the median of 64 equals" in found[uuid(63), "matmul"].why


def test_the_slower_of_two_is_named_and_what_it_reaches_alone() -> None:
    slow = gpu(1, name=UNKNOWN, matmul=80.0, alone={"matmul": 99.0})
    found = rows(heard(gpu(0, name=UNKNOWN, matmul=100.0), slow))
    assert (found[uuid(0), "matmul"].word, found[uuid(1), "matmul"].word) == ("good", "bad")
    assert "alone it reaches 99: what it shares with others holds it back" in found[uuid(1), "matmul"].why


def record(**rates: float) -> Record:
    return Record("2026-11-01", "w1", "0000:00:00.0", "1", "580.159.04", "6.8.0", 700, rates)


def test_a_gpu_is_compared_with_itself_at_first_and_only_with_the_same_driver_and_kernel() -> None:
    one = heard(gpu(0, name=UNKNOWN, matmul=90.0))
    history = {uuid(0): [record(matmul=100.0)] * FIRST + [record(matmul=91.0)] * 3}
    found = rows(one, history=history)[uuid(0), "matmul"]
    assert (found.word, found.margins) == ("bad", {"history": -0.1})
    other = rows(heard(gpu(0, name=UNKNOWN, matmul=90.0, driver="595.91")), history=history)[uuid(0), "matmul"]
    assert (other.word, other.margins) == ("not judged", {})
    assert other.note == ""
    slower = rows(heard(gpu(0, name=UNKNOWN, matmul=80.0, driver="595.91")), history=history)[uuid(0), "matmul"]
    assert "it reached 91 with driver 580.159.04" in slower.note


@pytest.mark.parametrize(
    ("other", "figure", "why", "code"),
    [
        ({"exact": False}, "checksum", "silent corruption", "SHW-631"),
        ({"reasons": 0x8 | 0x4}, "clocks", "HW slowdown", "SHW-632"),
        ({"reasons": 0x40}, "clocks", "heat", "SHW-632"),
        ({"reasons": 0x80}, "clocks", "power brake", "SHW-632"),
        ({"ecc_errors": 2}, "memory errors", "2 uncorrectable errors of its memories", "SHW-640"),
        ({"remapped_rows": 1}, "memory errors", "1 rows replaced, or to be", "SHW-640"),
        ({"pcie_width": 8}, "pcie_width", "16 on its equals", "SHW-636"),
        ({"nvlinks": 17}, "nvlinks", "18 on its equals", "SHW-636"),
        ({"matmul": 300.0}, "matmul", "0.9 of 398, four H200", "SHW-630"),
        ({"to_gpu": 30.0}, "to_gpu", "at least 48 is known", "SHW-630"),
    ],
)
def test_each_fault_is_bad_alone_and_its_equal_stays_good(
    other: dict[str, Any], figure: str, why: str, code: str
) -> None:
    found = rows(heard(gpu(0), gpu(1, **other)))
    (bad,) = [row for row in found.values() if row.word == "bad"]
    assert (bad.uuid, bad.figure, FAULTS[bad.figure][1]) == (uuid(1), figure, code)
    assert why in bad.why
    assert found[uuid(0), figure].word == "good"


def test_what_was_not_told_is_not_judged_with_its_reason() -> None:
    silent = dict.fromkeys(("reasons", "exact", "ecc_errors", "remapped_rows"))
    lacking = gpu(0, library_matmul=None, no_library="libcublas.so.13: cannot open", **silent)
    found = rows(heard(lacking, gpu(1)))
    assert found[uuid(0), "library_matmul"].why == "libcublas.so.13: cannot open"
    for name in ("library_matmul", "clocks", "checksum", "memory errors"):
        assert found[uuid(0), name].word == "not judged"


def test_a_gpu_that_gives_no_figures_is_bad_and_a_probe_that_cannot_run_says_nothing_of_it() -> None:
    hung = {"kind": "fault", "of": 1, "why": "no answer in time: the driver hangs"}
    row = rows(heard(gpu(0), hung))["w1", "answer"]
    assert (row.word, row.who, FAULTS[row.figure][1]) == ("bad", "GPU 1", "SHW-633")
    none = {"kind": "fault", "of": "probe", "why": "libcuda.so.1: cannot open", "missing": True}
    assert rows(heard(none))["w1", "answer"].word == "not judged"
    dead = judge([read_heard("w1", "pod", "sh: 1: python3: not found\nfigures-ended 127\n")], {}, {})
    assert [(row.word, row.why) for row in dead] == [
        ("not judged", "it said nothing (exit status 127): sh: 1: python3: not found")
    ]


@pytest.mark.parametrize(
    ("ring", "word", "why"),
    [
        (RING | {"bandwidth": 200.0}, "bad", "is known of such GPUs"),
        (RING | {"right": False}, "bad", "its sums are wrong"),
        ({"kind": "fault", "of": "collective", "why": "libnccl.so.2: none", "missing": True}, "not judged", "libnccl"),
        ({"kind": "fault", "of": "collective", "why": "no answer in time"}, "bad", "no answer in time"),
    ],
)
def test_an_all_reduce_is_judged_for_its_host(ring: dict[str, Any], word: str, why: str) -> None:
    row = rows(heard(gpu(0), gpu(1), ring))["w1", "all-reduce"]
    assert (row.word, FAULTS[row.figure][1]) == (word, "SHW-635")
    assert why in row.why


def test_a_pod_that_is_slower_than_its_host_is_held_back_by_its_container() -> None:
    found = rows(heard(gpu(0, to_gpu=50.0)), heard(gpu(0, to_gpu=57.0), where="host"))[uuid(0), "pod against host"]
    assert found.word == "bad"
    assert found.why == "to_gpu 50 in a pod, 57 on the host: the container holds it back (its limits, its processors)"
    other = rows(heard(gpu(0)), heard(gpu(0, copy=2000.0), where="host"))[uuid(0), "pod against host"]
    assert (other.word, "something else worked on the host" in other.why) == ("good", True)
    silent = read_heard("w1", "host", "busy: 4711, trainer\n")
    assert rows(heard(gpu(0)), silent)[uuid(0), "pod against host"].word == "not judged"
    assert rows(heard(gpu(0)))[uuid(0), "pod against host"].why == "it was not measured on its host"


def test_lines_of_other_kinds_and_of_other_values_tell_nothing() -> None:
    hostile = [
        '{"kind": "gpu", "uuid": "GPU-../../etc/passwd", "matmul": 1}',
        json.dumps(gpu(0) | {"matmul": "fast", "copy": -1, "to_gpu": True, "pcie_width": 1.5, "exact": "yes"}),
        '{"kind": "gpu"', "[" * 100_000, "{" * 100_000, '{"kind": "collective", "gpus": 0, "bytes": 1, "bandwidth": 1}',
    ]  # fmt: skip
    found = read_heard("w1", "pod", "\n".join(hostile))
    (only,) = found.gpus
    assert set(only.rates) == {"library_matmul", "from_gpu"}
    assert (only.links, only.exact, found.ring) == ({"pcie_gen": 5, "nvlinks": 18}, None, None)
    assert not has_ended("figures-ended\n")
    assert has_ended("x\nfigures-ended 1\n")


def test_history_keeps_the_first_and_the_last_and_a_new_gpu_in_a_slot_begins_its_own() -> None:
    one = heard(gpu(0)).gpus[0]
    kept: list[Record] = []
    for number in range(40):
        kept = with_record(kept, record_of(one, "w1", f"{number:02}", ["matmul"]))
    assert [one.at for one in kept] == [f"{at:02}" for at in [*range(FIRST), *range(40 - LAST, 40)]]
    assert kept[0].rates == {"matmul": 400.0}
    assert read_records(write_records(kept)) == kept
    assert [read_records(text) for text in ("", "{}", "[1]", '[{"at": 1}]', "[" * 100_000)] == [[]] * 5
    new = Measured(uuid(9), slot="0000:00:00.0")
    assert find_swapped({uuid(0): kept}, new, "w1") == uuid(0)
    assert find_swapped({uuid(0): kept}, new, "w2") == ""
    assert find_swapped({uuid(0): kept, uuid(9): kept}, new, "w1") == ""
