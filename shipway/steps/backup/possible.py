"""What must be so before a backup is taken: looked at all together, so that a plan names every refusal at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from shipway.backup.state import BackupsThere
from shipway.host.session import Host
from shipway.step import Drift

MIB = 1 << 20


@dataclass(frozen=True)
class EtcdIsKubeadms:
    """The host runs the etcd that kubeadm made: its manifest names the image, the data and the certificates."""

    script: str = field(repr=False)
    name: str = "the host runs kubeadm's etcd"

    async def check(self, on: Host) -> Drift | None:
        """Look for the manifest."""
        state = await on.read(BackupsThere(self.script))
        return None if state.manifest else Drift("no /etc/kubernetes/manifests/etcd.yaml", "kubeadm's etcd")


@dataclass(frozen=True)
class ToolsCanBeHad:
    """etcd's own programs can be taken out of its image, or a backup has taken them before."""

    script: str = field(repr=False)
    name: str = "etcd's own programs can be had"

    async def check(self, on: Host) -> Drift | None:
        """Look for containerd's client, which opens the image."""
        state = await on.read(BackupsThere(self.script))
        return None if state.ctr else Drift("no ctr on this host", "ctr, which comes with containerd")


@dataclass(frozen=True)
class RoomForBackup:
    """The disk has room for a snapshot and its restored copy: twice the database, and write-ahead logs."""

    script: str = field(repr=False)
    name: str = "the disk has room for a backup and its restored copy"

    async def check(self, on: Host) -> Drift | None:
        """Compare the free room with the database's size."""
        state = await on.read(BackupsThere(self.script))
        if state.free >= state.needed:
            return None
        database, room = state.database // MIB, state.room // MIB
        want = f"{state.needed // MIB} MiB: twice the database's {database} MiB and {room} more"
        return Drift(f"{state.free // MIB} MiB free for backups", want)


@dataclass(frozen=True)
class NoOtherBackup:
    """No other backup of the host is under way."""

    script: str = field(repr=False)
    name: str = "no other backup is under way"

    async def check(self, on: Host) -> Drift | None:
        """Look at the lock that each backup holds."""
        state = await on.read(BackupsThere(self.script))
        return Drift("another backup of this host is under way", "none") if state.busy else None
