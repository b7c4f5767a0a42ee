"""The lab's stand-in for mig-parted says and does what NVIDIA's own program did, word for word."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.containers.places import ASSETS
from lab.gpu_report import change_rows, write_one

# NVIDIA's mig-parted v0.15.0 (bd7160f4), built from its source, on 2026-11-30: `h200` on two real H200, where nothing
# was changed, the rest on a pretended NVML of two H200. Of its errors the last is kept, without its time.
RECORDED = json.loads((Path(__file__).parent / "recorded" / "mig-parted.json").read_text(encoding="utf-8"))
GPUS = ("GPU-00000000-1111-2222-3333-444444444444", "GPU-00000001-1111-2222-3333-444444444444")
MODES = ("Disabled", "Enabled")
BEFORE: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {  # modes, and how many parts of 3g.71gb
    "whole": ((0, 0), (0, 0)),
    "h200": ((0, 0), (0, 0)),
    "waiting": ((0, 0), (0, 0)),
    "without": ((0, 0), (0, 0)),
    "divided": ((1, 1), (2, 2)),
    "unlike": ((1, 0), (2, 0)),
}


def furnish(folder: Path, gpus: str) -> dict[str, str]:
    """Make the lab's files of two GPUs and those of the answer; return the environment of a program there."""
    place, bin_, (modes, counts) = folder / "labgpu", folder / "bin", BEFORE[gpus]
    place.mkdir()
    bin_.mkdir()
    (bin_ / "nvidia-smi").write_text((ASSETS / "gpu" / "nvidia-smi").read_text())
    (bin_ / "nvidia-smi").chmod(0o755)
    (place / "devices").write_text("".join(f"{gpu} Healthy\n" for gpu in GPUS))
    for index, gpu in enumerate(GPUS):
        mode = "N/A" if gpus == "without" else MODES[modes[index]]
        rows = {"MIG Mode/Current": mode, "MIG Mode/Pending": mode}
        (place / f"report-{gpu}").write_text(change_rows(write_one(index, gpu, "NVIDIA H200", "580.159.04"), rows))
    rows = [
        f"{gpu} MIG-{gpu[4:]}-{at} 3g.71gb\n" for gpu, count in zip(GPUS, counts, strict=True) for at in range(count)
    ]
    (place / "parts").write_text("".join(rows))
    if gpus == "waiting":
        (place / "waits").write_text("\n".join(GPUS))
    for name, text in RECORDED["files"].items():
        (folder / name).write_text(text)
    return {**os.environ, "LABGPU": str(place), "PATH": f"{bin_}:{os.environ['PATH']}"}


def mode_of(folder: Path, index: int) -> list[int]:
    text = (folder / "labgpu" / f"report-{GPUS[index]}").read_text()
    found = re.search(r"    MIG Mode\n +Current +: (\S+)\n +Pending +: (\S+)", text)
    assert found
    return [0 if one == "N/A" else MODES.index(one) for one in found.groups()]


def parts_of(folder: Path, index: int) -> list[str]:
    rows = [line.split() for line in (folder / "labgpu" / "parts").read_text().splitlines()]
    return sorted(profile for gpu, _, profile in rows if gpu == GPUS[index])


@pytest.mark.parametrize("answer", RECORDED["answers"], ids=lambda one: f"{one['gpus']}: {' '.join(one['words'])}")
def test_the_stand_in_answers_as_the_program_does(answer: dict[str, Any], tmp_path: Path) -> None:
    program = ASSETS / "nvidia" / "mig" / "nvidia-mig-parted"
    env = furnish(tmp_path, answer["gpus"])
    words = (sys.executable, str(program), *answer["words"])
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    said = [re.sub(r'^time="[^"]*" ', "", line) for line in done.stderr.splitlines()]
    ran = tmp_path / "ran"
    assert (done.returncode, done.stdout) == (answer["status"], answer["stdout"])
    assert said[-1:] == answer["stderr"]
    assert (ran.read_text().splitlines() if ran.exists() else []) == answer["hooks"]
    assert [mode_of(tmp_path, index) for index in range(2)] == answer["modes"]
    assert [parts_of(tmp_path, index) for index in range(2)] == answer["parts"]


def test_nvidia_smi_lists_the_parts_beside_their_gpu(tmp_path: Path) -> None:
    env = furnish(tmp_path, "unlike")

    def asked(*words: str) -> str:
        return subprocess.run(("nvidia-smi", *words), env=env, capture_output=True, text=True, check=True).stdout

    assert asked("-L").splitlines() == [
        f"GPU 0: NVIDIA A10 SIMULATED (UUID: {GPUS[0]})",
        f"  MIG 3g.71gb     Device  0: (UUID: MIG-{GPUS[0][4:]}-0)",
        f"  MIG 3g.71gb     Device  1: (UUID: MIG-{GPUS[0][4:]}-1)",
        f"GPU 1: NVIDIA A10 SIMULATED (UUID: {GPUS[1]})",
    ]
    modes = asked("--query-gpu=index,mig.mode.current,mig.mode.pending", "--format=csv,noheader")
    assert modes.splitlines() == ["0, Enabled, Enabled", "1, Disabled, Disabled"]
    assert asked("--query-compute-apps=pid,process_name", "--format=csv,noheader") == ""
    assert asked("-q").count("    MIG Device\n") == 2
