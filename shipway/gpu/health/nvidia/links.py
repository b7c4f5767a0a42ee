"""NVLink's error counters as `nvidia-smi nvlink -e` tells them, and what their growth means.

The form is that of two H200 (recorded on 2026-11-30, all counters at 0). What counts is DCGM's (DcgmHealthWatch.cpp,
dcgm_gpu_hardware_limits.h): one further replay or recovery; checksum errors only from 100 a second on. Other counters
(NVLink 5 has others) are told where they grow, and not judged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from shipway.gpu.health.model import Fault

CRC_RATE = 100.0  # checksum errors a second
_GPU = re.compile(r"GPU [0-9]+: .*UUID: (GPU-[0-9A-Za-z-]+)")
_COUNTER = re.compile(r"\s+Link ([0-9]{1,3}): ([A-Za-z][A-Za-z ]{0,60}Errors): ([0-9]{1,20})\s*$")
SHOWN = 4


def read_link_errors(said: str) -> dict[str, dict[str, int]]:
    """Return by GPU the counters of its links that are not 0, as `Link 3: Replay Errors`; {} for one whose all are."""
    found: dict[str, dict[str, int]] = {}
    uuid = ""
    for line in said.splitlines():
        if match := _GPU.match(line):
            uuid = match[1]
        elif uuid and (match := _COUNTER.match(line)):
            counts = found.setdefault(uuid, {})
            if count := int(match[3]):
                counts[f"Link {match[1]}: {match[2]}"] = count
    return found


def judge_link_errors(more: Mapping[str, int], seconds: float) -> tuple[list[Fault], list[str]]:
    """Return the fault, and what is not judged, of counters that grew by so much in so many seconds."""
    bad, odd = dict[str, int](), dict[str, int]()
    for name, count in more.items():
        kind = name.partition(": ")[2]
        if kind in ("Replay Errors", "Recovery Errors") or (kind.startswith("CRC") and count >= CRC_RATE * seconds):
            bad[name] = count
        elif not kind.startswith("CRC"):
            odd[name] = count
    within = f"since the last pass, {seconds / 60:.0f} min ago"
    faults = [Fault("NVLink errors", f"{_list(bad)} {within}", "look closer")] if bad else []
    return faults, [f"NVLink errors: {_list(odd)} {within}"] if odd else []


def _list(counts: Mapping[str, int]) -> str:
    shown = sorted(counts.items(), key=lambda one: -one[1])[:SHOWN]
    more = f" and {len(counts) - SHOWN} more counters" if len(counts) > SHOWN else ""
    return (
        ", ".join(f"{count} more {name.partition(': ')[2]} on {name.partition(':')[0]}" for name, count in shown) + more
    )
