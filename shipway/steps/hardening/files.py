"""Folders, files and modes of hardening on a host, and the room that an audit log needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from shipway.cluster.model import Cluster
from shipway.edits.files import FileIs
from shipway.errors import Refused
from shipway.facts.commands import Says
from shipway.foreign.numbers import whole
from shipway.host.session import Command, Host
from shipway.kubeadm.hardening import ADMISSION, AUDIT_LOGS, AUDIT_POLICY, FOLDER
from shipway.step import Check, Drift, Impact
from shipway.steps.hardening.policies import admission, audit_policy
from shipway.steps.hardening.scripts import script
from shipway.steps.kubernetes.health import FULL_PERCENT

MIB = 1 << 20
_FIELDS = 6  # of df -P
# $0 the folder of the log: size, use and mount point of its file system, and whether a log is written already.
ROOM = """
dir=$0; while [ ! -d "$dir" ]; do dir=${dir%/*}; [ -n "$dir" ] || dir=/; done
df -PB1 -- "$dir"; [ ! -s "$0/audit.log" ] || echo written
"""
# Files that kubeadm and the kubelet write, by what of their mode is too much (CIS 1.1.1 to 1.1.21, 4.1.1 to 4.1.10);
# kubeadm's own certificates are no secrets. Names of others in these folders are theirs.
MODES = script("modes")
PLACES = ("/etc/kubernetes", "/var/lib/kubelet", "/var/lib/etcd")
_PARTS = 4
SHOWN = 4


@dataclass(frozen=True)
class FolderPrivate:
    """A folder is there, and root's alone."""

    impact: ClassVar[Impact] = Impact.FILES
    name: str
    path: str

    async def check(self, on: Host) -> Drift | None:
        """Ask stat(1)."""
        said = await on.read(Says(("stat", "-c", "%F %a %U:%G", "--", self.path)))
        have = said.stdout.strip() if said.ok else "no such folder"
        return None if have == "directory 700 root:root" else Drift(have, "directory 700 root:root")

    async def apply(self, on: Host) -> None:
        """Make it, or set its mode and owner; what is in it stays."""
        await on.do(Command(("install", "-d", "-m", "700", "-o", "root", "-g", "root", "--", self.path)))


@dataclass(frozen=True)
class AuditRoom:
    """All files of the audit log together leave the disk as empty as the kubelet wants it."""

    budget: int  # MiB
    name: str = "the disk has room for the audit log"

    async def check(self, on: Host) -> Drift | None:
        """Compare its budget with what may be filled, before the log is begun. Raises Refused SHW-804."""
        lines = (await on.read(Says(("sh", "-c", ROOM, AUDIT_LOGS)))).stdout.splitlines()
        fields = lines[1].split() if len(lines) > 1 else []
        size, used = (whole(fields[1]), whole(fields[2])) if len(fields) >= _FIELDS else (None, None)
        if size is None or used is None:
            return None  # a disk of which df says nothing is no reason to refuse
        room = (size * FULL_PERCENT // 100 - used) // MIB
        if room >= self.budget or "written" in lines:  # from then on the look at all disks tells of full ones
            return None
        fix = (
            f"Lower hardening.audit.max_backups or max_size_mib, or make room: above {FULL_PERCENT} % the kubelet "
            "evicts pods."
        )
        message = f"the audit log may take {self.budget} MiB, and {fields[5]} has room for {max(room, 0)} MiB of it"
        raise Refused(message, host=on.name, code="SHW-804", fix=fix)


@dataclass(frozen=True)
class ModesNarrow:
    """The files of the control plane and the kubelet are readable by root alone; certificates are public."""

    impact: ClassVar[Impact] = Impact.FILES
    name: str = "files of Kubernetes are root's alone"

    async def _wide(self, on: Host) -> list[tuple[str, str, str]]:
        """Return mask, mode with owner, and path of each file that is open wider."""
        said = await on.read(Says(("bash", "-c", MODES, *PLACES)))
        rows = [line.split(" ", _PARTS - 1) for line in said.stdout.splitlines()]
        return [(row[0], f"{row[1]} {row[2]}", row[3]) for row in rows if len(row) == _PARTS]

    async def check(self, on: Host) -> Drift | None:
        """Look for what is open wider."""
        wide = await self._wide(on)
        if not wide:
            return None
        more = f", and {len(wide) - SHOWN} more" if len(wide) > SHOWN else ""
        return Drift(
            ", ".join(f"{path} {mode}" for _, mode, path in wide[:SHOWN]) + more, "600, certificates 644, of root"
        )

    async def apply(self, on: Host) -> None:
        """Take away what is too much; no right is added."""
        narrow = {"177": "u-x,go-rwx", "133": "u-x,go-wx", "077": "go-rwx"}
        wide = await self._wide(on)
        for mask, change in narrow.items():
            if paths := [path for found, _, path in wide if found == mask]:
                await on.do(
                    Command(("chmod", change, "--", *paths)), Command(("chown", "-h", "root:root", "--", *paths))
                )


def policy_files(cluster: Cluster) -> list[Check[Host]]:
    """Return the steps of the files that a control plane's API server reads, but for the key, and of its log."""
    declared, steps = cluster.hardening, list[Check[Host]]()
    if declared.audit.enabled or declared.pod_security.enabled or declared.encryption_at_rest:
        steps.append(FolderPrivate("the folder of hardening is root's alone", FOLDER))
    if declared.audit.enabled:
        steps += [
            AuditRoom(declared.audit.budget_mib),
            FolderPrivate("the folder of the audit log is root's alone", AUDIT_LOGS),
            FileIs("the audit policy is as declared", AUDIT_POLICY, audit_policy(cluster), mode="600"),
        ]
    if declared.pod_security.enabled:
        steps.append(FileIs("PodSecurity's defaults are as declared", ADMISSION, admission(cluster), mode="600"))
    return steps
