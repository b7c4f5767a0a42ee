"""In which `gpu.mode` a cluster's device plugin hands GPUs out, and test pods get them: not always the declared one."""

from __future__ import annotations

from shipway.cluster.model import Cluster
from shipway.cluster.parts import GpuMode
from shipway.gpu.chosen import VENDOR
from shipway.kube.client import Kube
from shipway.steps.gpu.device_list import hands_by_cdi


async def plugin_mode(on: Kube) -> GpuMode | None:
    """Return the `gpu.mode` that the cluster's device plugin has been made for; None where there is none."""
    plugin = await on.get("apps/v1", "DaemonSet", VENDOR.plugin.daemon_set, VENDOR.plugin.namespace, fresh=True)
    if plugin is None:
        return None
    spec = plugin["spec"]["template"]["spec"]
    if hands_by_cdi(spec):
        return "cdi"
    return "runtime_class" if spec.get("runtimeClassName") else "default_runtime"


async def proven_as(on: Kube, cluster: Cluster) -> tuple[Cluster, tuple[str, ...]]:
    """Return the cluster in the mode that its GPUs can be proven in, and a note where that is not the declared one.

    A plugin that is held back hands GPUs out in its own way: hosts that have come to the declared one serve both, the
    others only that. Where GPUs are claimed, test pods claim them in any mode. Raises the errors of the API.
    """
    declared, there = cluster.gpu.mode, await plugin_mode(on)
    if there in (declared, None) or (declared == "runtime_class" and there == "default_runtime"):
        return cluster, ()
    gpu = cluster.gpu.model_copy(update={"mode": there})
    note = f"proven with gpu.mode {there}: not every host is ready for {declared} yet"
    return cluster.model_copy(update={"gpu": gpu}), (note,)
