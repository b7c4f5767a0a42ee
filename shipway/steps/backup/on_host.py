"""The script on the control plane's host, and the timer by which the host takes backups without Shipway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from shipway.backup.script import PLACE, script_of
from shipway.cluster.model import Cluster
from shipway.edits.files import FileIs
from shipway.facts.services import UnitState
from shipway.host.session import Command, Host
from shipway.step import Check, Drift, Impact

UNIT = "shipway-scheduled-backup"
FOLDER = "/etc/systemd/system"
DAY_HOURS = 24
SERVICE = f"""[Unit]
Description=Backup of this control plane's etcd, taken and verified (Shipway)
After=containerd.service kubelet.service

[Service]
Type=oneshot
ExecStart=/bin/bash {PLACE} take
UMask=0077
Environment=HOME=/root
Nice=5
OOMScoreAdjust=500
TimeoutStartSec=7200
"""
TIMER = """[Unit]
Description=Every {hours} h: a backup of this control plane's etcd (Shipway)

[Timer]
OnCalendar=*-*-* {when}:20:00
RandomizedDelaySec=300
Persistent=true

[Install]
WantedBy=timers.target
"""


def script_file(cluster: Cluster) -> FileIs:
    """Return the step that puts the script on a control plane's host."""
    return FileIs("the script that takes backups is on the host", PLACE, script_of(cluster), mode="700")


def schedule(cluster: Cluster) -> list[Check[Host]]:
    """Return the steps of the timer of a control plane's host; none where the cluster file declares no timer."""
    hours = cluster.backup.every_hours
    if hours is None:
        return []
    when = "0" if hours == DAY_HOURS else f"0/{hours}"  # systemd takes no step as long as what it steps through
    timer = TIMER.replace("{hours}", str(hours)).replace("{when}", when)
    return [
        script_file(cluster),
        FileIs("the service that takes backups is as declared", f"{FOLDER}/{UNIT}.service", SERVICE),
        FileIs("the timer that takes backups is as declared", f"{FOLDER}/{UNIT}.timer", timer),
        TimerRuns(),
    ]


@dataclass(frozen=True)
class TimerRuns:
    """The timer is enabled, active, and the one that is in its file.

    To let systemd read a new unit takes the device rights from running GPU containers (nvidia-container-toolkit#48), as
    with `ServiceEnabled`: that is a service's impact.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    restarts: ClassVar[str] = f"{UNIT}.timer"
    unit: str = f"{UNIT}.timer"
    name: str = "the timer that takes backups runs"

    async def check(self, on: Host) -> Drift | None:
        """Ask systemd."""
        info, service = await on.read(UnitState(self.unit), UnitState(f"{UNIT}.service"))
        if info.needs_reload or service.needs_reload:
            return Drift("its file changed since systemd read it", "systemd has read it")
        have = f"{info.enabled or info.load}, {info.active}"
        return None if have == "enabled, active" else Drift(have, "enabled, active")

    async def apply(self, on: Host) -> None:
        """Let systemd read it, enable and start it."""
        await on.do(
            Command(("systemctl", "daemon-reload")),
            Command(("systemctl", "enable", "--quiet", self.unit)),
            Command(("systemctl", "restart", self.unit)),
        )


@dataclass(frozen=True)
class TimerGone:
    """No timer of ours takes backups, where the cluster file declares none."""

    impact: ClassVar[Impact] = Impact.SERVICE
    unit: str = f"{UNIT}.timer"
    name: str = "no timer takes backups, as declared"

    async def check(self, on: Host) -> Drift | None:
        """Ask systemd."""
        info = await on.read(UnitState(self.unit))
        return None if info.load == "not-found" else Drift(f"{info.enabled or info.load}, {info.active}", "none")

    async def apply(self, on: Host) -> None:
        """Stop it, and remove its two files; a backup that it began goes on to its end."""
        files = tuple(f"{FOLDER}/{UNIT}.{kind}" for kind in ("timer", "service"))
        await on.do(
            Command(("systemctl", "disable", "--now", "--quiet", self.unit)),
            Command(("rm", "-f", "--", *files)),
            Command(("systemctl", "daemon-reload")),
        )
