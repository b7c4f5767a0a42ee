"""What every part of a simulated cluster shares: its configuration, store, clock, hosts and event recorder."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from .defaults import fill_defaults
from .hosts import SimpleHost
from .latencies import Latencies, Pace
from .objects import Obj, controller_of, dig, key_of, micro_timestamp, name_of, namespace_of, timestamp
from .resources import Resources
from .signed_tokens import TokenSigner
from .store import Store

_WARNINGS = ("Failed", "BackOff", "NetworkNotReady", "Unexpected")
ImageHook = Callable[[str, str], str | None]


@dataclass(frozen=True)
class ClusterConfig:
    """What `kubeadm init` is given, and the seed of all that is random.

    `image_fault(node_name, image)` gives the runtime's error for an image that this node cannot pull, None for one
    it can.
    """

    version: str = "v1.31.7"
    pod_cidr: str = "10.244.64.0/20"
    service_cidr: str = "10.96.0.0/12"
    node_cidr_mask: int = 24
    dns_domain: str = "cluster.local"
    endpoint: str = ""  # controlPlaneEndpoint host:port; empty: the first host's address and port 6443
    extra_names: tuple[str, ...] = ()  # more names and addresses for the API's certificate
    image_repository: str = ""  # empty: what this minor version of kubeadm defaults to
    cluster_name: str = "kubernetes"
    kubelet: Obj = field(default_factory=dict)  # fields of the KubeletConfiguration that init was given
    kube_proxy: Obj = field(default_factory=dict)  # and of the KubeProxyConfiguration
    latencies: Latencies = field(default_factory=Latencies)
    seed: int = 0
    image_fault: ImageHook | None = None

    @property
    def minor(self) -> int:
        """Return the minor version as a number: 31."""
        return int(self.version.lstrip("v").split(".")[1])

    @property
    def repository(self) -> str:
        """Return the repository of the control plane's images: k8s.gcr.io until 1.24, registry.k8s.io from 1.25 on."""
        return self.image_repository or ("registry.k8s.io" if self.minor >= 25 else "k8s.gcr.io")


class World:
    """The shared ground of the API server and the controllers of one simulated cluster."""

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        self.dice = random.Random(config.seed)
        self.pace = Pace(config.latencies, self.dice)
        self.latencies = config.latencies
        self.store = Store(self.pace, self.dice)
        self.resources = Resources(config.minor)
        self.signer = TokenSigner(f"https://kubernetes.default.svc.{config.dns_domain}")
        self.hosts: dict[str, SimpleHost] = {}
        self._events: dict[tuple[str, ...], str] = {}
        self.store.listen(["events"], self._forget_events)
        self.store.add_index("pods", "node", lambda pod: str(dig(pod, "spec", "nodeName", default="")))
        for resource in ("pods", "replicasets.apps"):
            self.store.add_index(resource, "owner", lambda obj: str((controller_of(obj) or {}).get("uid", "")))

    def put(self, obj: Obj) -> Obj:
        """Store an object of the cluster's own, completed as the API would; one that is there stays as it is."""
        resource = self.resources.of_kind(obj["apiVersion"], obj["kind"])
        if resource is None:
            raise LookupError(f"no resource serves {obj['kind']} of {obj['apiVersion']}")
        known = self.store.get(resource.key, *key_of(obj))
        if known is not None:
            return known
        fill_defaults(resource.key, obj, self.config.minor)
        return self.store.create(resource.key, obj)

    def alive(self, node: str) -> bool:
        """Say whether a node's kubelet runs and reaches the control plane."""
        host = self.hosts.get(node)
        return host is not None and host.kubelet_running and host.reachable

    def event(self, about: Obj, reason: str, message: str, source: str, host: str = "") -> None:
        """Record an Event about an object; a repeated one counts up, as the real recorder does.

        A reason that begins with one of `_WARNINGS` is of the type Warning; waiting for an image's next try is not.
        """
        warning = reason.startswith(_WARNINGS) and not message.startswith("Back-off pulling")
        kind = "Warning" if warning else "Normal"
        uid = str(about["metadata"].get("uid", ""))
        place = namespace_of(about) or "default"
        same = (uid, kind, reason, message, source, host)
        name = self._events.get(same)
        old = self.store.get("events", place, name) if name else None
        if old is not None:
            self.store.replace("events", {**old, "count": old["count"] + 1, "lastTimestamp": timestamp()})
            return
        namespace = self.store.get("namespaces", "", place)
        if namespace is None or namespace["metadata"].get("deletionTimestamp"):
            return
        event = self._new_event(about, kind=kind, reason=reason, message=message, source=source, host=host)
        self._events[same] = name_of(event)
        self.store.create("events", event)

    def _new_event(self, about: Obj, *, kind: str, reason: str, message: str, source: str, host: str) -> Obj:
        involved = {
            "kind": about["kind"],
            "namespace": namespace_of(about),
            "name": name_of(about),
            "uid": _known_as(about),
            "apiVersion": about["apiVersion"],
            "resourceVersion": about["metadata"].get("resourceVersion", ""),
        }
        now = timestamp()
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{name_of(about)}.{self.dice.getrandbits(60):015x}",
                "namespace": namespace_of(about) or "default",
            },
            "involvedObject": {key: value for key, value in involved.items() if value},
            "reason": reason,
            "message": message,
            "source": {"component": source, **({"host": host} if host else {})},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "type": kind,
            "eventTime": None,
            "reportingComponent": source,
            "reportingInstance": host,
        }

    def _forget_events(self, _: object) -> None:
        """Keep the memory of repeated events bounded; the real recorder's cache holds 4096 too."""
        if len(self._events) > 4096:
            for key in list(self._events)[:2048]:
                del self._events[key]


def _known_as(about: Obj) -> str:
    """Return the uid by which events know an object: a node's is its name, a static pod's the hash of its file."""
    if about["kind"] == "Node":
        return name_of(about)
    annotations = about["metadata"].get("annotations") or {}
    return str(annotations.get("kubernetes.io/config.mirror") or about["metadata"].get("uid", ""))


def lease(node: str) -> Obj:
    """Return a node's heartbeat Lease."""
    spec = {"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": micro_timestamp()}
    metadata = {"name": node, "namespace": "kube-node-lease"}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def is_finished(pod: Obj) -> bool:
    """Say whether a pod has ended, well or badly."""
    return dig(pod, "status", "phase") in {"Succeeded", "Failed"}
