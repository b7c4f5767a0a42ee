"""The labs' nvidia-smi answers in the form in which a machine with two H200 did (driver 580.159.04, 2026-11-28).

UUIDs are replaced. No part of the product asks for `nvidia-smi topo -m`, and so neither lab answers it.
"""

from __future__ import annotations

import csv
import re
import subprocess
from pathlib import Path

from lab.simulated.host import GpuDevice
from lab.simulated.options import Options
from shipway.gpu.nvidia import NVIDIA
from shipway.gpu.nvidia_labels import labels_of
from shipway.survey.gpu_health import labelled
from tests.places.simulated import simulated_place

RECORDED = Path(__file__).with_name("recorded")
LISTED = (RECORDED / "h200-nvidia-smi-L.txt").read_text(encoding="utf-8")
ASKED = (RECORDED / "h200-nvidia-smi-query.csv").read_text(encoding="utf-8").splitlines()
ROWS = list(csv.DictReader(ASKED, skipinitialspace=True))
UUIDS = [row["uuid"] for row in ROWS]
WHO = re.compile(r"GPU-[0-9a-f-]+")
STAND_IN = Path(__file__).parents[2] / "lab" / "containers" / "assets" / "gpu" / "nvidia-smi"


async def test_the_simulated_hosts_answer_is_the_recorded_one(tmp_path: Path) -> None:
    health = NVIDIA.health
    assert health
    async with simulated_place(tmp_path, Options(hosts=1, gpus=2, scale=0.0)) as place:
        host = place.machine("te1")
        host.gpu.devices = [
            GpuDevice(row["uuid"], name=row["name"], capability=row["compute_cap"], links=18) for row in ROWS
        ]
        on = place.session("te1")
        listed, report, capabilities = await on.read(NVIDIA.probe, health.report, health.capabilities)
        links, errors = await on.read(health.links, health.errors)
    assert listed.stdout == LISTED
    assert NVIDIA.uuids(LISTED) == UUIDS
    speeds = (RECORDED / "h200-nvidia-smi-nvlink-s.txt").read_text(encoding="utf-8")  # its UUIDs stand in another order
    assert WHO.sub("", links.stdout) == WHO.sub("", speeds)
    assert errors.stdout == (RECORDED / "h200-nvidia-smi-nvlink-e.txt").read_text(encoding="utf-8")
    assert capabilities.stdout.split() == [row["compute_cap"] for row in ROWS]
    assert labels_of(labelled(report, capabilities), None)["nvidia.com/gpu.family"] == "hopper"


def test_the_stand_in_of_the_lab_of_containers_answers_in_the_recorded_form(tmp_path: Path) -> None:
    (tmp_path / "devices").write_text("".join(f"{uuid} Healthy\n" for uuid in UUIDS), encoding="utf-8")
    script = STAND_IN.read_text(encoding="utf-8").replace("/var/lib/labgpu", str(tmp_path))
    script = script.replace("NVIDIA A10 SIMULATED", ROWS[0]["name"])

    def say(*words: str) -> str:
        return subprocess.run(
            ["sh", "-c", script, "nvidia-smi", *words], check=True, capture_output=True, text=True
        ).stdout

    assert say("-L") == LISTED
    fields = ["index", "name", "uuid", "compute_cap"]
    columns = [ASKED[0].split(", ").index(name) for name in fields]
    recorded = [", ".join(line.split(", ")[at] for at in columns) for line in ASKED]
    answered = say(f"--query-gpu={','.join(fields)}", "--format=csv").splitlines()
    assert [line.rpartition(", ")[0] for line in answered] == [line.rpartition(", ")[0] for line in recorded]
    assert answered[0] == recorded[0]
    told = say(*(NVIDIA.health.capabilities.command[1:] if NVIDIA.health else ()))
    assert told == "8.6\n8.6\n"  # an A10's
