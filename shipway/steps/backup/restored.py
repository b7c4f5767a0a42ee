"""A verified backup in the place of a control plane's data, and what watches the API made to look anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from shipway.backup.script import PLACE, ROOT
from shipway.backup.state import BackupsThere
from shipway.facts.services import UnitState
from shipway.host.session import Command, Host
from shipway.step import Drift, Impact

RESTORE_SECONDS = 1800  # a stop has 180 s, etcd and the API server 240 s each; the rest is for copying the data
OPERATION = "restore"


@dataclass(frozen=True)
class BackupThere:
    """The backup that is to be restored is on the host, verified, or whole on this machine (`kept` names those)."""

    script: str = field(repr=False)
    backup: str
    kept: tuple[str, ...] = ()
    name: str = "the backup is there, verified"

    async def check(self, on: Host) -> Drift | None:
        """Look for it among the verified ones; a restore that was broken off is to be ended before another begins."""
        state = await on.read(BackupsThere(self.script))
        if state.restoring and state.restoring != f"{ROOT}/{self.backup}":
            return Drift(
                f"the restore of {state.restoring} was broken off", "a verified backup of this name, and no other"
            )
        known = [one.name for one in state.backups if one.verified]
        if self.backup in (*known, *self.kept):
            return None
        here = f"; on this machine: {', '.join(self.kept)}" if self.kept else ""
        have = f"no {self.backup}; verified on the host are: {', '.join(known) or 'none'}{here}"
        return Drift(have, "a verified backup of this name")


@dataclass(frozen=True)
class BackupRestored:
    """The cluster's data are those of a backup, by the restore of this id."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    script: str = field(repr=False)
    backup: str
    restore: str
    name: str = "etcd has the data of the backup"

    async def check(self, on: Host) -> Drift | None:
        """Look at what the host restored last, and whether that was broken off."""
        state = await on.read(BackupsThere(self.script))
        if state.restoring:
            return Drift(f"the restore of {state.restoring} is not at its end", self.backup)
        return None if state.restored_by == self.restore else Drift("the data of now", self.backup)

    async def apply(self, on: Host) -> None:
        """Let the host restore it, as a unit that lives on when this run does not."""
        words = ("bash", PLACE, "restore", f"{ROOT}/{self.backup}", self.restore, on.name)
        await on.succeed(OPERATION, words, seconds=RESTORE_SECONDS)


@dataclass(frozen=True)
class KubeletStarted:
    """The kubelet was started after the restore: it has a cache of objects that may not be there any more.

    Its pods go on; those that the restored cluster does not know are ended by it.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    restarts: ClassVar[str] = "kubelet"
    since: str  # its invocation before the restore; "" where that is not known
    unit: str = "kubelet"
    name: str = "the kubelet was started after the restore"

    async def check(self, on: Host) -> Drift | None:
        """Compare which start of it this is."""
        info = await on.read(UnitState("kubelet.service"))
        if info.active == "active" and self.since and info.invocation != self.since:
            return None
        return Drift(f"{info.active}, since before the restore", "started after it")

    async def apply(self, on: Host) -> None:
        """Restart it."""
        await on.do(Command(("systemctl", "restart", "kubelet"), seconds=120))
