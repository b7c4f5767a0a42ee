"""What a control plane's host says of its backups: room, what is under way, and each backup with its revision."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from shipway.facts.fact import Fact, Words
from shipway.foreign.numbers import whole
from shipway.known_failures.catalogue import failure
from shipway.script import Output

NAME = re.compile(r"\d{8}T\d{6}Z")
_FIELDS = 7


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup: its name is when it was taken, in UTC; `digest` is the SHA-256 of its manifest, sizes in bytes."""

    name: str
    verified: bool
    revision: int
    keys: int
    etcd: str
    size: int
    digest: str
    sealed: bool = False  # its Secrets are encrypted, and the key is in it

    @property
    def taken(self) -> datetime:
        """When it was taken, by its host's clock."""
        return taken_at(self.name)

    def hours_before(self, now: datetime) -> float:
        """Return its age in hours."""
        return (now - self.taken).total_seconds() / 3600

    @property
    def said(self) -> str:
        """One line: its name, and what it holds."""
        state = "verified" if self.verified else "NOT verified"
        key = ", with the key of encryption at rest" if self.sealed else ""
        what = f"{self.keys} keys, revision {self.revision}, etcd {self.etcd}, {self.size} bytes{key}"
        return f"{self.name}, {state}: {what}"


def taken_at(name: str) -> datetime:
    """Return the time that a backup's name says; raises ValueError for what is no such name."""
    return datetime.strptime(name, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class BackupState:
    """What the host has: etcd's manifest, the database's size and the free room in bytes, its backups newest first."""

    manifest: bool
    image: str
    database: int
    free: int
    room: int
    busy: bool
    ctr: bool
    restoring: str  # the folder whose restore was broken off; "" where none was
    restored: str  # name of the backup that was restored last, and when; of several control planes also which restore
    now: datetime
    backups: tuple[Backup, ...]
    held: bool = False  # a restore has taken the manifests out
    id: str = ""  # of the restore of several control planes that is under way here
    lead: str = ""  # the host that gets its data
    changed: bool = False  # that restore has put its data in their place, and is not at its end
    aside: str = ""  # the restore for which the data of this host were put aside last

    @property
    def restored_by(self) -> str:
        """The id of the restore that gave the host the data it has; "" where none did, or it had none."""
        return next(iter(self.restored.split(" ")[2:]), "")

    @property
    def restored_at(self) -> datetime | None:
        """When the last restore on the host began, by its clock; None where there was none."""
        when = next(iter(self.restored.split(" ")[1:]), "")
        return taken_at(when) if NAME.fullmatch(when) else None

    @property
    def runs(self) -> bool:
        """Whether the host has what kubeadm writes for a control plane, in its place or taken out by a restore."""
        return self.manifest or self.held

    @property
    def needed(self) -> int:
        """Bytes that must be free: a snapshot, its restored copy, and their write-ahead logs."""
        return 2 * self.database + self.room

    @property
    def newest(self) -> Backup | None:
        """The newest verified backup."""
        return next((one for one in self.backups if one.verified), None)


@dataclass(frozen=True)
class BackupsThere(Fact[BackupState]):
    """What the script sees, run from its text: it need not be on the host for a look."""

    script: str

    def words(self) -> Words:
        """Let bash run it; it only looks."""
        return ("timeout", "-k", "5", "60", "bash", "-c", self.script, "shipway-backup", "look")

    def parse(self, output: Output) -> BackupState:
        """Return what it says; raises CommandFailed where it did not end well."""
        if not output.ok:
            error = failure("shipway-backup look", Output(output.status, "", output.stderr))
            error.may_retry = True
            raise error
        pairs = [line.partition("=") for line in output.stdout.splitlines()]
        said = {key: value for key, _, value in pairs if key != "backup"}
        found = tuple(one for key, _, value in pairs if key == "backup" and (one := _backup(value)))
        return BackupState(
            manifest=said.get("manifest") == "yes",
            image=said.get("image", ""),
            database=whole(said.get("database", "")) or 0,
            free=whole(said.get("free", "")) or 0,
            room=whole(said.get("room", "")) or 0,
            busy=said.get("busy") == "yes",
            ctr=said.get("ctr") == "yes",
            restoring=said.get("restoring", ""),
            restored=said.get("restored", ""),
            now=taken_at(said["now"]) if NAME.fullmatch(said.get("now", "")) else datetime.now(UTC),
            backups=found,
            held=said.get("held") == "yes",
            id=said.get("id", ""),
            lead=said.get("lead", ""),
            aside=said.get("aside", ""),
            changed=said.get("changed") == "yes",
        )


def _backup(line: str) -> Backup | None:
    """Return the backup of a line; None for one that says no such thing."""
    name, *rest = line.split(" ")
    if not NAME.fullmatch(name) or len(rest) not in (_FIELDS - 1, _FIELDS):  # the last one is newer than some backups
        return None
    state, revision, keys, etcd, size, digest = rest[: _FIELDS - 1]
    numbers = [whole(one) for one in (revision, keys, size)]
    try:
        taken_at(name)
    except ValueError:
        return None
    counts = [one for one in numbers if one is not None]
    if len(counts) != len(numbers):
        return None
    sealed = rest[_FIELDS - 1 :] == ["key"]
    return Backup(name, state == "verified", counts[0], counts[1], etcd, counts[2], digest, sealed)
