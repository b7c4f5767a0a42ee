"""kubeadm's configuration files, keyed by minor version, and what belongs to them."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Mapping
from typing import Any

from shipway.cluster.model import Cluster, node_ip
from shipway.cluster.parts import HostSpec
from shipway.foreign.yaml import write_all
from shipway.kubeadm import hardening
from shipway.kubeadm.values import merge
from shipway.rules.compatibility import kubeadm_api

VERSION_TAG = 0xA0  # [0], the only optional element before the public key
# How long a join looks for its token's signature; kubeadm's own five minutes are for tokens that people hand on. Ours
# was made a moment ago: where it is not known after this, it is gone, and the stage's next try makes a fresh one.
DISCOVERY_SECONDS = 60
CRI_SOCKET = "unix:///run/containerd/containerd.sock"
# The pause image each kubeadm minor asks for (PauseVersion in its cmd/kubeadm/app/constants). Only what is done before
# kubeadm is on the host rests on it: then kubeadm is asked. 1.20 and 1.36 are recorded answers of kubeadm; the others
# are those of kubeclipper's pkg/scheme/core/v1/cri/cri.go, read at its commit of 2026-08-21.
PAUSE = {
    20: "3.2",
    21: "3.4.1",
    22: "3.5",
    23: "3.6",
    24: "3.7",
    25: "3.8",
    **dict.fromkeys(range(26, 31), "3.9"),
    **dict.fromkeys(range(31, 34), "3.10"),
    **dict.fromkeys(range(34, 36), "3.10.1"),
    **dict.fromkeys(range(36, 38), "3.10.2"),
}
Minor = tuple[int, int]


def image_repository(cluster: Cluster) -> str:
    """Return the registry of the control plane's images: as declared, else upstream's (k8s.gcr.io before 1.25)."""
    upstream = "registry.k8s.io" if cluster.kubernetes.minor >= (1, 25) else "k8s.gcr.io"
    return cluster.kubernetes.image_repository or upstream


def sandbox_image(cluster: Cluster) -> str:
    """Return the pause image that kubeadm will ask for, as far as can be known before it is on the host."""
    return f"{image_repository(cluster)}/pause:{PAUSE[cluster.kubernetes.minor[1]]}"


def cri_socket(minor: Minor) -> str:
    """Return the runtime's socket as this kubeadm wants it: before 1.24 it went into a flag for plain paths."""
    return CRI_SOCKET if minor >= (1, 24) else CRI_SOCKET.removeprefix("unix://")


def _args(minor: Minor, values: Mapping[str, str]) -> Any:
    """Extra arguments are a map up to v1beta3 and a list of name and value since v1beta4."""
    if minor >= (1, 31):
        return [{"name": name, "value": value} for name, value in values.items()]
    return dict(values)


def _registration(cluster: Cluster, host: HostSpec) -> dict[str, Any]:
    """Node name, runtime socket and node address (the default route's interface may be another: kubernetes#87244)."""
    minor = cluster.kubernetes.minor
    registration: dict[str, Any] = {
        "name": host.name,
        "criSocket": cri_socket(minor),
        "kubeletExtraArgs": _args(minor, {"node-ip": node_ip(host)}),
    }
    ignored = ["SystemVerification"] if minor >= (1, 35) and cluster.kubernetes.allow_cgroup_v1 else []
    if ignored and minor >= (1, 22):
        registration["ignorePreflightErrors"] = ignored
    return registration


def init_documents(cluster: Cluster, host: HostSpec) -> list[dict[str, Any]]:
    """Return kubeadm init's configuration: no secret is in it, the bootstrap token is kubeadm's own and short-lived."""
    kubernetes, api = cluster.kubernetes, f"kubeadm.k8s.io/{kubeadm_api(cluster.kubernetes.minor)}"
    size = {"node-cidr-mask-size": str(kubernetes.node_mask)}
    init = {
        "apiVersion": api,
        "kind": "InitConfiguration",
        "bootstrapTokens": [
            {
                "ttl": "10m0s",
                "description": "made by kubeadm init; Shipway makes one of its own for each join",
                "usages": ["signing", "authentication"],
                "groups": ["system:bootstrappers:kubeadm:default-node-token"],
            }
        ],
        "localAPIEndpoint": {"advertiseAddress": node_ip(host), "bindPort": kubernetes.api_port},
        "nodeRegistration": _registration(cluster, host),
    }
    declared = {
        "apiVersion": api,
        "kind": "ClusterConfiguration",
        "clusterName": cluster.name,
        "kubernetesVersion": f"v{kubernetes.version}",
        "controlPlaneEndpoint": cluster.endpoint,
        "imageRepository": image_repository(cluster),
        "networking": {"podSubnet": str(kubernetes.pod_network), "serviceSubnet": str(kubernetes.service_network)},
        "controllerManager": {"extraArgs": _args(kubernetes.minor, size)},
    }
    planes = [node_ip(one) for one in cluster.control_planes]
    names = [cluster.api_name, "127.0.0.1", "localhost", *planes] if cluster.api_name else []
    if names or cluster.api_vip:
        declared["apiServer"] = {"certSANs": [*names, *filter(None, (cluster.api_vip,))]}
    _harden(declared, cluster)
    kubelet: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "systemd",
    }
    if kubernetes.minor >= (1, 35) and kubernetes.allow_cgroup_v1:
        kubelet |= {"failCgroupV1": False}
    proxy = {"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration"}
    kubelet = merge(merge(kubelet, hardening.kubelet_fields(cluster)), kubernetes.kubelet)
    documents: list[dict[str, Any]] = [init, declared, kubelet]
    return [*documents, merge(proxy, kubernetes.kube_proxy)] if kubernetes.kube_proxy else documents


