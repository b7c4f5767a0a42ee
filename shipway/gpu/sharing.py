"""How GPUs are handed out to pods: whole, to several pods in turn or at once, or in parts of the hardware's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

CLASS_LABEL = "shipway.dev/gpu-class"  # of a node: how its GPUs are handed out, where not whole by the plugin
Way = Literal["exclusive", "time slicing", "MPS", "MIG"]


@dataclass(frozen=True, slots=True)
class Sharing:
    """What a device plugin, or its vendor's labels of a node, tell of it.

    `replicas` is how many pods get one and the same device, `names` are resources of names that only a site knows, and
    `parts` says that a device is a part of a GPU wherever there are more of them than GPUs.
    """

    way: Way = "exclusive"
    replicas: int = 1
    names: tuple[str, ...] = ()
    parts: bool = False


def tells_nothing(labels: Mapping[str, str], log: str) -> Sharing:  # noqa: ARG001 - a vendor's signature
    """Return that nothing is shared: no plugin of the vendor's does it, as far as is known."""
    return Sharing()
