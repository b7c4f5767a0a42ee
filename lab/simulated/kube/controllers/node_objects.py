"""Node objects as a kubelet registers them and as its heart beats: labels, capacity, conditions, taints."""

from __future__ import annotations

import hashlib

from lab.simulated import recorded
from lab.simulated.kube.hosts import SimpleHost
from lab.simulated.kube.objects import Obj, dig, set_condition, timestamp
from lab.simulated.kube.world import ClusterConfig

READY_MESSAGE = "kubelet is posting ready status"
SILENT_MESSAGE = "Kubelet stopped posting node status."
NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_PRESSURES = {
    "MemoryPressure": ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    "DiskPressure": ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    "PIDPressure": ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
}


def control_plane_labels(minor: int) -> dict[str, str]:
    """Return the labels kubeadm puts on a control-plane node: `master` until 1.23, `control-plane` from 1.20 on."""
    labels = {"node-role.kubernetes.io/control-plane": ""}
    if minor < 24:
        labels["node-role.kubernetes.io/master"] = ""
    if minor >= 21:
        labels["node.kubernetes.io/exclude-from-external-load-balancers"] = ""
    return labels


def control_plane_taints(minor: int) -> list[Obj]:
    """Return kubeadm's taint: `master` until 1.23, both in 1.24, `control-plane` alone from 1.25 on."""
    keys = ["node-role.kubernetes.io/master"] if minor < 25 else []
    if minor >= 24:
        keys.append("node-role.kubernetes.io/control-plane")
    return [{"key": key, "effect": "NoSchedule"} for key in keys]


def node_object(host: SimpleHost, config: ClusterConfig, *, control_plane: bool) -> Obj:
    """Return the Node that a kubelet registers after kubeadm init or join, but for its conditions."""
    [node] = recorded.documents("node.yaml", name=host.name, address=host.address)
    node["status"]["nodeInfo"] = node_info(host)
    if control_plane:
        node["metadata"]["labels"] |= control_plane_labels(config.minor)
        node["spec"]["taints"] = [*control_plane_taints(config.minor), *node["spec"]["taints"]]
    if config.minor < 34:  # kubeadm's; it keeps that on the host since (its changelog of 1.34: NodeLocalCRISocket)
        scheme = "" if config.minor < 24 else "unix://"
        socket = f"{scheme}/run/containerd/containerd.sock"
        node["metadata"]["annotations"]["kubeadm.alpha.kubernetes.io/cri-socket"] = socket
    return node


def node_info(host: SimpleHost) -> Obj:
    """Return what the node says of its system."""
    identity = hashlib.sha256(host.name.encode()).hexdigest()[:32]
    return {
        "architecture": "amd64",
        "bootID": identity,
        "containerRuntimeVersion": f"containerd://{host.containerd_version}",
        "kernelVersion": host.kernel,
        "kubeProxyVersion": host.kubelet_version,
        "kubeletVersion": host.kubelet_version,
        "machineID": identity,
        "operatingSystem": "linux",
        "osImage": host.os_image,
        "systemUUID": identity,
    }


def network_message(minor: int) -> str:
    """Return the Ready condition's message while no pod network is there; its first word came with 1.21."""
    prefix = "container runtime" if minor >= 21 else "runtime"
    detail = "Network plugin returns error: cni plugin not initialized"
    return f"{prefix} network not ready: NetworkReady=false reason:NetworkPluginNotReady message:{detail}"


def beating_conditions(old: list[Obj], minor: int, *, network: bool) -> list[Obj]:
    """Return the conditions of a node whose kubelet posts its status."""
    for kind, (reason, message) in _PRESSURES.items():
        old = set_condition(old, kind, "False", reason, message)
    if network:
        old = set_condition(old, "Ready", "True", "KubeletReady", READY_MESSAGE)
    else:
        old = set_condition(old, "Ready", "False", "KubeletNotReady", network_message(minor))
    now = timestamp()
    return [{**entry, "lastHeartbeatTime": now} for entry in old]


def silent_conditions(old: list[Obj]) -> list[Obj]:
    """Return the conditions of a node whose kubelet has fallen silent: all unknown."""
    for kind in (*_PRESSURES, "Ready"):
        beat = next((entry.get("lastHeartbeatTime") for entry in old if entry["type"] == kind), None)
        old = set_condition(old, kind, "Unknown", "NodeStatusUnknown", SILENT_MESSAGE)
        old = [{**entry, "lastHeartbeatTime": beat} if entry["type"] == kind else entry for entry in old]
    return old


def with_taints(node: Obj, remove: set[str], add: list[Obj]) -> Obj:
    """Return a node without the taints of these keys and with those to add."""
    taints = [taint for taint in dig(node, "spec", "taints", default=[]) if taint["key"] not in remove]
    spec = {key: value for key, value in node["spec"].items() if key != "taints"}
    if taints or add:
        spec["taints"] = [*taints, *add]
    return {**node, "spec": spec}
