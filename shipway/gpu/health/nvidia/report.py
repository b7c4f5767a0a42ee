"""What `nvidia-smi -q` says of each GPU, and nothing of what a program on one can write into it.

It prints the name of each process as it is: one with newlines in it is a row, or another GPU, for whoever reads names
and values (seen on an H200, driver 580.159.04, 2026-11-30; a pod's user chooses that name). Nothing is read of a GPU
from its `Processes` on. A heading of a GPU may be written there as well: then there are more of them than GPUs are
attached, or one twice, and nobody can tell which are the driver's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from shipway.gpu.verdict import TWICE, Values, read_sections

FORGED = "the name of a program on a GPU reads as rows of GPUs: see `ps` on the host"
_GPU = re.compile(r"GPU ([0-9A-Fa-f:.]+)\s*")
_PROCESSES = re.compile(r"    (?:Compute )?Processes(?:\s+: .*)?\s*")
_ATTACHED = re.compile(r"Attached GPUs\s+: ([0-9]{1,3})\s*")
# What the driver says in a row's place that a GPU has not; brackets around it are those of its tables.
_UNTOLD = ("", "n/a", "not supported", "requested functionality has been deprecated")
_FAILED = ("unknown error", "err!", "error", "insufficient permissions")  # in that of one that it could not read
LOST = "gpu is lost"  # NVML_ERROR_GPU_IS_LOST: it has fallen off the bus, or cannot be reached


@dataclass(frozen=True, slots=True)
class Report:
    """The values of each GPU by its address; `forged` says why they are not to be relied on, "" where they are."""

    gpus: Mapping[str, Values] = field(default_factory=dict)
    forged: str = ""


def read_gpus(said: str) -> Report:
    """Return what the driver says of its GPUs, but for what follows from a GPU's processes on."""
    kept: list[str] = []
    found: list[str] = []
    attached, skips = None, False
    for line in said.splitlines():
        if heading := _GPU.fullmatch(line):
            found.append(heading[1])
            skips = False
        elif not found:
            match = _ATTACHED.fullmatch(line)
            attached = int(match[1]) if match and attached is None else attached
        elif _PROCESSES.fullmatch(line) or line[:1].strip():
            skips = True
        if found and not skips:
            kept.append(line)
    sections = read_sections("\n".join(kept))
    gpus = {heading.removeprefix("GPU ").strip(): values for heading, values in sections.items()}
    more = attached is not None and len(found) > attached
    return Report(gpus, FORGED if more or len(set(found)) < len(found) else "")


def plain(said: str) -> str:
    """Return a value in lower case, without the brackets that some programs of the driver put around words."""
    return said.strip().removeprefix("[").removesuffix("]").strip().lower()


def is_untold(said: str) -> bool:
    """Say whether a row's value is that a GPU has no such thing."""
    return plain(said) in _UNTOLD


def has_failed(said: str) -> bool:
    """Say whether a row's value is that it could not be read, by the driver or by us."""
    return said == TWICE or plain(said) in (*_FAILED, LOST)
