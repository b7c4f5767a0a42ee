"""The labs' nvidia-smi answers in the form in which a machine with two H200 did (driver 580.159.04, 2026-11-28).

UUIDs are replaced. No part of the product asks for `nvidia-smi topo -m`, and so neither lab answers it.

What the kernel and the driver of a guest with one H200 said in the minute of its boot is of 2026-11-30, the same
driver: a slice of dmesg, the report, and the NVIDIA part of /proc/devices. Serial number, UUID and PDI are replaced.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
from pathlib import Path
from typing import cast

from lab.simulated.host import GpuDevice
from lab.simulated.options import Options
from shipway.gpu.driver.generations import SPACES
from shipway.gpu.driver.imex import KINDS, NODES_OF_CHANNELS
from shipway.gpu.health.nvidia.fabric import judge_fabric
from shipway.gpu.health.nvidia.rows import judge_health
from shipway.gpu.health.nvidia.xids import SCRIPT
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.gpu.nvidia.labels import labels_of
from shipway.host.session import Host
from shipway.known_failures.catalogue import diagnose
from shipway.steps.gpu.driver.imex import ImexChannels
from shipway.steps.gpu.driver.module import LOADED
from shipway.survey.gpu_health import labelled
from tests.gpu.driver_machine import GB200, space
from tests.places.facts import KnownFacts, said
from tests.places.simulated import simulated_place

RECORDED = Path(__file__).with_name("recorded")
LISTED = (RECORDED / "h200-nvidia-smi-L.txt").read_text(encoding="utf-8")
ASKED = (RECORDED / "h200-nvidia-smi-query.csv").read_text(encoding="utf-8").splitlines()
ROWS = list(csv.DictReader(ASKED, skipinitialspace=True))
BOOT = (RECORDED / "h200-dmesg.txt").read_text(encoding="utf-8")
ONE = (RECORDED / "h200-one-nvidia-smi-q.txt").read_text(encoding="utf-8")
CHARACTERS = (RECORDED / "h200-proc-devices.txt").read_text(encoding="utf-8")
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


def test_a_healthy_boot_tells_of_no_fault_whoever_reads_the_log(tmp_path: Path) -> None:
    """The module names an interrupt that it clears, and a mode that is deprecated: no error of a GPU."""
    program = tmp_path / "dmesg"
    program.write_text(f"#!/bin/sh\ncat {RECORDED / 'h200-dmesg.txt'}\n", encoding="utf-8")
    program.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    look = subprocess.run(["sh", "-c", SCRIPT], check=True, capture_output=True, text=True, env=path)
    assert look.stdout == ""
    assert NVIDIA.unsupported(BOOT) == (False, frozenset())
    assert [line for line in BOOT.splitlines() if diagnose(line)] == []
    assert not re.search(rf"\b{NVIDIA.kernel_word}\b", BOOT, re.IGNORECASE)
    assert BOOT.count("NVRM:") == 3
    xid = (
        "[    9.000001] NVRM: Xid (PCI:0000:00:06): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
    )
    program.write_text(f"#!/bin/sh\ncat {RECORDED / 'h200-dmesg.txt'} - <<'END'\n{xid}END\n", encoding="utf-8")
    look = subprocess.run(["sh", "-c", SCRIPT], check=True, capture_output=True, text=True, env=path)
    (gpu,) = judge_health(ONE, "", look.stdout)
    assert (gpu.slot, gpu.why) == ("0000:00:06.0", "Xid 79: GPU has fallen off the bus.")


def test_one_gpu_of_a_machine_with_switches_has_neither_fabric_nor_links_and_is_well() -> None:
    (gpu,) = judge_health(ONE, "", "")
    assert (gpu.word, gpu.faults, gpu.unjudged) == ("ok", (), ())
    assert [one.word for one in judge_fabric(ONE)] == ["not judged"]


async def test_the_channels_of_imex_are_read_as_a_kernel_writes_them() -> None:
    facts = {KINDS: CHARACTERS, LOADED: "580.159.04\n", SPACES: said(f"0000:00:06.0 {space(GB200)}")}
    on = cast("Host", KnownFacts({**facts, NODES_OF_CHANNELS: said("character special file|f2|/dev/x/channel0\n")}))
    assert await ImexChannels().check(on) is None, "242"
    assert "nvidia-caps-imex-channels" in CHARACTERS


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
