"""The labels by which workloads choose nodes: those that NVIDIA's GPU feature discovery sets, by the driver's report.

Names and forms are those of its source (k8s-device-plugin 0.20, internal/lm): so a workload that selects by them finds
our nodes too. A report is followed by a line for each GPU with its compute capability, `9.0`, where the driver told it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from shipway.cluster.parts import GpuClass
from shipway.foreign.numbers import whole
from shipway.gpu.health.nvidia.report import read_gpus
from shipway.gpu.nvidia.classes import RESOURCE, SECTIONS, STRATEGIES
from shipway.gpu.product import label_product

DOMAIN = "nvidia.com"
TIMESTAMP = f"{DOMAIN}/gfd.timestamp"  # feature discovery's own mark
FEATURES = "nfd.node.kubernetes.io/feature-labels"  # where node feature discovery lists the labels that it has set
_DRIVER = re.compile(r"^Driver Version\s*: ([0-9]+)\.([0-9]+)(?:\.([0-9]+))?\s*$", re.MULTILINE)
_CUDA = re.compile(r"^CUDA Version\s*: ([0-9]+)\.([0-9]+)\s*$", re.MULTILINE)
_CAPABILITY = re.compile(r"^([0-9]+)\.([0-9]+)$", re.MULTILINE)
_FAMILIES = {3: "kepler", 5: "maxwell", 6: "pascal", 9: "hopper", 10: "blackwell", 12: "blackwell"}
_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def labels_of(report: str, shared: GpuClass | None) -> dict[str, str]:
    """Return the labels of a node by its host's `nvidia-smi -q`, and by its class; none where the report has no GPU."""
    read = read_gpus(report)
    gpus = list(read.gpus.values())
    if not gpus or read.forged:
        return {}
    modes = {values.get(("MIG Mode", "Current"), "") for values in gpus}
    found = {**_versions(report), f"{DOMAIN}/mig.capable": str(bool(modes & {"Enabled", "Disabled"})).lower()}
    if shared and shared.sharing in STRATEGIES:
        found[f"{DOMAIN}/mig.strategy"] = STRATEGIES[shared.sharing]
    if "Enabled" not in modes:  # of divided GPUs the labels are of their parts, which the report does not list
        named = _of_whole(gpus, shared) | _of_capability(report)
        found |= {f"{RESOURCE}.{key}": value for key, value in named.items()}
    return {key: value for key, value in found.items() if value == "" or _VALUE.fullmatch(value)}


def _of_whole(gpus: list[Any], shared: GpuClass | None) -> dict[str, str]:
    """Return what is told of GPUs that are not divided; product and memory only where all are alike."""
    shares = shared if shared and shared.sharing in SECTIONS else None
    found = {
        "count": str(len(gpus)),
        "replicas": str(shares.replicas if shares else 1),
        "sharing-strategy": shares.sharing if shares else "none",
    }
    products = {values.get(("Product Name",), "") for values in gpus}
    if len(products) == 1:
        product = label_product(products.pop())
        found["product"] = f"{product}-SHARED" if shares and not shares.rename else product
    sizes = {whole(values.get(("FB Memory Usage", "Total"), "").removesuffix(" MiB")) for values in gpus}
    if len(sizes) == 1 and (size := sizes.pop()):
        found["memory"] = str(size)
    return {key: value for key, value in found.items() if value}


def _of_capability(report: str) -> dict[str, str]:
    """Return what GPUs can compute, and their family, where all are alike (internal/lm/resource.go, getArchFamily)."""
    found = set(_CAPABILITY.findall(report.rpartition("\n\n")[2]))  # the report has names of programs in it
    if len(found) != 1:
        return {}
    major, minor = found.pop()
    named = {"compute.major": major, "compute.minor": minor, "family": _family(int(major), int(minor))}
    return {key: value for key, value in named.items() if value}


def _family(major: int, minor: int) -> str:
    """Return the name of a family; "" of one that is not known."""
    if major == 7:  # noqa: PLR2004 - two families
        return "volta" if minor < 5 else "turing"  # noqa: PLR2004 - 7.5
    if major == 8:  # noqa: PLR2004 - two families
        return "ampere" if minor < 9 else "ada-lovelace"  # noqa: PLR2004 - 8.9
    return _FAMILIES.get(major, "")


def _versions(report: str) -> dict[str, str]:
    found: dict[str, str] = {}
    if driver := _DRIVER.search(report):
        major, minor, revision = driver[1], driver[2], driver[3] or ""
        full = ".".join(part for part in (major, minor, revision) if part)
        names = {"major": major, "minor": minor, "revision": revision, "full": full}
        found |= {f"{DOMAIN}/cuda.driver-version.{name}": value for name, value in names.items()}
    if cuda := _CUDA.search(report):
        names = {"major": cuda[1], "minor": cuda[2], "full": f"{cuda[1]}.{cuda[2]}"}
        found |= {f"{DOMAIN}/cuda.runtime-version.{name}": value for name, value in names.items()}
    return found


def find_other_owner(node: Mapping[str, Any]) -> str:
    """Return who else sets these labels on a node; "" where nobody does."""
    meta = node["metadata"]
    if TIMESTAMP in (meta.get("labels") or {}):
        return "GPU feature discovery"
    listed = str((meta.get("annotations") or {}).get(FEATURES, ""))
    return "node feature discovery" if f"{RESOURCE}." in listed or "gpu.product" in listed else ""
