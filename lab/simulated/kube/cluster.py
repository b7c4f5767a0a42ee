"""A simulated Kubernetes cluster as the simulated hosts use it: init, join, tokens, and news about hosts."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from .api import Api
from .bootstrap_tokens import DEFAULT_GROUP, DEFAULT_TTL, PREFIX, new_token, token_secret
from .controllers.calico import Calico
from .controllers.claims import Claims
from .controllers.custom_resources import CustomResources
from .controllers.daemonsets import DaemonSets
from .controllers.deployments import Deployments
from .controllers.devices import Devices
from .controllers.housekeeping import Garbage, Namespaces, TokenCleaner
from .controllers.kubelet import Kubelets
from .controllers.nodes import Nodes
from .controllers.pods.factory import PodFactory
from .controllers.replicasets import ReplicaSets
from .controllers.scheduler import Scheduler
from .faults import FaultHook
from .hosts import SimpleHost
from .joining import check_join
from .kubeadm_objects import NAMESPACES, address_in, objects, static_pods
from .objects import Obj
from .pki import Authority, KeyPair, kubeconfig
from .server import ApiServer
from .world import ClusterConfig, World


class Cluster:
    """One simulated cluster. Everything happens in the event loop that made it."""

    def __init__(self, config: ClusterConfig, authority: Authority | None = None) -> None:
        self.config = config
        self.authority = authority or Authority()
        self.world = World(config)
        self.store = self.world.store
        self._nodes = Nodes(self.world)
        claims = Claims(self.world)
        self._kubelets = Kubelets(self.world, self._nodes, Devices(self.world, claims))
        self._namespaces = Namespaces(self.world, self.authority.certificate)
        factory = PodFactory(self.world)
        self._others = (
            Calico(self.world),
            CustomResources(self.world),
            DaemonSets(self.world, factory),
            Deployments(self.world),
            Garbage(self.world),
            ReplicaSets(self.world, factory),
            Scheduler(self.world, claims),
            TokenCleaner(self.world),
        )
        self._server = ApiServer(self.world, Api(self.world), self._kubelets)
        self._pair: KeyPair | None = None
        self.endpoint = config.endpoint
        self.init_token = ""

    async def start(self, host: SimpleHost) -> None:
        """Do what `kubeadm init` does on a host: certificates, objects, the first node. The CA is there before."""
        self.endpoint = self.config.endpoint or f"{host.address}:6443"
        await asyncio.sleep(self.world.pace.scaled(self.config.latencies.init))
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        names.append(f"kubernetes.default.svc.{self.config.dns_domain}")
        names += [host.name, host.address, address_in(self.config.service_cidr, 1), "localhost", "127.0.0.1", "::1"]
        names += [self.endpoint.rsplit(":", 1)[0], *self.config.extra_names]
        self._pair = self.authority.server("kube-apiserver", names)
        for namespace in NAMESPACES:
            self.world.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
            self._namespaces.furnish(namespace)
        for obj in self._initial(host, self.config):
            self.world.put(obj)
        self._add_node(host, control_plane=True)
        self.init_token = self.create_token()

    def _initial(self, host: SimpleHost, config: ClusterConfig) -> list[Obj]:
        info = kubeconfig(f"https://{self.endpoint}", self.authority.certificate, "", "", None)
        return objects(host, config, f"https://{self.endpoint}", info)

    def write_addon(self, name: str, kube_proxy: Obj) -> None:
        """Do what `kubeadm init phase addon NAME` does: write what is missing, and what kubeadm owns of the rest."""
        host = next(iter(self.world.hosts.values()))
        names = {name, "kube-dns"} if name == "coredns" else {name}
        for obj in self._initial(host, replace(self.config, kube_proxy=kube_proxy)):
            if obj["metadata"]["name"] in names:
                live = self.world.put(obj)
                if (obj["kind"], name) == ("ConfigMap", "kube-proxy"):
                    self.store.replace("configmaps", {**live, "data": obj["data"]})

    def _add_node(self, host: SimpleHost, *, control_plane: bool) -> None:
        self.world.hosts[host.name] = host
        node = self._nodes.register(host.name, control_plane=control_plane)
        if control_plane:
            for pod in static_pods(host, node, self.config):
                self.world.put(pod)

    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Serve the API on an address of this machine; return the port bound.

        Raises OSError where the port is taken, RuntimeError before `start`.
        """
        if self._pair is None:
            raise RuntimeError("SIMULATED cluster: nothing to serve before Cluster.start")
        return await self._server.serve(self.authority, self._pair, host, port)

    async def stop_serving(self) -> None:
        """Stop the API, as a reboot of the control plane does; `serve` starts it again with everything it held."""
        await self._server.stop()

    async def close(self) -> None:
        """End the cluster. Raises the first error of the simulation itself, if there was one."""
        await self._server.stop()
        self.world.pace.stop()
        if self.world.pace.failures:
            raise self.world.pace.failures[0]

    def set_faults(self, hook: FaultHook) -> None:
        """Ask `hook(method, path)` before every request what goes wrong with it."""
        self._server.faults = hook

    @property
    def ca_hash(self) -> str:
        """Return what `--discovery-token-ca-cert-hash` takes."""
        return self.authority.hash

    def admin_kubeconfig(self, server: str = "") -> str:
        """Return admin.conf; since 1.29 it is an administrator by a role binding, before by system:masters."""
        group = "kubeadm:cluster-admins" if self.config.minor >= 29 else "system:masters"
        return self.kubeconfig_for("kubernetes-admin", (group,), server)

    def kubelet_kubeconfig(self, node: str, server: str = "") -> str:
        """Return kubelet.conf of a node."""
        return self.kubeconfig_for(f"system:node:{node}", ("system:nodes",), server)

    def kubeconfig_for(self, user: str, groups: tuple[str, ...], server: str = "") -> str:
        """Return a kubeconfig with a fresh client certificate; `server` defaults to the cluster's own endpoint."""
        pair = self.authority.client(user, groups)
        url = server or f"https://{self.endpoint}"
        return kubeconfig(url, self.authority.certificate, self.config.cluster_name, user, pair)

    def create_token(
        self,
        ttl: float = DEFAULT_TTL,
        description: str = "",
        usages: tuple[str, ...] = ("authentication", "signing"),
        groups: tuple[str, ...] = (DEFAULT_GROUP,),
        token: str = "",
    ) -> str:
        """Do what `kubeadm token create` does; `ttl` in seconds, 0 for ever. Raises ValueError for a bad token."""
        token = token or new_token()
        self.store.create("secrets", token_secret(token, ttl, description, usages, groups))
        return token

    def delete_token(self, token: str) -> bool:
        """Do what `kubeadm token delete` does for a token or its id; say whether it was there."""
        return self.store.remove("secrets", "kube-system", PREFIX + token.split(".", maxsplit=1)[0]) is not None

    async def join(self, host: SimpleHost, token: str, ca_hash: str = "", *, control_plane: bool = False) -> None:
        """Do what `kubeadm join` does for a host; without a hash the CA is not checked.

        Raises JoinRefusedError with kubeadm's own words.
        """
        check_join(self.store, self.authority.hash, host.name, token, ca_hash)
        await asyncio.sleep(self.world.pace.scaled(self.config.latencies.join))
        self._add_node(host, control_plane=control_plane)

    def remove_node(self, name: str) -> bool:
        """Do what `kubectl delete node` does, and forget the host; say whether the node was there."""
        there = self.store.remove("nodes", "", name) is not None
        self.world.hosts.pop(name, None)
        return there

    def host_changed(self, name: str) -> None:
        """Look at a host anew: call this after any field of its SimpleHost has changed."""
        self._nodes.host_changed(name)
        if self.world.alive(name):
            self._kubelets.host_changed(name)

    def rebooted(self, name: str) -> None:
        """Start a node's pods anew, as a reboot of its host does; call it when its kubelet runs again."""
        self.host_changed(name)
        self._kubelets.rebooted(name)
