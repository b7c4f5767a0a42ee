"""The script that takes, verifies and keeps backups on a control plane's host, with its settings put in."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from shipway.cluster.model import Cluster
from shipway.kubeadm.manifests import FLAG_IN

ROOT = "/var/lib/shipway/backups"  # 0700: what lies there are all Secrets of the cluster
PLACE = "/var/lib/shipway/backup/host.sh"
_MARK = "#SETTINGS\n"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the script is told: the cluster's name, how many backups stay and for how many days, and its places."""

    cluster: str
    keep: int
    keep_days: int
    root: str = ROOT
    programs: str = "/var/lib/shipway/etcd"
    kubernetes: str = "/etc/kubernetes"
    kubelet: str = "/var/lib/kubelet"
    proc: str = "/proc"
    hold: str = "/var/lib/shipway/restore"
    started: str = "/var/lib/shipway/init-started"
    joining: str = "/var/lib/shipway/control-plane-join-started"
    waits: int = 1  # how many times its seconds a wait may take
    ports: str = "10257 10259"  # of kube-controller-manager and kube-scheduler (kubeadm, constants.go)
    patience: int = 600  # fifths of a second that the throw-away etcd may take to answer


@cache
def _text() -> str:
    return Path(__file__).with_name("host.sh").read_text(encoding="utf-8")


def render(settings: Settings) -> str:
    """Return the script with these settings, and what reads a manifest's flags."""
    lines = "".join(f"{name.upper()}={shlex.quote(str(value))}\n" for name, value in asdict(settings).items())
    return _text().replace(_MARK, lines + FLAG_IN)


def script_of(cluster: Cluster) -> str:
    """Return the script of a cluster's control planes."""
    return render(Settings(cluster.name, cluster.backup.keep, cluster.backup.keep_days))
