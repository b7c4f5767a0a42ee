"""The certificates that kubeadm keeps on a control plane: where each lies, who signed it, who reads and who serves it.

Sources: kubernetes.io, "PKI certificates and requirements" and "Certificate Management with kubeadm"; kubeadm's
app/phases/certs/certlist.go and app/phases/certs/renewal/manager.go; what `kubeadm certs renew all` of 1.20.2 and
1.36.2 printed.
"""

from __future__ import annotations

from dataclasses import dataclass

from shipway.kubeadm.writes import ETC, PKI

DAY = 86400.0
# kubeadm's leaf certificates live a year; the tools that renew begin between 30 and 90 days before their end.
WITHIN_DAYS = 90
ETCD, APISERVER, MANAGER, SCHEDULER = "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"
ETCD_CLIENTS, ETCD_PEERS, KUBELET_PORT = 2379, 2380, 10250
KUBELET_PKI = "/var/lib/kubelet/pki"
KUBELET_CLIENT = f"{KUBELET_PKI}/kubelet-client-current.pem"
KUBELET_SERVER = f"{KUBELET_PKI}/kubelet-server-current.pem"  # what serverTLSBootstrap keeps there
KUBELET_SELF_SIGNED = f"{KUBELET_PKI}/kubelet.crt"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One certificate that `kubeadm certs renew all` renews: its name, its CA, and the static pod that reads it.

    One that is `optional` is not on every control plane: super-admin.conf is only where `kubeadm init` ran, since 1.29,
    and there is nothing of etcd where etcd is elsewhere.
    """

    name: str
    authority: str
    read_by: str = ""
    optional: bool = False

    @property
    def path(self) -> str:
        """Where it lies; a kubeconfig holds its certificate inside."""
        return f"{ETC}/{self.name}" if self.name.endswith(".conf") else f"{PKI}/{self.name}.crt"


LEAFS: tuple[Leaf, ...] = (
    Leaf("apiserver", "ca", APISERVER),
    Leaf("apiserver-kubelet-client", "ca", APISERVER),
    Leaf("apiserver-etcd-client", "etcd/ca", APISERVER, optional=True),
    Leaf("front-proxy-client", "front-proxy-ca", APISERVER),
    Leaf("etcd/server", "etcd/ca", ETCD, optional=True),
    Leaf("etcd/peer", "etcd/ca", ETCD, optional=True),
    Leaf("etcd/healthcheck-client", "etcd/ca", "", optional=True),  # of a probe, which reads it each time
    Leaf("admin.conf", "ca"),
    Leaf("super-admin.conf", "ca", "", optional=True),
    Leaf("controller-manager.conf", "ca", MANAGER),
    Leaf("scheduler.conf", "ca", SCHEDULER),
)
AUTHORITIES = ("ca", "etcd/ca", "front-proxy-ca")


@dataclass(frozen=True, slots=True)
class Door:
    """A port where a static pod shows one of its certificates to whoever asks."""

    port: int
    leaf: str


def authority_path(name: str) -> str:
    """Return where a CA's certificate lies."""
    return f"{PKI}/{name}.crt"


def leafs_of(part: str) -> tuple[Leaf, ...]:
    """Return the certificates that a static pod reads when it starts."""
    return tuple(leaf for leaf in LEAFS if leaf.read_by == part)


def doors_of(part: str, api_port: int) -> tuple[Door, ...]:
    """Return where a static pod shows certificates that lie in files; the others make theirs in memory."""
    if part == ETCD:
        return (Door(ETCD_CLIENTS, "etcd/server"), Door(ETCD_PEERS, "etcd/peer"))
    return (Door(api_port, "apiserver"),) if part == APISERVER else ()
