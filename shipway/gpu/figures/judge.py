"""What is made of figures: good, bad, or not judged; by equals, by a GPU's own history, by a table or the site's word.

One of the three that says bad is enough, and one that says anything is needed: hardware that nothing is known of is not
judged, and never passed for it (NVIDIA/aicr#1337).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from shipway.gpu.figures.floors import Floors, floor_of, floor_of_ring
from shipway.gpu.figures.history import History, usual, usual_elsewhere
from shipway.gpu.figures.model import ERRORS, LINKS, UNITS, UNTOLD, Heard, Measured, Ring, Silent

Word = Literal["good", "bad", "not judged"]
OF_EQUALS = 0.9  # of the better half's last: below it a GPU is slow, however few there are
OUTLIER, SPREAD = 0.95, 5.0  # of many: below that share of the median, and so many spreads (1.48 MAD) under it
MANY = 4
OF_ITSELF = 0.92  # of what it reached at first
NOTED = 0.95  # of what it reached with another driver: that is told, and no fault
APART = 0.9  # of the other: a pod and its host differ by more
SPREAD_OF_MAD = 1.4826
# What holds clocks down though nobody asked for it (nvml.h, nvmlClocksEventReason*); power cap and idle are no fault.
HELD = {0x8: "HW slowdown", 0x20: "heat (SW)", 0x40: "heat (HW)", 0x80: "power brake"}


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one GPU (of a host, where `uuid` is empty) and its verdict.

    `margins` are got / wanted - 1, by what it was compared with: equals, history, floor.
    """

    host: str
    uuid: str
    who: str
    figure: str
    word: Word
    why: str = ""
    got: float | None = None
    unit: str = ""
    margins: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def said(self) -> str:
        """The figure and what is to be said of it, for people."""
        got = f" {self.got:.4g} {self.unit}".rstrip() if self.got is not None else ""
        return f"{self.figure.replace('_', ' ')}{got}" + (f": {self.why}" if self.why else "")


def judge(heard: Sequence[Heard], history: History, own: Floors) -> list[Row]:
    """Return a row for each figure of each GPU that was to be measured, and for each host's all-reduce.

    `own` are the site's floors, before those of the table. What pods reached is judged; what the same host reached
    without a container is compared with it.
    """
    pods = [one for one in heard if one.where == "pod"]
    hosts = {one.host: one for one in heard if one.where == "host"}
    everyone = [(one.host, gpu) for one in pods for gpu in one.gpus]
    rows: list[Row] = []
    for one in pods:
        for gpu in one.gpus:
            judging = _Judging(one.host, gpu, everyone, history, own)
            rows += judging.rows()
            rows.append(_apart(one.host, gpu, hosts.get(one.host)))
        rows += [_of_silent(one.host, silent) for silent in one.silent if silent.of != "collective"]
        rows += _rings(one, pods, own)
    return rows


def _word(margins: Mapping[str, float], bad: Sequence[str]) -> Word:
    if bad:
        return "bad"
    return "good" if margins else "not judged"


