"""What a verification with figures has measured, for its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from shipway.gpu.figures.judge import Row
from shipway.gpu.figures.model import UNITS

Level = Literal["quick", "full", "burn", "burn-long"]
_BURNS: dict[Level, int] = {"burn": 3, "burn-long": 4}


@dataclass
class FiguresPass:
    """How thoroughly a run proves GPUs, and what it found: a row per figure, and notes on their history.

    `needs` are what network adapters need to reach GPUs: told, and no part of a GPU's verdict.
    """

    level: Level = "quick"
    rows: list[Row] = field(default_factory=list)
    needs: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def burns(self) -> int:
        """The level of the vendor's own diagnosis that is asked for; 0 for none."""
        return _BURNS.get(self.level, 0)

    @property
    def counts(self) -> Counter[str]:
        """Rows by verdict."""
        return Counter(row.word for row in self.rows)

    @property
    def said(self) -> str:
        """One line on it: how many figures are good, bad, not judged."""
        counts = self.counts
        return f"{counts['good']} good, {counts['bad']} bad, {counts['not judged']} not judged"

    def table(self) -> list[dict[str, str]]:
        """Return a row per GPU, and per host for its GPUs together: the bad first, what fits on a phone first."""
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            groups.setdefault((row.host, row.who), []).append(row)
        found = [_line(host, who, rows) for (host, who), rows in groups.items()]
        return sorted(found, key=lambda line: _WORST_FIRST.index(line["verdict"]))

    def as_dict(self) -> dict[str, Any]:
        """Return the part `gpus.figures` of the report as plain data."""
        counts = self.counts
        return {
            "level": self.level,
            **{word.replace(" ", "_"): counts[word] for word in ("good", "bad", "not judged")},
            "rows": [asdict(row) for row in self.rows],
            "rdma": [asdict(row) for row in self.needs],
            "notes": list(self.notes),
        }


_TELLING = (*UNITS, "all-reduce", "burn")  # what is right or wrong by itself (a checksum) does not make a GPU good
_WORST_FIRST = ("bad", "not judged", "good")


def _line(host: str, who: str, rows: Sequence[Row]) -> dict[str, str]:
    """Return a GPU's line: its verdict (of figures not judged beside good ones nothing is said), and its figures."""
    words = {row.word for row in rows}
    told = any(row.word == "good" and row.figure in _TELLING for row in rows)
    verdict = "bad" if "bad" in words else "good" if told else "not judged"
    lowest = min((margin for row in rows for margin in row.margins.values()), default=None)
    got = {row.figure: f"{row.got:.4g}" for row in rows if row.got is not None}
    shown = {figure.replace("_", " "): got.get(figure, "") for figure in (*UNITS, "all-reduce")}
    why = "; ".join(row.said for row in rows if row.word == "bad")
    margin = "" if lowest is None else f"{lowest:+.1%}"
    return {"host": host, "verdict": verdict, "GPU": who, **shown, "lowest margin": margin, "why": why}


def unjudged(rows: Sequence[Row]) -> list[str]:
    """Return a line for each reason why figures were not judged, with whose they are."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.word == "not judged":
            groups.setdefault((row.figure, row.why), []).append(row.host)
    return [
        f"{', '.join(dict.fromkeys(hosts))}: {figure.replace('_', ' ')} of {len(hosts)} not judged: {why}"
        for (figure, why), hosts in groups.items()
    ]
