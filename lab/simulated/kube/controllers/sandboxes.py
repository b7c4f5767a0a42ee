"""Whether a pod's sandbox can be made on its node: runtime handler, pod network, volumes."""

from __future__ import annotations

from lab.simulated.kube.objects import Obj, dig, namespace_of
from lab.simulated.kube.world import World

from .node_objects import network_message


class SandboxError(Exception):
    """A pod cannot be started yet; `reason` is its event's."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def runtime_handler(world: World, pod: Obj) -> str | None:
    """Return the runtime handler that a pod's RuntimeClass names, None for the host's default."""
    name = pod["spec"].get("runtimeClassName")
    if not name:
        return None
    found = world.store.get("runtimeclasses.node.k8s.io", "", name)
    return str(found["handler"]) if found else str(name)


def check_sandbox(world: World, pod: Obj, *, networked: bool) -> None:
    """Pass where a pod can be started now. Raises SandboxError worded as the real kubelet words it."""
    host = world.hosts[str(pod["spec"]["nodeName"])]
    if not networked and not dig(pod, "spec", "hostNetwork"):
        message = f"network is not ready: {network_message(world.config.minor)}"
        raise SandboxError("NetworkNotReady", message)
    _check_volumes(world, pod)
    handler = runtime_handler(world, pod) or host.default_runtime
    if handler not in host.runtime_handlers:
        raise SandboxError(
            "FailedCreatePodSandBox",
            "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: "
            f'no runtime for "{handler}" is configured',
        )


def _check_volumes(world: World, pod: Obj) -> None:
    for volume in pod["spec"].get("volumes") or []:
        for field, resource, key in (("configMap", "configmaps", "name"), ("secret", "secrets", "secretName")):
            source = volume.get(field)
            if not source or source.get("optional"):
                continue
            name = str(source.get(key, ""))
            if world.store.get(resource, namespace_of(pod), name) is None:
                kind = field.lower()
                text = f'MountVolume.SetUp failed for volume "{volume["name"]}" : {kind} "{name}" not found'
                raise SandboxError("FailedMount", text)