def _harden(declared: dict[str, Any], cluster: Cluster) -> None:
    """Put the declared flags and mounts of hardening into a ClusterConfiguration."""
    minor = cluster.kubernetes.minor
    for part, flags in hardening.flags(cluster).items():
        section = declared.setdefault(hardening.SECTIONS[part], {})
        own = _args(minor, flags)
        there = section.get("extraArgs") or ([] if minor >= (1, 31) else {})
        section["extraArgs"] = [*there, *own] if isinstance(there, list) else {**there, **own}
    if volumes := [mount.of_kubeadm() for mount in hardening.mounts(cluster)]:
        declared.setdefault("apiServer", {})["extraVolumes"] = volumes


def join_documents(
    cluster: Cluster, host: HostSpec, token: str, ca_hash: str, *, control_plane: bool = False
) -> list[dict[str, Any]]:
    """Return kubeadm join's configuration; it holds the token, so it goes into a file of mode 0600 and nowhere else.

    A control plane is told its own address: kubeadm would take that of the default route (kubeadm#2275).
    """
    token_of = {"apiServerEndpoint": cluster.endpoint, "token": token, "caCertHashes": [ca_hash]}
    discovery: dict[str, Any] = {"bootstrapToken": token_of, "tlsBootstrapToken": token}
    join: dict[str, Any] = {
        "apiVersion": f"kubeadm.k8s.io/{kubeadm_api(cluster.kubernetes.minor)}",
        "kind": "JoinConfiguration",
        "discovery": discovery,
        "nodeRegistration": _registration(cluster, host),
    }
    if control_plane:
        own = {"advertiseAddress": node_ip(host), "bindPort": cluster.kubernetes.api_port}
        join["controlPlane"] = {"localAPIEndpoint": own}
    # v1beta4 gathered its limits in one place (kubernetes.io, "kubeadm Configuration (v1beta4)", change list).
    if cluster.kubernetes.minor >= (1, 31):
        join["timeouts"] = {"discovery": f"{DISCOVERY_SECONDS}s"}
    else:
        discovery["timeout"] = f"{DISCOVERY_SECONDS}s"
    return [join]


def as_yaml(documents: list[dict[str, Any]]) -> str:
    """Return the documents as YAML text."""
    return write_all(documents)


def ca_hash(pem: str) -> str:
    """Return `sha256:HEX` of a CA certificate's public key, as kubeadm pins it; raises ValueError for no certificate.

    The public key is cut out of the DER by hand: kubeadm's CAs before 1.24 have serial number 0, which certificate
    libraries refuse or will refuse (RFC 5280 wants it positive).
    """
    der = ssl.PEM_cert_to_DER_cert(pem[pem.find("-----BEGIN CERTIFICATE-----") :].strip())
    (_, certificate, _), *_ = _elements(der)
    (_, signed, _), *_ = _elements(certificate)
    fields = [whole for tag, _, whole in _elements(signed) if tag != VERSION_TAG]
    if len(fields) < 6:  # noqa: PLR2004 - serial, algorithm, issuer, validity, subject, public key (RFC 5280, 4.1)
        raise ValueError("not an X.509 certificate")
    return "sha256:" + hashlib.sha256(fields[5]).hexdigest()


def _elements(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """Return tag, content and whole bytes of each DER element in a row; raises ValueError where it is cut short."""
    found = []
    at = 0
    while at + 1 < len(data):
        size, head = data[at + 1], 2
        if size & 0x80:
            count = size & 0x7F
            size, head = int.from_bytes(data[at + 2 : at + 2 + count], "big"), 2 + count
        end = at + head + size
        if end > len(data):
            raise ValueError("not an X.509 certificate: cut short")
        found.append((data[at], data[at + head : end], data[at:end]))
        at = end
    if not found:
        raise ValueError("not an X.509 certificate: empty")
    return found
