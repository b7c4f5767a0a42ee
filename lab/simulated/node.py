"""A simulated host as the simulated cluster's kubelet sees it, and a cluster whose CA is there before its API."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from lab.simulated import containerd
from lab.simulated.commands.nvidia import MOUNTS, VARIABLE, setting
from lab.simulated.kube.cluster import Cluster
from lab.simulated.kube.hosts import SimpleHost
from lab.simulated.kube.world import ClusterConfig

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
        self.cards = [] if host.gpu.trouble else [(card.uuid, card.healthy) for card in host.gpu.cards]
        self.nvml_fault = _NVML.get(host.gpu.trouble, "")
        self.os_image = host.system.pretty
        self.kernel = host.kernel.release
        self.containerd_version = host.services.containerd_version
        self.kubelet_config = host.services.kubelet_config
        self.kubelet_version = f"v{kubelet.version.split('-')[0]}" if kubelet else ""


class PreparedCluster(Cluster):
    """A cluster made in two steps as kubeadm makes it: its CA first, everything else in `init` with the same config."""

    _waiting: ClassVar[dict[int, Cluster]] = {}

    def __new__(cls, config: ClusterConfig) -> Self:
        """Return the cluster that waits for this configuration, or a new one."""
        found = cls._waiting.pop(id(config), None)
        return found if isinstance(found, cls) else super().__new__(cls)

    def __init__(self, config: ClusterConfig) -> None:
        if "authority" not in self.__dict__:  # else it waited: made already
            super().__init__(config)

    @classmethod
    def prepare(cls, config: ClusterConfig) -> Self:
        """Return a cluster with a CA and nothing else; `init(host, config)` with the same object completes it."""
        made = cls(config)
        cls._waiting[id(config)] = made
        return made
