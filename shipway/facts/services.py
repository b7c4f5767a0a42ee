"""Facts about systemd units: whether they are active, enabled, masked, and since when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from shipway.facts.fact import Fact, Words
from shipway.script import Output

_PROPERTIES = (
    "Id,Names,LoadState,ActiveState,SubState,UnitFileState,ActiveEnterTimestamp,NeedDaemonReload,Result,InvocationID"
)


@dataclass(frozen=True, slots=True)
class UnitInfo:
    """systemd's words for a unit; `active_since` in whole seconds since 1970, 0 when it was never active.

    `invocation` is another one each time that the unit is started, whatever the clock says; empty before the first.
    """

    load: str
    active: str
    sub: str
    enabled: str
    active_since: int
    needs_reload: bool
    invocation: str = ""


def _seconds(stamp: str) -> int:
    """Return systemd's time stamp (with LC_ALL=C and the host in UTC or another zone) as seconds since 1970."""
    parts = stamp.split()
    if len(parts) < 3:  # noqa: PLR2004 - "Mon 2026-11-23 20:48:08 UTC"
        return 0
    try:
        return int(datetime.strptime(f"{parts[1]} {parts[2]}", "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp())
    except ValueError:
        return 0


@dataclass(frozen=True)
class UnitState(Fact[UnitInfo]):
    """The state of a unit; an unknown unit has load `not-found`. All units of a look cost one process."""

    unit: str

    @classmethod
    def ask_all(cls, facts: Sequence[UnitState]) -> list[Words]:
        """Ask systemd for all units at once, with times in UTC."""
        return [("env", "TZ=UTC", "systemctl", "show", "-p", _PROPERTIES, "--", *(fact.unit for fact in facts))]

    @classmethod
    def answer_all(cls, facts: Sequence[UnitState], outputs: Sequence[Output]) -> list[UnitInfo]:
        """Systemd answers in the order asked, one paragraph per unit."""
        paragraphs = outputs[0].stdout.strip("\n").split("\n\n")
        answers: list[UnitInfo] = []
        for index in range(len(facts)):
            paragraph = paragraphs[index] if index < len(paragraphs) else ""
            pairs = dict(line.split("=", 1) for line in paragraph.splitlines() if "=" in line)
            answers.append(
                UnitInfo(
                    load=pairs.get("LoadState", "not-found"),
                    active=pairs.get("ActiveState", "unknown"),
                    sub=pairs.get("SubState", ""),
                    enabled=pairs.get("UnitFileState", ""),
                    active_since=_seconds(pairs.get("ActiveEnterTimestamp", "")),
                    needs_reload=pairs.get("NeedDaemonReload") == "yes",
                    invocation=pairs.get("InvocationID", ""),
                )
            )
        return answers
