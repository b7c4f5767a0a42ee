"""What a package brings to a simulated host when it is configured: files, units, and services that start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.simulated.files import Node
from lab.simulated.releases import minor_of, since
from lab.simulated.units import Unit, UnitFailed

if TYPE_CHECKING:
    from lab.simulated.host import SimulatedHost

_DOCKERS_CONFIG = '# SIMULATED package\ndisabled_plugins = ["cri"]\n'
_DEBIANS_CONFIG = """\
version = 2

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "/etc/cni/net.d"
"""
_KUBELET_DROPIN = (
    '[Service]\nEnvironment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"\n'
    "EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\nEnvironmentFile=-/etc/default/kubelet\n"
)
# Programs that a look by file must find (most programs are known by their package alone).
_PROGRAMS = {
    "nvidia-container-toolkit": ("/usr/bin/nvidia-container-runtime-hook",),
    "nvidia-container-toolkit-base": ("/usr/bin/nvidia-container-runtime", "/usr/bin/nvidia-ctk"),
    "containerd.io": ("/usr/bin/containerd", "/usr/bin/ctr", "/usr/bin/runc"),
    "containerd": ("/usr/bin/containerd", "/usr/bin/ctr"),
    "kubelet": ("/usr/bin/kubelet",),
    "kubeadm": ("/usr/bin/kubeadm",),
    "kubectl": ("/usr/bin/kubectl",),
    "cri-tools": ("/usr/bin/crictl",),
    "kubernetes-cni": ("/opt/cni/bin/bridge", "/opt/cni/bin/host-local", "/opt/cni/bin/loopback"),
}
# package -> (unit, its text, whether its package starts it)
_UNITS = {
    "containerd.io": ("containerd.service", "[Service]\nExecStart=/usr/bin/containerd\n"),
    "containerd": ("containerd.service", "[Service]\nExecStart=/usr/bin/containerd\n"),
    "kubelet": ("kubelet.service", "[Service]\nExecStart=/usr/bin/kubelet\nRestart=always\nRestartSec=10\n"),
    "chrony": ("chrony.service", "[Service]\nExecStart=/usr/sbin/chronyd\n"),
}


def configure(host: SimulatedHost, name: str, *, running: bool = False) -> list[str]:
    """Do what configuring a package does; gives the lines that systemd adds to apt's output."""
    files = host.files
    for path in _PROGRAMS.get(name, ()):
        files.put(path, Node(b"SIMULATED program\n", 0o755, changed=host.now()))
    config = {"containerd.io": _DOCKERS_CONFIG, "containerd": _DEBIANS_CONFIG}.get(name)
    if config and not files.exists("/etc/containerd/config.toml"):
        files.write("/etc/containerd/config.toml", config.encode())
    if name == "kubelet":
        version = host.packages.installed[name].version
        if not version.endswith("-00"):
            files.make_directory("/etc/kubernetes/manifests")
        if since(minor_of(version), "keeps_manifests"):
            files.put("/etc/kubernetes/manifests/.kubelet-keep", Node(b"", changed=host.now()))
        files.write("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", _KUBELET_DROPIN.encode())
    if name not in _UNITS or running:
        return []
    return _unit(host, name)


def _unit(host: SimulatedHost, package: str) -> list[str]:
    """Make the package's unit known, enable and start it, or restart one that runs (an upgrade)."""
    name, text = _UNITS[package]
    known = host.units.all.get(name)
    said: list[str] = []
    if known is None:
        old_kubelet = package == "kubelet" and not host.packages.installed[package].version.endswith("-00")
        unit = host.units.add(Unit(name, f"SIMULATED {package}", wanted="disabled"), text=text)
        if not old_kubelet:  # the community's kubelet package leaves enabling to the administrator
            line = host.units.enable(unit)
            said = [line] if line else []
            _start(host, unit)
        return said
    host.units.reload()
    if known.active != "inactive":
        host.units.stop(known)
        _start(host, known)
    return said


def _start(host: SimulatedHost, unit: Unit) -> None:
    try:
        host.units.start(unit)
    except UnitFailed as error:
        host.services.note(unit.name.removesuffix(".service"), str(error))


def remove(host: SimulatedHost, name: str) -> None:
    """Do what removing a package does; configuration files stay."""
    for path in _PROGRAMS.get(name, ()):
        host.files.remove(path)
    if name in _UNITS:
        unit = host.units.all.pop(_UNITS[name][0], None)
        if unit is not None:
            host.units.stop(unit)
            host.files.remove(unit.fragment)
    host.changed()
