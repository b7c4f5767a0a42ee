"""What starting a service means: containerd reads its configuration, the kubelet what kubeadm wrote."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from lab.simulated import containerd, proxies
from lab.simulated.files import Node
from lab.simulated.units import Unit, UnitFailed

if TYPE_CHECKING:
    from lab.simulated.host import SimulatedHost

KUBELET_CONFIG = "/var/lib/kubelet/config.yaml"


class Services:
    """The behaviour of one host's services, and the words they leave in the journal."""

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host
        self.containerd_config: dict[str, Any] = {}
        self.containerd_environment: dict[str, str] = {}
        self.kubelet_config: dict[str, Any] = {}  # what the running kubelet was started with
        self.command_lines: dict[str, str] = {}  # of what runs, by program
        self.journal: dict[str, list[str]] = {}
        units = host.units
        units.starting = {"containerd.service": self._start_containerd, "kubelet.service": self._start_kubelet}
        units.stopping = {"containerd.service": self._stopped, "kubelet.service": self._stopped}

    def note(self, unit: str, text: str) -> None:
        """Write a line into a unit's journal; the last 200 are kept."""
        lines = self.journal.setdefault(unit, [])
        lines.append(text)
        del lines[:-200]

    @property
    def containerd_version(self) -> str:
        """The installed containerd's upstream version, empty where there is none."""
        for name in ("containerd.io", "containerd"):
            installed = self._host.packages.installed.get(name)
            if installed is not None and installed.state != "c":
                return installed.version.split("~")[0].split("-")[0]
        return ""

    @property
    def containerd_up(self) -> bool:
        """Whether containerd is active with its CRI plugin."""
        unit = self._host.units.get("containerd")
        return unit is not None and unit.active == "active" and containerd.cri_loaded(self.containerd_config)

    @property
    def kubelet_up(self) -> bool:
        """Whether the kubelet is active."""
        unit = self._host.units.get("kubelet")
        return unit is not None and unit.active == "active"

    def _start_containerd(self, unit: Unit) -> None:
        try:
            self.containerd_config = containerd.effective(self._host.files, self.containerd_version)
        except containerd.BadConfig as error:
            self.note("containerd", str(error))
            self._host.units.set(unit, "activating", "auto-restart", "exit-code")
            raise UnitFailed(
                "Job for containerd.service failed because the control process exited with error code.\n"
                'See "systemctl status containerd.service" and "journalctl -xeu containerd.service" for details.'
            ) from error
        root = self.containerd_config.get("root", "/var/lib/containerd")
        self._host.files.write(f"{root}/io.containerd.metadata.v1.bolt/meta.db", b"SIMULATED\n")
        self.containerd_environment = proxies.in_files(self._host.files)
        self._host.units.set(unit, "active", "running")
        self.command_lines["containerd"] = f"/usr/bin/containerd{self._dropped_in('containerd')}"
        self._host.files.put("/run/containerd/containerd.sock", _socket())
        self.settle()

    def _start_kubelet(self, unit: Unit) -> None:
        """Start it; what hinders it makes it fail and start again every ten seconds, as its unit file says."""
        why = self.kubelet_hindered()
        if why:
            self.note("kubelet", why)
            self.note("kubelet", "kubelet.service: Main process exited, code=exited, status=1/FAILURE")
            self._host.units.set(unit, "activating", "auto-restart", "exit-code")
        else:
            self._kubelet_started(unit)
        self._host.changed()

    def _kubelet_started(self, unit: Unit) -> None:
        """Run the kubelet with its file as it is now, and with the flags of kubeadm's and the administrator's files."""
        files = self._host.files
        kubeadm, extra = "/var/lib/kubelet/kubeadm-flags.env", "/etc/default/kubelet"
        flags = [_assigned(files.text(path)) for path in (kubeadm, extra) if files.exists(path)]
        base = "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
        self.command_lines["kubelet"] = " ".join(["/usr/bin/kubelet", base, f"--config={KUBELET_CONFIG}", *flags])
        config = yaml.safe_load(files.text(KUBELET_CONFIG)) or {}
        most = re.search(r"--max-pods[= ](\d+)", self.command_lines["kubelet"])
        self.kubelet_config = {**config, **({"maxPods": int(most[1])} if most else {})}
        self._host.units.set(unit, "active", "running")

    def restart_kubelet(self) -> str:
        """Stop the kubelet and start it anew, where there is one; return systemd's words where it does not start."""
        unit = self._host.units.get("kubelet")
        if unit is not None:
            self._host.units.stop(unit)
            try:
                self._host.units.start(unit)
            except UnitFailed as error:
                return str(error)
        return ""

    def _dropped_in(self, program: str) -> str:
        """Return the arguments of the last ExecStart of a unit's drop-ins, with a blank before them."""
        folder, found = f"/etc/systemd/system/{program}.service.d", ""
        for name in self._host.files.names(folder) or ():
            for line in self._host.files.text(f"{folder}/{name}").splitlines():
                if line.startswith("ExecStart=/"):
                    found = line.partition(" ")[2]
        return f" {found}" if found else ""

    def kubelet_hindered(self) -> str:
        """Return the reason why the kubelet cannot run, empty where nothing hinders it."""
        host = self._host
        if not host.files.exists(KUBELET_CONFIG):
            return (
                "E1123 failed to load kubelet config file, error: failed to load Kubelet config file "
                f"{KUBELET_CONFIG}, error failed to read kubelet config file: open {KUBELET_CONFIG}: no such file or directory"
            )
        if host.kernel.swaps and "failSwapOn: false" not in host.files.text(KUBELET_CONFIG):
            return "failed to run Kubelet: running with swap on is not supported, please disable swap or set --fail-swap-on flag to false"
        if not self.containerd_up:
            return "failed to run Kubelet: validate service connection: validate CRI v1 runtime API for endpoint"
        names = ("/etc/kubernetes/kubelet.conf", "/etc/kubernetes/bootstrap-kubelet.conf")
        if not any(host.files.exists(name) for name in names):
            return "failed to run Kubelet: unable to load bootstrap kubeconfig: stat /etc/kubernetes/bootstrap-kubelet.conf: no such file or directory"
        return ""

    def _stopped(self, unit: Unit) -> None:
        if unit.name == "containerd.service":
            self._host.files.remove("/run/containerd/containerd.sock")
        self._host.changed()

    def settle(self) -> None:
        """Let a kubelet that starts again and again come up once nothing hinders it any more."""
        unit = self._host.units.get("kubelet")
        if unit is not None and unit.active == "activating" and not self.kubelet_hindered():
            unit.restarts += 1
            self._kubelet_started(unit)
        self._host.changed()

    def boot(self) -> None:
        """Start what a boot starts."""
        units = self._host.units
        for unit in list(units.all.values()):
            if unit.wanted in ("enabled", "static", "generated") and not unit.masked and unit.name != "kubelet.service":
                try:
                    units.start(unit)
                except UnitFailed as error:
                    self.note(unit.name.removesuffix(".service"), str(error))
        kubelet = units.get("kubelet")
        if kubelet is not None and kubelet.wanted == "enabled":
            units.start(kubelet)

    def apply_sysctls(self) -> None:
        """Apply every sysctl file in systemd's order."""
        files = self._host.files
        for name in files.names("/etc/sysctl.d") or ():
            for line in files.text(f"/etc/sysctl.d/{name}").splitlines():
                key, equals, value = line.partition("=")
                if equals and not line.lstrip().startswith(("#", ";")):
                    self._host.kernel.set(key.strip().replace("/", "."), value.strip())


def _assigned(text: str) -> str:
    """Return what an environment file's last assignment says, without its quotes."""
    lines = [line.partition("=")[2].strip().strip("\"'") for line in text.splitlines() if "=" in line]
    return lines[-1] if lines else ""


def _socket() -> Node:
    return Node(b"", 0o660)
