"""Which host gets the data of which backup: by what the control planes' hosts show, and by what is under way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePath
from typing import Literal

from shipway.backup.state import BackupState
from shipway.errors import Refused

# `runs`: kubeadm's control plane is on it, whether or not it can run. `bare`: nothing is, or what a restore of ours has
# put there for `kubeadm init` to go on from. `part`: what is on it is neither, so it is no place to restore to.
# `joins`: our join broke off on it, or may begin. `joined`: the restore that is gone on with has let it join already.
Kind = Literal["runs", "bare", "part", "joins", "joined"]
NEWEST = "newest"
STORED = "s3:"  # before the name of a backup of the object store
# A restore that began so short ago is the one that was asked for: its controller was killed, and it is run again.
RECENT = timedelta(minutes=30)


def read_source(asked: str) -> tuple[str, bool]:
    """Return the name of the backup that a person asked for, and whether it is one of the object store (`s3:NAME`).

    A path is its last part: who has the folder before their eyes types it with its place.
    """
    return PurePath(asked.removeprefix(STORED)).name, asked.startswith(STORED)


@dataclass(frozen=True, slots=True)
class Plane:
    """A control plane's host: its name, what it is, and what it says of its backups."""

    name: str
    kind: Kind
    state: BackupState
    unfinished: bool = False  # what a restore has put on a bare host was not initialised yet

    def has(self, backup: str) -> bool:
        """Say whether a backup of that name is verified on it."""
        return any(one.verified and one.name == backup for one in self.state.backups)


@dataclass(frozen=True, slots=True)
class Choice:
    """The host that gets the data, the backup, the restore's id, and whether that goes on with one that has begun."""

    lead: str
    backup: str
    id: str
    begun: bool
    brought: bool  # the backup comes from this machine
    kinds: Mapping[str, Kind]
    done: bool = False  # the lead has the data already

    @property
    def bare(self) -> bool:
        """Whether the host that gets the data holds no control plane."""
        return self.kinds[self.lead] == "bare"

    def others(self, kind: Kind) -> list[str]:
        """Return the other hosts of a kind."""
        return [name for name, one in self.kinds.items() if one == kind and name != self.lead]


def choose_restore(asked: str, planes: Sequence[Plane], kept: Sequence[str], new: str) -> Choice:
    """Return the choice for a backup's name or `newest`; `kept` are the copies on this machine, `new` an id.

    A restore that was broken off is gone on with: its backup, its host, its id. So is one that came to its end on a
    host a moment ago, for others may be left to do. Else a host with a control plane is taken before a bare one, and
    one that has the backup before one to which it must be brought. Raises Refused SHW-734 where hosts are in the
    middle of different restores.
    """
    under_way = {(one.state.restoring, one.state.id, one.state.lead) for one in planes if one.state.restoring}
    if len(under_way) > 1:
        said = ", ".join(f"{one.name}: {one.state.restoring}" for one in planes if one.state.restoring)
        fix = (
            "Where none of them has /var/lib/shipway/restore/restored, `bash /var/lib/shipway/backup/host.sh start` on "
            "each makes it as it was; then run again."
        )
        raise Refused(f"different restores were broken off ({said})", code="SHW-734", fix=fix)
    kinds = {one.name: one.kind for one in planes}
    folder, id_, lead = next(iter(under_way), ("", "", ""))
    lead = lead or next((one.name for one in planes if one.state.restoring), "")
    verified = {one.name for plane in planes if plane.kind != "part" for one in plane.state.backups if one.verified}
    backup = folder.rpartition("/")[2] or asked
    if backup == NEWEST:
        backup = max({*verified, *kept}, default=NEWEST)
    ended = next((one for one in planes if not under_way and _just_restored(one, backup)), None)
    if ended is not None:
        id_, lead = ended.state.restored_by, ended.name
    begun = bool(under_way) or ended is not None
    if lead not in kinds:
        lead = _best(planes, backup, kept).name
    own, id_ = next(one for one in planes if one.name == lead), id_ if begun else new
    done = begun and own.state.restored_by == id_
    if done:  # all that lived were stopped before that: these came after it
        kinds |= {one.name: "joined" for one in planes if one.kind == "runs" and id_ not in _part_of(one.state)}
    return Choice(lead, backup, id_, begun, backup in kept and not own.has(backup), kinds, done)


def _part_of(state: BackupState) -> tuple[str, ...]:
    """Return the ids of the restores that a host takes, or took, part in."""
    return state.id, state.aside, state.restored_by


def _just_restored(plane: Plane, backup: str) -> bool:
    when, now = plane.state.restored_at, plane.state.now
    named = plane.state.restored.partition(" ")[0] == backup and bool(plane.state.restored_by)
    return named and when is not None and (plane.unfinished or timedelta(0) <= now - when < RECENT)


def _best(planes: Sequence[Plane], backup: str, kept: Sequence[str]) -> Plane:
    ways = [
        [one for one in planes if one.kind == kind and (backup in kept or one.has(backup))] for kind in ("runs", "bare")
    ]
    nearest = [[one for one in some if one.has(backup)] or some for some in ways]
    whole = [one for one in planes if one.kind == "runs"]
    return next(some[0] for some in (*nearest, whole, planes) if some)
