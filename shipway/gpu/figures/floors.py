"""What NVIDIA's GPUs are known to reach: a table of floors, each with where its number is from.

A figure belongs to a product and a power limit, one of a collective to the links, the number of GPUs, the algorithm and
the size: one number a product calls sound machines slow (NVIDIA/aicr#1256). What is not here is not judged by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shipway.gpu.figures.model import Measured, Ring
from shipway.gpu.product import label_product

SHARE = 0.9  # of what was measured, where the source is a measurement and no floor
GIB = 1 << 30
SEEN = "four H200 in two machines, driver 580.159.04, 2026-11-29"
FIELD = "stas00/ml-engineering, compute/accelerator"
AZURE = "Azure/azurehpc-health-checks, conf"


@dataclass(frozen=True, slots=True)
class Floor:
    """The least that a figure may be, and where that is from."""

    least: float
    source: str


def _measured(value: float, source: str) -> Floor:
    return Floor(round(SHARE * value, 1), f"{SHARE:g} of {value:g}, {source}")


_H200, _H100, _A100, _B200 = "NVIDIA H200", "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "NVIDIA B200"
_GEN5, _GEN4 = Floor(48.0, AZURE), Floor(21.0, AZURE)
# By product and power limit (W): by figure.
RATES: dict[tuple[str, int], dict[str, Floor]] = {
    (_H200, 700): {
        "matmul": _measured(398.0, SEEN),
        "library_matmul": _measured(703.0, SEEN),
        "copy": _measured(4297.0, SEEN),
        "to_gpu": _GEN5,
        "from_gpu": _GEN5,
    },
    (_H100, 700): {
        "library_matmul": _measured(680.0, FIELD),
        "copy": _measured(3000.0, "an H100, read before this probe was"),
        "to_gpu": _GEN5,
        "from_gpu": _GEN5,
    },
    (_A100, 400): {"library_matmul": _measured(230.0, FIELD), "to_gpu": _GEN4, "from_gpu": _GEN4},
    (_B200, 1000): {"library_matmul": _measured(1500.0, FIELD), "to_gpu": _GEN5, "from_gpu": _GEN5},
}
# By product, active NVLinks, GPUs, algorithm and size.
_NVSWITCH = "machines that share an NVSwitch, NVLS off"
RINGS: dict[tuple[str, int, int, str, int], Floor] = {
    (_H200, 18, 2, "ring", GIB): _measured(324.0, SEEN),
    (_H200, 18, 8, "ring", GIB): _measured(367.0, FIELD),
    (_H100, 18, 2, "ring", GIB): _measured(329.0, _NVSWITCH),
    (_H100, 18, 4, "ring", GIB): _measured(355.0, _NVSWITCH),
    (_H100, 18, 8, "ring", GIB): _measured(361.0, _NVSWITCH),
    (_A100, 12, 8, "ring", GIB): Floor(228.0, AZURE),
    (_B200, 18, 8, "ring", GIB): _measured(682.0, FIELD),
}


Floors = Mapping[str, Mapping[Any, float]]  # a site's own, by product as a label has it, and figure
OWN = "gpu.figures.least of the cluster file"
ALL_REDUCE = "all_reduce"


def floor_of(gpu: Measured, figure: str, own: Floors) -> Floor | None:
    """Return the floor of a GPU's figure, the site's before the table's; None where nothing is known of its product."""
    if least := own.get(label_product(gpu.product), {}).get(figure):
        return Floor(least, OWN)
    return RATES.get((gpu.product, gpu.power_limit or 0), {}).get(figure)


def floor_of_ring(ring: Ring, gpu: Measured, own: Floors) -> Floor | None:
    """Return the floor of an all-reduce among GPUs like this one, as `floor_of` does."""
    if least := own.get(label_product(gpu.product), {}).get(ALL_REDUCE):
        return Floor(least, OWN)
    return RINGS.get((gpu.product, gpu.links.get("nvlinks", 0), ring.gpus, ring.algorithm, ring.size))
