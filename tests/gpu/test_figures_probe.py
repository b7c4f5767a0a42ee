"""The probe runs by itself on an old Python, and tells of each GPU what can be told, whatever its neighbours do."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from shipway.gpu.figures.program import HERE, program_text

DOUBLE = Path(__file__).with_name("probe_double.py")
RATES = ("matmul", "library_matmul", "copy", "to_gpu", "from_gpu")


def run(folder: Path, *options: str, **scene: Any) -> list[dict[str, Any]]:
    """Return the lines of the probe on GPUs that only count, on a clock that only they move."""
    program = folder / "probe.py"
    program.write_text(program_text(), encoding="utf-8")
    words = [sys.executable, str(DOUBLE), json.dumps(scene), str(program), "seconds=0.2", *options]
    ended = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    assert ended.stderr == ""
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_each_gpu_is_measured_and_then_all_together(tmp_path: Path) -> None:
    *gpus, ring = run(tmp_path, f"collective={1 << 30}", gpus=2)
    for number, gpu in enumerate(gpus):
        assert (gpu["kind"], gpu["number"], gpu["name"]) == ("gpu", number, "NVIDIA H200")
        assert gpu["uuid"] == f"GPU-00000000-0000-0000-0000-00000000000{number}"
        assert all(gpu[figure] > 0 for figure in RATES)
        assert gpu["exact"] is True
        assert (gpu["power_limit"], gpu["reasons"], gpu["nvlinks"]) == (700, 4, 18)
        assert (gpu["serial"], gpu["driver"]) == ("1654", "580.159.04")
    assert (ring["kind"], ring["gpus"], ring["bytes"], ring["right"]) == ("collective", 2, 1 << 30, True)
    assert (ring["algorithm"], ring["network"], ring["via"]) == ("ring", "socket", ["P2P/direct"])
    assert ring["bandwidth"] > 0


def test_a_gpu_that_hangs_or_is_wrong_or_slow_is_told_apart_from_its_equals(tmp_path: Path) -> None:
    scene = {"patience": 8, "slow": {"1": 2}, "wrong": ["2"], "hangs": ["0"], "dies": ["4"]}
    hung, slow, wrong, well, dead, ring = run(
        tmp_path, f"collective={1 << 30}", gpus=5, missing=["libnccl", "libcublas"], **scene
    )
    assert hung == {"kind": "fault", "of": 0, "why": "no answer in time: the driver hangs"}
    assert dead == {"kind": "fault", "of": 4, "why": "the process ended without a word"}
    assert [gpu["exact"] for gpu in (slow, wrong, well)] == [True, False, True]
    assert slow["matmul"] == slow["alone"]["matmul"] == pytest.approx(well["matmul"] / 2)
    assert ("alone" in wrong, "alone" in well) == (False, False)
    assert "libcublas.so.13: cannot open" in well["no_library"]
    assert (ring["kind"], ring["of"], ring["missing"]) == ("fault", "collective", True)


def test_errors_that_its_memories_count_under_load_are_told_and_no_earlier_ones(tmp_path: Path) -> None:
    """Only power, clocks and links were asked: a GPU whose memory failed under the very load was good."""
    began = time.time()
    well, failing = run(tmp_path, gpus=2, failing=["1"])
    assert [(gpu["ecc_errors"], gpu["remapped_rows"]) for gpu in (well, failing)] == [(0, 0), (3, 1)]
    assert began - 1 < well["began"] < time.time() + 1
    (without,) = run(tmp_path, gpus=1, no_ecc=True)
    assert not {"ecc_errors", "remapped_rows"} & set(without)


def test_what_an_old_gpu_cannot_do_is_said_and_the_rest_measured(tmp_path: Path) -> None:
    (gpu,) = run(tmp_path, gpus=1, old=True)
    assert "compute capability 8.0" in gpu["no_product"]
    assert "exact" not in gpu
    assert gpu["copy"] > 0


def test_what_the_other_ranks_need_is_said_before_they_are_waited_for(tmp_path: Path) -> None:
    told, ring = run(tmp_path, f"collective={1 << 30}", "seconds=0", "ranks=2", "rank=0", gpus=1)
    assert told == {"kind": "id", "id": "00" * 128}
    assert (ring["kind"], ring["gpus"], ring["right"]) == ("collective", 2, False)  # the other one never came
    (second,) = run(tmp_path, f"collective={1 << 30}", "seconds=0", "ranks=2", "rank=1", f"id={told['id']}", gpus=1)
    assert second["kind"] == "collective"


@pytest.mark.parametrize(
    ("scene", "why"),
    [
        ({"untrue": True}, {"right": False}),
        ({"no_ring": True}, {"kind": "fault", "why": "ncclCommInitRank: unhandled cuda error"}),
    ],
    ids=["a sum that is wrong", "a ring that is not joined"],
)
def test_a_collective_that_is_wrong_or_fails_says_so(
    scene: dict[str, Any], why: dict[str, Any], tmp_path: Path
) -> None:
    (ring,) = run(tmp_path, f"collective={1 << 30}", "seconds=0", gpus=2, **scene)
    assert {**ring, **why} == ring
    assert "missing" not in ring


def test_where_there_is_no_driver_nothing_is_said_of_any_gpu(tmp_path: Path) -> None:
    (said,) = run(tmp_path, gpus=2, missing=["libcuda"])
    assert (said["kind"], said["of"], said["missing"]) == ("fault", "probe", True)


def test_the_program_is_one_text_that_an_old_python_reads_and_a_kubelet_leaves_as_it_is() -> None:
    text = program_text()
    ast.parse(text, feature_version=(3, 8))
    assert 'PTX = ""' not in text
    assert "$" not in text  # a kubelet fills in $(NAME) in the words of a container's command
    assert len(text) < 100_000  # one word of a command has 128 KiB (MAX_ARG_STRLEN)
    imported = {name.split(".")[0] for name in re.findall(r"^(?:import|from) (\S+)", text, re.MULTILINE)}
    assert imported - {"__future__"} <= set(sys.stdlib_module_names)


def test_the_kernels_that_are_built_are_those_of_the_source_and_of_the_program() -> None:
    source, built, program = (
        (HERE / name).read_text(encoding="utf-8") for name in ("probe.cu", "probe.ptx", "probe.py")
    )
    made = set(re.findall(r"\.visible \.entry (\w+)\(", built))
    assert made == set(
        re.findall(r'^extern "C" __global__ void (?:__launch_bounds__\(\w+\) )?(\w+)\(', source, re.MULTILINE)
    )
    asked = {name.replace("%d", "") for name in re.findall(r'\.kernel\("([\w%]+)"', program)}
    assert {name.rstrip("234") for name in made} == asked
    assert {name for name in made if name.startswith("product")} == {f"product{stages}" for stages in (2, 3, 4)}
    assert re.findall(r"^\.(?:version|target) (.*)$", built, re.MULTILINE) == ["7.0", "sm_80"]


TOGETHER = """
import json, sys, time
space = {"__name__": "probe"}
exec(open(sys.argv[1]).read(), space)
def work(ready):
    ready()
    began = time.monotonic()
    time.sleep(0.5)
    return {"kind": "gpu", "began": began}
children = [space["Child"](work) for _ in range(3)]
end = time.monotonic() + 60
for child in children:
    child.lines(1, end)
for child in children:
    child.go()
print(json.dumps([child.end(0, 2, end)["began"] for child in children]))
"""


def test_all_gpus_begin_together(tmp_path: Path) -> None:
    """Each waited for the next one's end once: it held the pipe by which it was to be told to begin (on two H200)."""
    program = tmp_path / "probe.py"
    program.write_text(program_text(), encoding="utf-8")
    words = [sys.executable, "-c", TOGETHER, str(program)]
    began = json.loads(subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout)
    assert max(began) - min(began) < 0.4, "one slept its half of a second before another began"
