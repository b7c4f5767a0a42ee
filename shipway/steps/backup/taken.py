"""A backup is taken and verified, and none is too old."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import ClassVar

from shipway.backup.script import PLACE
from shipway.backup.state import BackupsThere
from shipway.host.session import Host
from shipway.step import Drift, Impact

OPERATION = "backup"
TAKE_SECONDS = 5400  # a snapshot has 600 s, and its restored copy 1800


@dataclass(frozen=True)
class BackupTaken:
    """There is a verified backup that was not there when the run began, or (`hours`) one that is young enough."""

    impact: ClassVar[Impact] = Impact.FILES
    script: str = field(repr=False)
    known: Collection[str] = ()
    hours: int = 0
    name: str = "a backup is taken, and verified by restoring it"

    async def check(self, on: Host) -> Drift | None:
        """Look at the newest verified backup; its age is told by its own host's clock."""
        state = await on.read(BackupsThere(self.script))
        newest = state.newest
        if newest is None:
            return Drift("no verified backup", "one of this run")
        age = newest.hours_before(state.now)
        if newest.name not in self.known or (self.hours and 0 <= age <= self.hours):  # one of this second is 0 h old
            return None
        want = f"one of the last {self.hours} h" if self.hours else "one of this run"
        return Drift(f"the newest verified one is {age:.1f} h old", want)

    async def apply(self, on: Host) -> None:
        """Let the host take one, as a unit that lives on when this run does not."""
        await on.succeed(OPERATION, ("bash", PLACE, "take"), seconds=TAKE_SECONDS)


@dataclass(frozen=True)
class BackupFresh:
    """The newest verified backup is not older than declared."""

    script: str = field(repr=False)
    hours: int
    name: str = "the newest verified backup is not too old"

    async def check(self, on: Host) -> Drift | None:
        """Compare its age, by its host's clock, with what is declared."""
        state = await on.read(BackupsThere(self.script))
        want = f"at most {self.hours} h: run `shipway backup`"
        if state.newest is None:
            found = f"{len(state.backups)} that are not verified" if state.backups else "none"
            return Drift(f"no verified backup ({found})", want)
        age = state.newest.hours_before(state.now)
        if age <= self.hours:
            return None
        why = "; see `journalctl -u shipway-scheduled-backup` on the host" if state.backups[0] != state.newest else ""
        return Drift(f"the newest verified backup is {age:.0f} hours old", f"{want}{why}")
