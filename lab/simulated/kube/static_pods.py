"""The control plane's own pods as mirror objects, and the images that a minor version of kubeadm uses."""

from __future__ import annotations

import hashlib

from lab.simulated import releases

from .hosts import HostState
from .objects import Obj
from .world import ClusterConfig

_PORTS = {"kube-apiserver": 6443, "kube-controller-manager": 10257, "kube-scheduler": 10259, "etcd": 2381}


def images(config: ClusterConfig) -> dict[str, str]:
    """Return the images of `kubeadm config images list`, by component."""
    return releases.images(config.version, config.image_repository)


def static_pods(host: HostState, node: Obj, config: ClusterConfig) -> list[Obj]:
    """Return the mirror pods of a control-plane host."""
    return [_mirror(name, port, host, node, config) for name, port in _PORTS.items()]


def _mirror(component: str, port: int, host: HostState, node: Obj, config: ClusterConfig) -> Obj:
    digest = hashlib.sha256(f"{component}/{config.version}".encode()).hexdigest()[:32]
    path = "/health" if component == "etcd" else "/livez" if component == "kube-apiserver" else "/healthz"
    probe = {"httpGet": {"host": "127.0.0.1", "path": path, "port": port, "scheme": "HTTPS"}}
    command = [component, f"--advertise-address={host.address}"] if component == "kube-apiserver" else [component]
    labels = {"component": component, "tier": "control-plane"}
    parts = (("hash", digest), ("mirror", digest), ("source", "file"))
    annotations = {f"kubernetes.io/config.{part}": value for part, value in parts}
    owner = {"apiVersion": "v1", "kind": "Node", "name": host.name, "uid": node["metadata"]["uid"], "controller": True}
    container = {"name": component, "image": images(config)[component], "command": command, "livenessProbe": probe}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{component}-{host.name}",
            "namespace": "kube-system",
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner],
        },
        "spec": {
            "containers": [container],
            "hostNetwork": True,
            "nodeName": host.name,
            "priorityClassName": "system-node-critical",
            "priority": 2_000_001_000,
            "tolerations": [{"effect": "NoExecute", "operator": "Exists"}],
        },
        "status": {"phase": "Pending"},
    }