class _Judging:
    """One GPU being judged."""

    def __init__(
        self, host: str, gpu: Measured, everyone: Sequence[tuple[str, Measured]], history: History, own: Floors
    ) -> None:
        self.host, self.gpu, self.records, self.own = host, gpu, history.get(gpu.uuid, ()), own
        self.equals = [
            (where, one)
            for where, one in everyone
            if (one.product, one.power_limit) == (gpu.product, gpu.power_limit) and gpu.product
        ]

    def rows(self) -> Iterator[Row]:
        """Yield the GPU's rows."""
        yield from (self._rate(figure) for figure in UNITS)
        yield self._checksum()
        yield self._clocks()
        yield self._memory()
        yield from (self._link(link) for link in LINKS)

    def _row(self, figure: str, word: Word, why: str = "", **more: object) -> Row:
        return Row(self.host, self.gpu.uuid, self.gpu.title, figure, word, why, **more)  # type: ignore[arg-type]

    def _rate(self, figure: str) -> Row:
        gpu = self.gpu
        got = gpu.rates.get(figure)
        if got is None:
            return self._row(figure, "not judged", gpu.lacks.get(figure, UNTOLD))
        margins, bad, note = dict[str, float](), list[str](), ""
        if against := self._against_equals(figure, got):
            margins["equals"], slow = against
            bad += slow
        if (own := usual(self.records, gpu, figure)) is not None and own > 0:
            margins["history"] = got / own - 1
            bad += [f"it reached {own:.4g} itself at first, with this driver"] if got < OF_ITSELF * own else []
        elif before := usual_elsewhere(self.records, gpu, figure):
            note = f"{figure} {got:.4g}, it reached {before[0]:.4g} with {before[1]}" if got < NOTED * before[0] else ""
        if floor := floor_of(gpu, figure, self.own):
            margins["floor"] = got / floor.least - 1
            bad += [f"at least {floor.least:.4g} is known of its product ({floor.source})"] if got < floor.least else []
        why = "; ".join(bad)
        if bad and (alone := gpu.alone.get(figure)) is not None:
            why += f"; alone it reaches {alone:.4g}"
            why += ": what it shares with others holds it back" if alone * OF_EQUALS > got else ""
        word = _word(margins, bad)
        why = why or ("" if margins else "it has no equal here and no history, and its product is in no table")
        rounded = {name: round(value, 4) for name, value in margins.items()}
        return self._row(figure, word, why, got=round(got, 2), unit=UNITS[figure], margins=rounded, note=note)

    def _against_equals(self, figure: str, got: float) -> tuple[float, list[str]] | None:
        """Return the margin to its equals and why it is slow, if it is; None where it has none."""
        like = [one for _, one in self.equals if figure in one.rates]
        if figure in ("to_gpu", "from_gpu"):  # a link that is narrower than others has a row of its own
            like = [one for one in like if one.links.get("pcie_gen") == self.gpu.links.get("pcie_gen")]
        rates = [one.rates[figure] for one in like]
        if len(rates) < 2 or (middle := statistics.median_high(rates)) <= 0:  # noqa: PLR2004 - itself and an equal
            return None
        spread = SPREAD_OF_MAD * statistics.median(abs(rate - middle) for rate in rates)
        apart = len(rates) >= MANY and got < OUTLIER * middle and got < middle - SPREAD * spread
        slow = got < OF_EQUALS * middle or apart
        return got / middle - 1, [f"{middle:.4g} is the median of {len(rates)} equals"] if slow else []

    def _checksum(self) -> Row:
        if self.gpu.exact is None:
            return self._row("checksum", "not judged", self.gpu.lacks.get("checksum", UNTOLD))
        wrong = "the bits of its product are wrong: it computes falsely, and tells nobody (silent corruption)"
        return self._row("checksum", "good") if self.gpu.exact else self._row("checksum", "bad", wrong)

    def _clocks(self) -> Row:
        if self.gpu.reasons is None:
            return self._row("clocks", "not judged", UNTOLD)
        held = [name for bit, name in HELD.items() if self.gpu.reasons & bit]
        why = f"held down under load by {', '.join(held)}" if held else ""
        return self._row("clocks", "bad" if held else "good", why)

    def _memory(self) -> Row:
        """Judge what its memories counted under the load; a GPU without ECC counts nothing."""
        if not self.gpu.errors:
            return self._row("memory errors", "not judged", UNTOLD)
        more = [f"{count} {ERRORS[name]}" for name, count in self.gpu.errors.items() if count]
        why = f"under load it counted {', '.join(more)}" if more else ""
        return self._row("memory errors", "bad" if more else "good", why)

    def _link(self, link: str) -> Row:
        """Compare a count of links with the equals of this host, of one that has it alone with those of the cluster."""
        got = self.gpu.links.get(link)
        if got is None:
            return self._row(link, "not judged", UNTOLD)
        near = [one for where, one in self.equals if where == self.host and link in one.links]
        like = near if len(near) > 1 else [one for _, one in self.equals if link in one.links]
        if len(like) < 2:  # noqa: PLR2004 - as above
            return self._row(link, "not judged", "it has no equal here", got=got)
        most = (
            statistics.median_high(one.links[link] for one in like)
            if like is not near
            else max(one.links[link] for one in near)
        )
        why = f"{most} on its equals" if got < most else ""
        return self._row(link, "bad" if why else "good", why, got=got)


