"""What the simulated cluster asks of the machine under a node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lab.gpu_figures import Scene

from .objects import Obj


@dataclass(frozen=True)
class Sharing:
    """How the plugin of a host shares its GPUs: `replicas` pods on each device, or MIG's parts by GPU (`parts`)."""

    replicas: int = 1
    way: str = "timeSlicing"  # as the plugin's configuration names it
    renamed: bool = False
    parts: dict[str, list[str]] = field(default_factory=dict)
    strategy: str = "none"
    profile: str = "1g.18gb"


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
    sharing: Sharing = Sharing()
    # Whether NVIDIA's toolkit accepts the device list as mounts, and as a variable: read at each container's start.
    toolkit_takes: Callable[[], tuple[bool, bool]] = lambda: (False, True)
    nvml_fault: str = ""  # what NVML says where it does not load; "" where it does
    figures: Scene = field(default_factory=Scene)
    os_image: str = "Ubuntu 22.04.5 LTS"
    kernel: str = "5.15.0-134-generic"
    containerd_version: str = "1.7.27"  # without a leading v
    kubelet_version: str = "v1.31.7"  # with it
    kubelet_config: Obj = field(default_factory=dict)  # what the running kubelet answers on /configz

    def __post_init__(self) -> None:
        self.own_sharing = self.sharing  # what a plugin without a configuration of its own makes of its GPUs


def devices_of(host: SimpleHost) -> dict[str, list[tuple[str, str, bool]]]:
    """Return what a host's plugin offers, by resource: an id of its own, the UUID of the GPU or part, and its health."""
    how, found = host.sharing, dict[str, list[tuple[str, str, bool]]]()
    for uuid, healthy in host.gpus:
        divided = how.strategy != "none"  # a plugin without a strategy offers the GPU, whatever it is divided into
        for part in how.parts.get(uuid, [uuid]) if divided else [uuid]:
            mixed = part != uuid and how.strategy == "mixed"
            resource = f"nvidia.com/mig-{how.profile}" if mixed else "nvidia.com/gpu"
            resource += ".shared" * (how.renamed and how.replicas > 1)
            found.setdefault(resource, []).extend((f"{part}::{at}", part, healthy) for at in range(how.replicas))
    return found


def runs_nvidia(host: SimpleHost, handler: str | None) -> bool:
    """Say whether a pod with this runtime handler (None: the host's default) runs under an nvidia runtime."""
    name = handler or host.default_runtime
    return name.startswith("nvidia") and name in host.runtime_handlers
