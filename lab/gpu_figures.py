"""What the probe says in the SIMULATED lab: the lines of two real H200, recorded, scaled by what a scene wants.

Recorded on 2026-11-29 with driver 580.159.04, names and numbers of the machine masked. The product's name says that
they are SIMULATED, so that no table of real GPUs judges them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from shipway.gpu.figures.model import ENDED, UNITS

RECORDED = Path(__file__).with_name("h200-figures.jsonl")
PRODUCT = "SIMULATED H200"
SECONDS = 17.0  # what it took


@dataclass
class Scene:
    """How a host's GPUs differ from the recorded ones.

    By UUID: `slow` is a factor of all its rates, `wrong` ones compute falsely, `failing` ones count errors of memory,
    `hung` ones never answer. Of all: what is `missing` (python3, nccl), `in_pod` a factor of what pods reach, `busy`
    what uses a GPU on the host, and `silent` that the probe never ends. `rails` are factors of what a GPU's way to
    other hosts reaches, by its number.
    """

    slow: dict[str, float] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)
    hung: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    in_pod: float = 1.0
    busy: str = ""
    silent: bool = False
    burn: str = "dcgmi is not installed\n"  # what NVIDIA's diagnosis says
    network: str = "kernel 5.15.0\nguest kvm\n"  # what there is for RDMA
    rails: dict[int, float] = field(default_factory=dict)
    joined_by: str = "simulated"  # NCCL's word for the network
    via: tuple[str, ...] = ()  # NCCL's words for the ways between its GPUs, where they are others than recorded


RAIL = 40.0  # GB/s: what a network card of 400 Gb/s leaves to a collective
ID = "5a" * 128


def write_rank(options: Mapping[str, str], scene: Scene) -> str:
    """Return what the probe of one host says of a collective across hosts: no faster than its own slowest rail."""
    only = [int(number) for number in options["only"].split(",")]
    if "nccl" in scene.missing:
        none = {"kind": "fault", "of": "collective", "why": "libnccl.so.2: cannot open", "missing": True}
        return f"{json.dumps(none)}\n{ENDED} 0\n"
    told: list[dict[str, Any]] = [{"kind": "id", "id": ID}] if options["rank"] == "0" else []
    if options["rank"] != "0" and options.get("id") != ID:
        return f"SIMULATED: rank {options['rank']} was given no id\n{ENDED} 1\n"
    rate = len(only) * RAIL * min(scene.rails.get(number, 1.0) for number in only)
    ring = {"kind": "collective", "gpus": int(options["ranks"]), "bytes": int(options["collective"])}
    told.append({**ring, "bandwidth": round(rate, 2), "right": True, "algorithm": "ring", "network": scene.joined_by})
    return "".join(f"{json.dumps(line)}\n" for line in told) + f"{ENDED} 0\n"


def write_figures(uuids: Sequence[str], scene: Scene, *, where: Literal["pod", "host"]) -> str:
    """Return what the probe says of these GPUs."""
    if scene.silent:
        return ""
    if "python3" in scene.missing:
        return f"sh: 1: python3: not found\n{ENDED} 127\n"
    recorded = [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]
    lines = [_gpu(number, uuid, recorded[number % 2], scene, where) for number, uuid in enumerate(uuids)]
    if len(uuids) > 1:
        slowest = min(scene.slow.get(uuid, 1.0) for uuid in uuids)
        ring = {**recorded[2], "gpus": len(uuids), "bandwidth": recorded[2]["bandwidth"] * slowest}
        ring |= {"via": list(scene.via)} if scene.via else {}
        none = {"kind": "fault", "of": "collective", "why": "libnccl.so.2: cannot open", "missing": True}
        lines.append(none if "nccl" in scene.missing else ring)
    return "".join(f"{json.dumps(line)}\n" for line in lines) + f"{ENDED} 0\n"


def _gpu(number: int, uuid: str, recorded: dict[str, Any], scene: Scene, where: str) -> dict[str, Any]:
    if uuid in scene.hung:
        return {"kind": "fault", "of": number, "why": "no answer in time: the driver hangs"}
    factor = scene.slow.get(uuid, 1.0) * (scene.in_pod if where == "pod" else 1.0)
    named = {"number": number, "uuid": uuid, "name": PRODUCT, "bus": f"0000:{16 + number:02x}:00.0"}
    rates = {figure: round(recorded[figure] * factor, 2) for figure in UNITS}
    counts = {"ecc_errors": 2 * (uuid in scene.failing), "remapped_rows": 0, "began": time.time()}
    return {**recorded, **named, **rates, **counts, "exact": uuid not in scene.wrong}
