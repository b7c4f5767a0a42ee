"""What the simulated cluster asks of the machine under a node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .objects import Obj


@dataclass
class SimpleHost:
    """A host as its kubelet sees it; whoever changes one calls `Cluster.host_changed(node_name)` afterwards."""

    name: str  # the node's name
    address: str  # InternalIP
    kubelet_running: bool = True
    reachable: bool = True  # by network, from the control plane
    runtime_handlers: set[str] = field(default_factory=lambda: {"runc"})  # names of the containerd runtimes
    default_runtime: str = "runc"
    gpus: list[tuple[str, bool]] = field(default_factory=list)  # (GPU-uuid, healthy)
    # Whether NVIDIA's toolkit accepts the device list as mounts, and as a variable: read at each container's start.
    toolkit_takes: Callable[[], tuple[bool, bool]] = lambda: (False, True)
    nvml_fault: str = ""  # what NVML says where it does not load; "" where it does
    os_image: str = "Ubuntu 22.04.5 LTS"
    kernel: str = "5.15.0-134-generic"
    containerd_version: str = "1.7.27"  # without a leading v
    kubelet_version: str = "v1.31.7"  # with it
    kubelet_config: Obj = field(default_factory=dict)  # what the running kubelet answers on /configz


def runs_nvidia(host: SimpleHost, handler: str | None) -> bool:
    """Say whether a pod with this runtime handler (None: the host's default) runs under an nvidia runtime."""
    name = handler or host.default_runtime
    return name.startswith("nvidia") and name in host.runtime_handlers
