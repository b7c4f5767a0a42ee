"""The programs of a simulated host; importing this package registers all of them."""

from lab.simulated.commands import (
    apt,
    certificates,
    containerd,
    copying,
    dpkg,
    files,
    kernel,
    kubeadm,
    kubectl,
    network,
    nvidia,
    searching,
    system,
    systemctl,
    systemd_run,
    wrappers,
)

__all__ = [
    "apt",
    "certificates",
    "containerd",
    "copying",
    "dpkg",
    "files",
    "kernel",
    "kubeadm",
    "kubectl",
    "network",
    "nvidia",
    "searching",
    "system",
    "systemctl",
    "systemd_run",
    "wrappers",
]
