"""A simulated cluster behind TLS for tests of the Kubernetes side, and a control host that reads and forwards to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lab.simulated.kube.cluster import Cluster as SimulatedCluster
from lab.simulated.kube.hosts import SimpleHost
from lab.simulated.kube.latencies import Latencies
from lab.simulated.kube.pki import Authority
from lab.simulated.kube.world import ClusterConfig
from shipway.cluster.model import Cluster
from shipway.cluster.profiles import merge, profile_data
from shipway.facts.fact import Fact
from shipway.host.session import Host
from shipway.kube.client import Kube

POD_NETWORK = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: test-cni, namespace: kube-system}
spec:
  selector: {matchLabels: {app: test-cni}}
  template:
    metadata: {labels: {app: test-cni}}
    spec:
      hostNetwork: true
      tolerations: [{operator: Exists}]
      containers:
      - name: agent
        image: registry.example/test-cni:1
        volumeMounts: [{name: conf, mountPath: /etc/cni/net.d}]
      volumes: [{name: conf, hostPath: {path: /etc/cni/net.d}}]
"""


class Control(Host):
    """A control-plane host whose only file is admin.conf; `ways` maps what it is asked to reach to a local port."""

    def __init__(self, admin_conf: str | None, ways: dict[tuple[str, int], int]) -> None:
        super().__init__("te1", shell=None)  # type: ignore[arg-type] - nothing here goes over SSH
        self.admin_conf, self.ways = admin_conf, ways
        self.forwarded: list[tuple[str, int]] = []

    async def read(self, *facts: Fact[Any]) -> Any:  # type: ignore[override]
        """Return admin.conf, whatever is asked."""
        assert [getattr(fact, "path", "") for fact in facts] == ["/etc/kubernetes/admin.conf"]
        return self.admin_conf

    async def forward(self, address: str, port: int) -> int:
        """Return the local port; one where nothing listens for a way that leads nowhere."""
        self.forwarded.append((address, port))
        return self.ways.get((address, port), 1)


@cache
def authority() -> Authority:
    """Return one CA for all tests: its RSA key takes longer to make than most tests take to run."""
    return Authority()


def answering(kube: Kube) -> Callable[[], Awaitable[Kube]]:
    """Return what a lease asks for its API."""

    async def api() -> Kube:
        return kube

    return api


@dataclass
class Place:
    """One simulated cluster with its API, and what was declared of it."""

    simulated: SimulatedCluster
    kube: Kube
    cluster: Cluster
    control: Control
    hosts: dict[str, SimpleHost]
    port: int
    heard: list[str] = field(default_factory=list)


def cluster_of(names: Sequence[str], *, profile: str = "seed", **sections: Any) -> Cluster:
    """Return a cluster file of hosts with those names and the sections that a test changes."""
    hosts = [{"name": name, "address": f"10.9.0.{number}", "gpus": 1} for number, name in enumerate(names, 11)]
    return Cluster.model_validate(
        merge(profile_data(profile), {"name": "demo", "profile": profile, "hosts": hosts, **sections})
    )


@asynccontextmanager
async def place(
    *, hosts: Sequence[SimpleHost], cluster: Cluster, version: str = "v1.31.7", factor: float = 0.005, **config: Any
) -> AsyncIterator[Place]:
    """Yield a cluster of those hosts, the first its control plane, all joined, with its API served."""
    settings = ClusterConfig(version=version, latencies=Latencies(factor=factor), **config)
    simulated = SimulatedCluster(settings, authority())
    await simulated.start(hosts[0])
    for host in hosts[1:]:
        await simulated.join(host, simulated.init_token)
    port = await simulated.serve()
    control = Control(simulated.admin_kubeconfig(), {(hosts[0].address, 6443): port})
    kube = await Kube.connect(control, cluster)
    try:
        yield Place(simulated, kube, cluster, control, {host.name: host for host in hosts}, port)
    finally:
        await kube.close()
        await simulated.close()


def closed_toolkit() -> tuple[bool, bool]:
    """Say that a host's toolkit accepts the device list as mounts, and not as a variable."""
    return True, False


def gpu_host(number: int, gpus: int, **changes: Any) -> SimpleHost:
    """Return host te<number> with that many healthy GPUs a configured nvidia runtime, and a toolkit that isolates."""
    uuids = [(f"GPU-{number:08d}-0000-0000-0000-{gpu:012d}", True) for gpu in range(gpus)]
    values = {
        "runtime_handlers": {"runc", "nvidia"} if gpus else {"runc"},
        "gpus": uuids,
        "toolkit_takes": closed_toolkit,
        **changes,
    }
    return SimpleHost(name=f"te{number}", address=f"10.9.0.{10 + number}", **values)
