"""What `nvidia-smi -q` tells of each GPU's place in the fabric of its machine: joined, or not."""

from __future__ import annotations

from shipway.gpu.verdict import Values, Verdict, read_sections

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
UNTOLD = ("", "n/a", "not supported")


def judge_fabric(said: str) -> list[Verdict]:
    """Return what `nvidia-smi -q` tells of each GPU's fabric: joined (Completed, Success, no bit of its health set)."""
    reports = [values for heading, values in read_sections(said).items() if heading.startswith("GPU ")]
    return [judge_one(values) for values in reports]


def judge_one(values: Values) -> Verdict:
    """Return the verdict on one GPU's part of the report."""
    state, status = (values.get(("Fabric", name), "") for name in ("State", "Status"))
    if state.lower() in UNTOLD:  # GPUs without a fabric, and drivers before 525
        return Verdict("not judged", "the fabric's state is not told")
    if state != "Completed":
        return Verdict("sick", f"the fabric's state is {state}")
    if status.lower() not in (*UNTOLD, "success"):
        return Verdict("sick", f"the fabric's status is {status}")
    bits = {path[2]: value for path, value in values.items() if path[:2] == ("Fabric", "Health")}
    rows = [(name, value, *_HEALTH.get(name.lower(), (value.lower(), ()))) for name, value in bits.items()]
    odd = [row for row in rows if row[1].lower() not in (*UNTOLD, row[2])]
    sick = [f"{name} {value}" for name, value, _, bad in odd if not bad or value.lower() in bad]
    if sick:
        return Verdict("sick", f"the fabric's health is {', '.join(sick)}")
    if odd:
        return Verdict(
            "not judged", f"the fabric's health is {', '.join(f'{name} {value}' for name, value, *_ in odd)}"
        )
    return Verdict("not judged", "the fabric's status is not told") if status.lower() in UNTOLD else Verdict("ok")
