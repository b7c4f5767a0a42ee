"""What `nvidia-smi -q` tells of each GPU's place in the fabric of its machine: joined, or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from shipway.gpu.health.nvidia.report import has_failed, is_untold, read_gpus
from shipway.gpu.verdict import TWICE, Row, Values, Verdict

# The rows of `nvidia-smi -q` below Fabric, Health: what each says where all is well, and where it is not. A healthy
# H200 with driver 580 says N/A in each (seen on 2026-11-28); the other words are read in NVIDIA's nvml.h and in its
# mock of that library (k8s-test-infra, 2026-08), and have not been seen.
_HEALTH = {
    "summary": ("healthy", ("unhealthy", "limited capacity")),
    "bandwidth": ("full", ("degraded",)),
    "route recovery in progress": ("false", ("true",)),
    "route unhealthy": ("false", ("true",)),
    "access timeout recovery": ("false", ("true",)),
    "incorrect configuration": ("none", ()),  # else it names the fault
}
# The words of a state that is none yet (nvml.h, NVML_GPU_FABRIC_STATE_*).
_NOT_JOINED = ("not started", "in progress")


def judge_fabric(said: str) -> list[Verdict]:
    """Return what `nvidia-smi -q` tells of each GPU's fabric: joined (Completed, Success, no bit of its health set)."""
    report = read_gpus(said)
    if report.forged:
        return [Verdict("not judged", report.forged)]
    return [judge_one(values) for values in report.gpus.values()]


def judge_one(values: Values) -> Verdict:
    """Return the verdict on one GPU's part of the report."""
    state, status = (values.get(("Fabric", name), "") for name in ("State", "Status"))
    if is_untold(state):  # GPUs without a fabric, and drivers before 525
        return Verdict("not judged", "the fabric's state is not told")
    if state.lower() != "completed":
        word: Literal["sick", "not judged"] = "sick" if state.lower() in _NOT_JOINED else "not judged"
        return Verdict(word, f"the fabric's state is {state}")
    # An error of the library's is one in this row: "Unknown Error" as well (NVSentinel#883).
    if is_untold(status) or status == TWICE:
        return Verdict("not judged", "the fabric's status is not told")
    if status.lower() != "success":
        return Verdict("sick", f"the fabric's status is {status}")
    return _judge_bits({path[2]: value for path, value in values.items() if _is_health(path)})


def _judge_bits(bits: Mapping[str, str]) -> Verdict:
    """Return the verdict on the bits of the health of a fabric that was joined."""
    rows = [(name, value, *_HEALTH[name.lower()]) for name, value in bits.items() if name.lower() in _HEALTH]
    odd = [row for row in rows if has_failed(row[1]) or not (is_untold(row[1]) or row[1].lower() == row[2])]
    sick = [
        f"{name} {value}" for name, value, _, bad in odd if not has_failed(value) and (not bad or value.lower() in bad)
    ]
    if sick:
        return Verdict("sick", f"the fabric's health is {', '.join(sick)}")
    if odd:
        return Verdict(
            "not judged", f"the fabric's health is {', '.join(f'{name} {value}' for name, value, *_ in odd)}"
        )
    return Verdict("ok")


def _is_health(path: Row) -> bool:
    """Say whether a row is one of the bits of the fabric's health."""
    return [name.lower() for name in path[:2]] == ["fabric", "health"] and len(path) > 2  # noqa: PLR2004 - and a name
