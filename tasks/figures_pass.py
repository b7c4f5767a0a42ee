"""What a verification with figures has measured, for its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from shipway.gpu.figures.judge import Row

Level = Literal["quick", "full", "burn"]


@dataclass
class FiguresPass:
    """How thoroughly a run proves GPUs, and what it found: a row per figure, and notes on their history."""

    level: Level = "quick"
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        """Rows by verdict."""
        return Counter(row.word for row in self.rows)

    @property
    def said(self) -> str:
        """One line on it: how many figures are good, bad, not judged."""
        counts = self.counts
        return f"{counts['good']} good, {counts['bad']} bad, {counts['not judged']} not judged"

    def as_dict(self) -> dict[str, Any]:
        """Return the part `gpus.figures` of the report as plain data."""
        counts = self.counts
        return {
            "level": self.level,
            **{word.replace(" ", "_"): counts[word] for word in ("good", "bad", "not judged")},
            "rows": [asdict(row) for row in self.rows],
            "notes": list(self.notes),
        }


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
