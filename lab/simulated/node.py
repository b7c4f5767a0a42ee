"""A simulated host as the simulated cluster's kubelet sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lab.simulated import containerd
from lab.simulated.commands.nvidia import MOUNTS, VARIABLE, setting
from lab.simulated.kube.hosts import SimpleHost

if TYPE_CHECKING:
    from lab.simulated.host import SimulatedHost


# What NVML says where the driver does not answer (nvml.h, nvmlErrorString); the runtime's error quotes it.
_NVML = {
    "mismatch": "Driver/library version mismatch",
    "unreachable": "Driver Not Loaded",
    "absent": "ERROR_LIBRARY_NOT_FOUND",
}


class NodeView(SimpleHost):
    """A host under its node name; `look` takes its state anew, and is called whenever something about it changed."""

    def __init__(self, host: SimulatedHost, name: str, address: str) -> None:
        super().__init__(name, address)
        self._host = host
        self.toolkit_takes = lambda: (setting(host, MOUNTS), setting(host, VARIABLE))
        self.look()

    def look(self) -> None:
        """Take the state of the host, its containerd (as it was last started), its packages and its GPUs."""
        host = self._host
        config = host.services.containerd_config
        kubelet = host.packages.installed.get("kubelet")
        self.kubelet_running = host.services.kubelet_up
        self.reachable = host.link.reached_by_control_plane(host)
        self.runtime_handlers = set(containerd.runtimes(config)) | {"runc"}
        self.default_runtime = containerd.default_runtime(config)
        self.gpus = [] if host.gpu.trouble else [(gpu.uuid, gpu.healthy) for gpu in host.gpu.devices]
        profiles = {profile for gpu in host.gpu.devices for profile in gpu.parts.values()}
        self.own_sharing = replace(
            self.own_sharing,
            parts={gpu.uuid: [*gpu.parts] for gpu in host.gpu.devices if gpu.parts},
            profile=next(iter(profiles), self.own_sharing.profile),
        )
        self.nvml_fault = _NVML.get(host.gpu.trouble, "")
        self.figures = host.figures
        self.os_image = host.system.pretty
        self.kernel = host.kernel.release
        self.containerd_version = host.services.containerd_version
        self.kubelet_config = host.services.kubelet_config
        self.kubelet_version = f"v{kubelet.version.split('-')[0]}" if kubelet else ""
