"""A verified backup in the place of a single control plane's data, and what watches the API made to look anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar

from shipway.backup.script import PLACE, ROOT
from shipway.backup.state import NAME, BackupsThere, taken_at
from shipway.facts.services import UnitState
from shipway.host.session import Command, Host
from shipway.step import Drift, Impact

# A restore that ended so short ago is the one that was asked for: its controller was killed, and it is run again.
RECENT = timedelta(minutes=30)
RESTORE_SECONDS = 1800  # a stop has 180 s, etcd and the API server 240 s each; the rest is for copying the data
OPERATION = "restore"


def _is_recent(when: str, now: datetime) -> bool:
    return bool(NAME.fullmatch(when)) and timedelta(0) <= now - taken_at(when) < RECENT


@dataclass(frozen=True)
class BackupThere:
    """The backup that is to be restored is on the host, and verified."""

    script: str = field(repr=False)
    backup: str
    name: str = "the backup is on the host, verified"

    async def check(self, on: Host) -> Drift | None:
        """Look for it among the verified ones; a restore that was broken off is to be ended before another begins."""
        state = await on.read(BackupsThere(self.script))
        if state.restoring and state.restoring != f"{ROOT}/{self.backup}":
            return Drift(
                f"the restore of {state.restoring} was broken off", "a verified backup of this name, and no other"
            )
        known = [one.name for one in state.backups if one.verified]
        if self.backup in known:
            return None
        return Drift(f"no {self.backup}; verified are: {', '.join(known) or 'none'}", "a verified backup of this name")


@dataclass(frozen=True)
class OneControlPlane:
    """The cluster has one control plane: of several, the others' etcd would go on with the data of before."""

    names: tuple[str, ...]
    name: str = "the cluster has one control plane"

    async def check(self, on: Host) -> Drift | None:  # noqa: ARG002 - the cluster file tells
        """Count them."""
        return None if len(self.names) == 1 else Drift(", ".join(self.names), "one")


@dataclass(frozen=True)
class BackupRestored:
    """The cluster's data are those of a backup; `before` is what the host last restored when the run began."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    script: str = field(repr=False)
    backup: str
    before: str
    name: str = "etcd has the data of the backup"

    async def check(self, on: Host) -> Drift | None:
        """Look at what the host restored last, and whether that was broken off."""
        state = await on.read(BackupsThere(self.script))
        if state.restoring:
            return Drift(f"the restore of {state.restoring} was broken off", self.backup)
        name, _, when = state.restored.partition(" ")
        if name == self.backup and (state.restored != self.before or _is_recent(when, state.now)):
            return None
        return Drift("the data of now", self.backup)

    async def apply(self, on: Host) -> None:
        """Let the host restore it, as a unit that lives on when this run does not."""
        await on.succeed(OPERATION, ("bash", PLACE, "restore", f"{ROOT}/{self.backup}"), seconds=RESTORE_SECONDS)


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
