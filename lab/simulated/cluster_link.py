"""What ties the hosts to the simulated cluster: init, join, where its API is, and news about hosts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lab.simulated.kube.cluster import Cluster
from lab.simulated.kube.discovery import version_info
from lab.simulated.kube.faults import ApiFaults
from lab.simulated.kube.latencies import Latencies
from lab.simulated.kube.pki import Authority
from lab.simulated.kube.world import ClusterConfig
from lab.simulated.kubeadm.config import Asked
from lab.simulated.kubeadm.files import PKI
from lab.simulated.node import NodeView
from lab.simulated.reach import Reach

if TYPE_CHECKING:
    from lab.simulated.host import SimulatedHost
    from lab.simulated.ssh.server import SshServer
    from lab.simulated.world import World

API_PROXY = "shipway-api-proxy.service"
BOOT_SECONDS = 30.0  # of a worker in the transcripts
_POD_NETWORK = "10.244.0.0/16"  # where init is given none


class ClusterLink:
    """One lab has one; it is empty of a cluster until `kubeadm init` ran on a host."""

    def __init__(self, scale: float, seed: int) -> None:
        self.scale = scale
        self.seed = seed
        self.reach = Reach()
        self.cluster: Cluster | None = None
        self.control: SimulatedHost | None = None
        self.further: dict[str, SimulatedHost] = {}  # control planes that joined, by host name
        self.learners: dict[str, SimulatedHost] = {}  # what a join that broke off left in etcd
        self.faults = ApiFaults()
        self.views: dict[str, NodeView] = {}  # by host name
        self.born: list[str] = []  # the CA hash of every cluster that an init brought up: two mean initialised twice
        self.signing = True  # whether kube-controller-manager approves and signs the requests of joining kubelets
        self.requests: list[tuple[str, str]] = []  # certificate requests that wait, and the token's public half of each
        self._initialised = False
        self._api: tuple[str, int] | None = None  # where it is served, while it is
        self._listening = asyncio.Lock()
        self._port = 6443
        self._server: SshServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def lab(self, hosts: Mapping[str, SimulatedHost], world: World, server: SshServer) -> None:
        """Take the lab's hosts, world and server, once they are made."""
        self.world = world
        self._server = server
        self.reach.take(hosts, server.port)

    def reached_by_control_plane(self, host: SimulatedHost) -> bool:
        """Say whether the control plane reaches a host."""
        return host is self.control or (self.control is not None and self.control.reachable and host.reachable)

    def runs_control_plane(self, host: SimulatedHost) -> bool:
        """Say whether the API server and its companions run on this host."""
        mine = host is self.control or (host.name in self.further and host.reachable)
        return mine and self._api is not None

    def way(self, host: SimulatedHost, address: str, port: int) -> tuple[str, int] | None:
        """Return where a connection from a host really goes; None where nothing listens or it leads out of the lab."""
        target = self.reach.target(host, address)
        if target is None:
            return None
        if self.runs_control_plane(target) and port == self._port:
            return self._api
        return (target.address, self.reach.ssh_port) if port in (22, self.reach.ssh_port) else None

    def api_of(self, host: SimulatedHost, server: str) -> Cluster | None:
        """Return the cluster whose API a host reaches at host:port, None where nothing answers."""
        name, _, port = server.rpartition(":")
        target = self.reach.target(host, name)
        up = (
            target is not None and port == str(self._port) and (self.runs_control_plane(target) or self._passes(target))
        )
        return self.cluster if up else None

    def _passes(self, host: SimulatedHost) -> bool:
        """Say whether a host's own proxy to the API runs, and a control plane is there for it."""
        unit = host.units.get(API_PROXY)
        planes = [one for one in (self.control, *self.further.values()) if one is not None]
        return unit is not None and unit.active == "active" and any(map(self.runs_control_plane, planes))

    def etcd(self, host: SimulatedHost, url: str, data: str) -> bytes:
        """Answer a request to the gateway of a member of etcd; b"" where nothing listens."""
        parts = urlsplit(url)
        target = self.reach.target(host, parts.hostname or "")
        if target is None or not self.runs_control_plane(target) or self.control is None:
            return b""
        voters = {"1": self.control, **{str(n): one for n, one in enumerate(self.further.values(), 2)}}
        members = {**voters, **{f"9{n}": one for n, one in enumerate(self.learners.values())}}
        if parts.path == "/health":
            return b'{"health":"true","reason":""}'
        if parts.path == "/version":
            return b'{"etcdserver":"3.5.26","etcdcluster":"3.5.0"}'
        if parts.path == "/v3/cluster/member/remove":
            gone = members.pop(json.loads(data)["ID"])
            self.further.pop(gone.name, None)
            self.learners.pop(gone.name, None)
        listed = [
            {
                "ID": number,
                "name": one.name if number in voters else "",
                "peerURLs": [f"https://{one.address}:2380"],
                **({"clientURLs": [f"https://{one.address}:2379"]} if number in voters else {"isLearner": True}),
            }
            for number, one in members.items()
        ]
        return json.dumps({"header": {}, "members": listed}).encode()

    async def asked(self, host: SimulatedHost, url: str) -> tuple[int, bytes] | None:
        """Answer a request to the API's health; (0, b"") when nothing answers, None for an address outside the lab."""
        parts = urlsplit(url)
        name = parts.hostname or ""
        if not self.reach.knows(host, name):
            return None
        if self.api_of(host, f"{name}:{parts.port or 443}") is None:
            return 0, b""
        if parts.path == "/version" and self.cluster is not None:
            return 200, json.dumps(version_info(self.cluster.world.config), indent=2).encode()
        healthy = parts.path in ("/readyz", "/livez", "/healthz")
        return (200, b"ok") if healthy else (403, b"{}")

    def authority(self, host: SimulatedHost, asked: Asked) -> tuple[Authority, bool]:
        """Return the CA for an init, and whether the host holds it already from an earlier try."""
        on_disk = host.files.read(f"{PKI}/ca.crt")
        if self.cluster is not None and host is self.control and on_disk == self.cluster.authority.certificate:
            return self.cluster.authority, True
        config = ClusterConfig(
            version=f"v{asked.version}",
            pod_cidr=asked.pod_network or _POD_NETWORK,
            service_cidr=asked.service_network,
            node_cidr_mask=asked.node_mask,
            endpoint=asked.endpoint or f"{asked.address}:{asked.port}",
            image_repository=asked.repository,
            cluster_name=asked.cluster_name,
            kubelet=asked.kubelet,
            kube_proxy=asked.kube_proxy,
            latencies=Latencies(factor=self.scale, init=0.0, join=0.0),
            seed=self.seed,
            image_fault=self._image_fault,
        )
        self.cluster, self.control, self._initialised = Cluster(config), host, False
        return self.cluster.authority, False

    def _image_fault(self, node: str, image: str) -> str | None:
        if not any(part in image for part in self.world.missing_images):
            return None
        return f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": {image}: not found'

    def _made(self) -> Cluster:
        if self.cluster is None:
            raise RuntimeError("SIMULATED lab: kubeadm asks for a cluster that was never prepared")
        return self.cluster

    async def serve(self, host: SimulatedHost, asked: Asked) -> None:
        """Bring the API up; the first time everything that init stores is made."""
        cluster = self._made()
        self._port = asked.port
        if not self._initialised:
            self.views[host.name] = NodeView(host, asked.node_name, asked.address)
            await cluster.start(self.views[host.name])
            cluster.set_faults(self.faults)
            self._initialised = True
            self.born.append(cluster.ca_hash)
        await self._listen()

    async def _listen(self) -> None:
        async with self._listening:
            if self.cluster is not None and self.control is not None and self._api is None:
                port = await self.cluster.serve(self.control.address, self._port)
                self._api = (self.control.address, port)

    async def _silence(self) -> None:
        async with self._listening:
            if self.cluster is not None and self._api is not None:
                self._api = None
                await self.cluster.stop_serving()

    def is_node(self, host: SimulatedHost, name: str) -> bool:
        """Say whether a host is the node of that name."""
        view = self.views.get(host.name)
        return view is not None and view.name == name

    async def join(self, host: SimulatedHost, asked: Asked) -> None:
        """Make a host a node; raises JoinRefusedError."""
        cluster = self._made()
        if self.is_node(host, asked.node_name):  # it was reset: its kubelet registers anew
            cluster.remove_node(asked.node_name)
        view = NodeView(host, asked.node_name, asked.address)
        hash_ = asked.ca_hashes[0] if asked.ca_hashes else ""
        await cluster.join(view, asked.token, hash_, control_plane=asked.control_plane)
        self.views = {name: one for name, one in self.views.items() if one.name != view.name}  # it was another machine
        self.views[host.name] = view

    async def forget(self, host: SimulatedHost) -> None:
        """Do what kubeadm reset does to the cluster: a control plane is gone with its data, a worker falls silent."""
        if host is self.control:
            await self._silence()
            if self.cluster is not None:
                await self.cluster.close()
            self.cluster, self.control, self._initialised = None, None, False
            self.views, self.further, self.learners = {}, {}, {}
        self.further.pop(host.name, None)
        self.host_changed(host)

    def containers(self, host: SimulatedHost) -> list[tuple[str, str, str]]:
        """Return the containers on a host as (name, state, pod)."""
        view = self.views.get(host.name)
        if self.cluster is None or view is None or not self._initialised:
            return []
        return [
            (status["name"], "Running" if "running" in status.get("state", {}) else "Exited", pod["metadata"]["name"])
            for pod in self.cluster.store.indexed("pods", "node", view.name)
            for status in pod.get("status", {}).get("containerStatuses", [])
        ]

    def host_changed(self, host: SimulatedHost) -> None:
        """Tell the cluster that a host may be another now."""
        if self.cluster is None or not self._initialised:
            return
        if host is self.control:
            self._later(self._follow_control_plane())
        for name in list(self.views) if host is self.control else [host.name]:
            if name in self.views:
                self.views[name].look()
                self.cluster.host_changed(self.views[name].name)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow_control_plane(self) -> None:
        """Serve the API while its host is reachable, and not else; a stopped kubelet leaves its pods running."""
        if self.control is not None and not self.control.reachable:
            await self._silence()
        elif self.control is not None and self.control.services.kubelet_up:
            await self._listen()

    def reboot(self, host: SimulatedHost) -> None:
        """Reboot a host: it is away while it boots."""
        self._later(self._rebooting(host))

    async def _rebooting(self, host: SimulatedHost) -> None:
        server = self._server
        host.reachable = False
        if server is not None:
            server.cut(host.name)
            server.refuse(host.name)
        host.changed()
        await asyncio.sleep(BOOT_SECONDS * self.scale)
        host.reachable = True
        host.reboot()
        if server is not None:
            server.up(host.name)
        host.changed()
        if self.cluster is not None and host.name in self.views:
            self.cluster.rebooted(self.views[host.name].name)

    async def close(self) -> None:
        """End what still runs; raises the first error of the cluster's own simulation."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.cluster is not None:
            await self.cluster.close()