def _of_silent(host: str, silent: Silent) -> Row:
    """Return the row of a GPU that gave no figures: it hangs or fails; a probe that did not run says nothing of any."""
    numbered = silent.of.isdigit()
    who = f"GPU {silent.of}" if numbered else "its GPUs"
    return Row(host, "", who, "answer", "bad" if numbered and not silent.missing else "not judged", silent.why)


def _apart(host: str, gpu: Measured, bare: Heard | None) -> Row:
    """Compare what a GPU reached in a pod with what it reached on its host."""
    other = next((one for one in bare.gpus if one.uuid == gpu.uuid), None) if bare else None
    both = [figure for figure in UNITS if other and figure in gpu.rates and figure in other.rates]
    if other is None or not both:
        why = bare.silent[0].why if bare and bare.silent else "it was not measured on its host"
        return Row(host, gpu.uuid, gpu.title, "pod against host", "not judged", why)
    slow = [_pair(figure, gpu, other) for figure in both if gpu.rates[figure] < APART * other.rates[figure]]
    bare_slow = [_pair(figure, gpu, other) for figure in both if other.rates[figure] < APART * gpu.rates[figure]]
    why = f"{', '.join(slow)}: the container holds it back (its limits, its processors)" if slow else ""
    if bare_slow:
        why += f"{'; ' * bool(why)}{', '.join(bare_slow)}: something else worked on the host"
    return Row(host, gpu.uuid, gpu.title, "pod against host", "bad" if slow else "good", why)


def _pair(figure: str, pod: Measured, host: Measured) -> str:
    return f"{figure} {pod.rates[figure]:.4g} in a pod, {host.rates[figure]:.4g} on the host"


def _key(ring: Ring, gpu: Measured) -> tuple[object, ...]:
    return gpu.product, gpu.links.get("nvlinks"), ring.gpus, ring.algorithm, ring.size


def _by_links(ring: Ring) -> bool:
    """Say whether two GPUs at least reached each other's memory: between pairs that links join the host's is used."""
    return any(way.startswith(("P2P", "NVLS")) for way in ring.via)


def _rings(one: Heard, everyone: Sequence[Heard], own: Floors) -> Iterator[Row]:
    """Yield the row of a host's all-reduce: nothing of a host with fewer than two GPUs."""
    who, unit = "its GPUs together", "GB/s"
    if one.ring is None:
        silent = next((silent for silent in one.silent if silent.of == "collective"), None)
        if silent:
            word: Word = "not judged" if silent.missing else "bad"
            yield Row(one.host, "", who, "all-reduce", word, silent.why)
        return
    got = round(one.ring.bandwidth, 2)
    if not one.ring.right:
        yield Row(one.host, "", who, "all-reduce", "bad", "its sums are wrong (silent corruption)", got, unit)
        return
    if not one.gpus:
        yield Row(one.host, "", who, "all-reduce", "not judged", "its GPUs have no figures", got, unit)
        return
    key, margins, bad = _key(one.ring, one.gpus[0]), dict[str, float](), list[str]()
    rates = [two.ring.bandwidth for two in everyone if two.ring and two.gpus and _key(two.ring, two.gpus[0]) == key]
    if len(rates) > 1 and (middle := statistics.median_high(rates)) > 0:
        margins["equals"] = round(got / middle - 1, 4)
        bad += [f"{middle:.4g} is the median of {len(rates)} hosts"] if got < OF_EQUALS * middle else []
    if floor := floor_of_ring(one.ring, one.gpus[0], own):
        margins["floor"] = round(got / floor.least - 1, 4)
        bad += [f"at least {floor.least:.4g} is known of such GPUs ({floor.source})"] if got < floor.least else []
    if all(gpu.links.get("nvlinks") for gpu in one.gpus) and one.ring.via and not _by_links(one.ring):
        bad.append(
            f"its GPUs have NVLinks, and it went by {', '.join(one.ring.via)} alone: they do not reach each other"
        )
    why = "; ".join(bad) or ("" if margins else "it has no equal here, and such GPUs are in no table")
    yield Row(one.host, "", who, "all-reduce", _word(margins, bad), why, got, unit, margins)
