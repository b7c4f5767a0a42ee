"""What the probe measured, as data: each GPU with its figures, the collective of a host, and what could not be told."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Where = Literal["pod", "host"]
UNITS: dict[str, str] = {
    "matmul": "TFLOP/s",
    "library_matmul": "TFLOP/s",
    "copy": "GB/s",
    "to_gpu": "GB/s",
    "from_gpu": "GB/s",
}
ERRORS = {"ecc_errors": "uncorrectable errors of its memories", "remapped_rows": "rows replaced, or to be"}
LINKS = ("pcie_width", "pcie_gen", "nvlinks")
ENDED = "figures-ended"  # what follows the probe's lines, with its exit status
UNTOLD = "the probe did not tell it"
_ENDED = re.compile(rf"^{ENDED} (\d+)$", re.MULTILINE)
_WORDS = {"product": "name", "serial": "serial", "slot": "bus", "driver": "driver", "kernel": "kernel"}
_UUID = re.compile(r"GPU-[0-9a-f-]{36}")


@dataclass(frozen=True, slots=True)
class Measured:
    """One GPU: who it is, what it reached while its neighbours worked too, and what it reached `alone`.

    `rates` are in the units of UNITS, `links` counts; `exact`: its product had the right bits; `reasons`: NVML's bits
    of what held its clocks down under load; `began` is when the load did, in seconds since 1970 by the host's clock,
    `errors` (of ERRORS) what its memories counted meanwhile. None is what was not told; `lacks` says why, by figure.
    """

    uuid: str
    product: str = ""
    serial: str = ""
    slot: str = ""
    driver: str = ""
    kernel: str = ""
    power_limit: int | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    alone: Mapping[str, float] = field(default_factory=dict)
    links: Mapping[str, int] = field(default_factory=dict)
    exact: bool | None = None
    reasons: int | None = None
    lacks: Mapping[str, str] = field(default_factory=dict)
    began: float | None = None
    errors: Mapping[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Who it is, for people: product, UUID, serial number, slot."""
        serial = f", serial {self.serial}" if self.serial else ""
        return f"{self.product} {self.uuid} in {self.slot}{serial}"


@dataclass(frozen=True, slots=True)
class Ring:
    """An all-reduce over a host's GPUs: GB/s of bus bandwidth, whether its sums were right, and how it went.

    `network` is the library's word for what joins hosts (`ib`, `socket`), `via` its words for what joins two GPUs
    (`P2P/CUMEM`, `SHM/direct/direct`); empty where its log did not tell.
    """

    gpus: int
    size: int
    algorithm: str
    bandwidth: float
    right: bool
    network: str = ""
    via: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Silent:
    """Something that has no figures, and why: a GPU's number, `collective` or `probe`; `missing`: only a library is."""

    of: str
    why: str
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """What a host's probe said, in a pod of it or on the host itself."""

    host: str
    where: Where
    gpus: tuple[Measured, ...] = ()
    ring: Ring | None = None
    silent: tuple[Silent, ...] = ()


def has_ended(text: str) -> bool:
    """Say whether the probe has ended, whatever it said."""
    return _ENDED.search(text) is not None


def read_heard(host: str, where: Where, text: str) -> Heard:
    """Return what the lines of a probe tell; one that is none of them, or has values of other kinds, tells nothing."""
    gpus: list[Measured] = []
    rings: list[Ring] = []
    silent: list[Silent] = []
    for line in text.splitlines():
        said = _object(line)
        kind = said.get("kind")
        if kind == "gpu" and (found := _gpu(said)):
            gpus.append(found)
        elif kind == "collective" and (ring := _ring(said)):
            rings.append(ring)
        elif kind == "fault":
            silent.append(Silent(_text(said.get("of")), _text(said.get("why")), said.get("missing") is True))
    ended = _ENDED.search(text)
    if not gpus and not silent:
        status = f"exit status {ended[1]}" if ended else "it did not end"
        said_last = " ".join(text.replace(ended[0] if ended else "\0", "").split())[-200:]
        silent.append(Silent("probe", f"it said nothing ({status}){f': {said_last}' if said_last else ''}"))
    return Heard(host, where, tuple(gpus), rings[0] if rings else None, tuple(silent))


def _object(line: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line) if line.startswith("{") else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str:
    return " ".join(str(value).split())[:300] if isinstance(value, str | int) else ""


def _rates(said: Mapping[str, Any]) -> dict[str, float]:
    return {figure: value for figure in UNITS if (value := _rate(said.get(figure))) is not None}


def _rate(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        return None
    return float(value)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64 else None


def _gpu(said: Mapping[str, Any]) -> Measured | None:
    uuid = said.get("uuid")
    if not isinstance(uuid, str) or not _UUID.fullmatch(uuid):
        return None
    alone = said.get("alone")
    told = {name: _text(said.get(key, "")) for name, key in _WORDS.items()}
    names = (("no_product", "matmul"), ("no_product", "checksum"), ("no_library", "library_matmul"))
    return Measured(
        uuid,
        **told,
        power_limit=_count(said.get("power_limit")),
        rates=_rates(said),
        alone=_rates(alone) if isinstance(alone, dict) else {},
        links={name: count for name in LINKS if (count := _count(said.get(name))) is not None},
        exact=said["exact"] if isinstance(said.get("exact"), bool) else None,
        reasons=_count(said.get("reasons")),
        lacks={figure: _text(said[name]) for name, figure in names if name in said},
        began=_rate(said.get("began")),
        errors={name: count for name in ERRORS if (count := _count(said.get(name))) is not None},
    )


def _ring(said: Mapping[str, Any]) -> Ring | None:
    gpus, size, rate = _count(said.get("gpus")), _count(said.get("bytes")), _rate(said.get("bandwidth"))
    if not gpus or not size or rate is None:
        return None
    via = said.get("via")
    ways = tuple(_text(one) for one in via) if isinstance(via, list) else ()
    words = _text(said.get("algorithm", "")), _text(said.get("network", ""))
    return Ring(gpus, size, words[0], rate, said.get("right") is True, words[1], ways)
