"""What kubeadm writes for a cluster file: arguments of static pods, the kubelet's fields, rights of joining hosts.

A drift pass compares with it what runs. Only what every kubeadm from 1.20 to 1.37 writes alike is given a value; what
differs between them is known by name alone, so that nothing is called foreign that kubeadm itself may have written.
Sources: kubeadm's app/phases/controlplane/manifests.go, app/phases/etcd/local.go, app/componentconfigs/kubelet.go,
app/phases/bootstraptoken and app/phases/addons; the manifests that 1.20.2 and 1.36.2 wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shipway.cluster.model import Cluster, node_ip
from shipway.cluster.parts import HostSpec
from shipway.kubeadm import hardening
from shipway.kubeadm.config import init_documents

ETC, PKI = "/etc/kubernetes", "/etc/kubernetes/pki"
MANIFESTS = f"{ETC}/manifests"
PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
RBAC = "rbac.authorization.k8s.io"
NODE_TOKENS = "system:bootstrappers:kubeadm:default-node-token"
# Flags of the static pods whose values differ between kubeadm's versions, or hold a name or a list of peers.
OTHERS: Mapping[str, tuple[str, ...]] = {
    "etcd": (
        *("advertise-client-urls", "experimental-initial-corrupt-check", "experimental-watch-progress-notify-interval"),
        *("feature-gates", "initial-advertise-peer-urls", "initial-cluster", "initial-cluster-state"),
        *("listen-client-urls", "listen-metrics-urls", "listen-peer-urls", "name", "snapshot-count"),
        "watch-progress-notify-interval",
    ),
    "kube-apiserver": (
        *("insecure-port", "kubelet-preferred-address-types", "requestheader-allowed-names", "service-account-issuer"),
        *("requestheader-extra-headers-prefix", "requestheader-group-headers", "requestheader-username-headers"),
        "service-account-signing-key-file",
    ),
    "kube-controller-manager": ("cluster-name", "controllers", "leader-elect", "port"),
    "kube-scheduler": ("leader-elect", "port"),
}
# The kubelet's flags that kubeadm's unit file and kubeadm-flags.env hold, in any of its versions.
KUBELET_FLAGS = frozenset(
    {
        *("bootstrap-kubeconfig", "kubeconfig", "config", "container-runtime", "container-runtime-endpoint"),
        *("network-plugin", "pod-infra-container-image", "node-ip", "hostname-override", "resolv-conf"),
        *("cgroup-driver", "register-with-taints"),
    }
)


def static_pod_args(cluster: Cluster, host: HostSpec) -> dict[str, dict[str, str]]:
    """Return by static pod the flags that kubeadm writes for this cluster file, with their values."""
    kubernetes = cluster.kubernetes
    services, pods = str(kubernetes.service_network), str(kubernetes.pod_network)
    etcd = {
        "cert-file": f"{PKI}/etcd/server.crt",
        "client-cert-auth": "true",
        "data-dir": "/var/lib/etcd",
        "key-file": f"{PKI}/etcd/server.key",
        "peer-cert-file": f"{PKI}/etcd/peer.crt",
        "peer-client-cert-auth": "true",
        "peer-key-file": f"{PKI}/etcd/peer.key",
        "peer-trusted-ca-file": f"{PKI}/etcd/ca.crt",
        "trusted-ca-file": f"{PKI}/etcd/ca.crt",
    }
    apiserver = {
        "advertise-address": node_ip(host),
        "allow-privileged": "true",
        "authorization-mode": "Node,RBAC",
        "client-ca-file": f"{PKI}/ca.crt",
        "enable-admission-plugins": "NodeRestriction",
        "enable-bootstrap-token-auth": "true",
        "etcd-cafile": f"{PKI}/etcd/ca.crt",
        "etcd-certfile": f"{PKI}/apiserver-etcd-client.crt",
        "etcd-keyfile": f"{PKI}/apiserver-etcd-client.key",
        "etcd-servers": "https://127.0.0.1:2379",
        "kubelet-client-certificate": f"{PKI}/apiserver-kubelet-client.crt",
        "kubelet-client-key": f"{PKI}/apiserver-kubelet-client.key",
        "proxy-client-cert-file": f"{PKI}/front-proxy-client.crt",
        "proxy-client-key-file": f"{PKI}/front-proxy-client.key",
        "requestheader-client-ca-file": f"{PKI}/front-proxy-ca.crt",
        "secure-port": str(kubernetes.api_port),
        "service-account-key-file": f"{PKI}/sa.pub",
        "service-cluster-ip-range": services,
        "tls-cert-file": f"{PKI}/apiserver.crt",
        "tls-private-key-file": f"{PKI}/apiserver.key",
    }
    manager_conf, scheduler_conf = f"{ETC}/controller-manager.conf", f"{ETC}/scheduler.conf"
    manager = {
        "allocate-node-cidrs": "true",
        "authentication-kubeconfig": manager_conf,
        "authorization-kubeconfig": manager_conf,
        "bind-address": "127.0.0.1",
        "client-ca-file": f"{PKI}/ca.crt",
        "cluster-cidr": pods,
        "cluster-signing-cert-file": f"{PKI}/ca.crt",
        "cluster-signing-key-file": f"{PKI}/ca.key",
        "kubeconfig": manager_conf,
        "requestheader-client-ca-file": f"{PKI}/front-proxy-ca.crt",
        "root-ca-file": f"{PKI}/ca.crt",
        "service-account-private-key-file": f"{PKI}/sa.key",
        "service-cluster-ip-range": services,
        "use-service-account-credentials": "true",
    }
    scheduler = {
        "authentication-kubeconfig": scheduler_conf,
        "authorization-kubeconfig": scheduler_conf,
        "bind-address": "127.0.0.1",
        "kubeconfig": scheduler_conf,
    }
    declared = init_documents(cluster, host)[1]
    beside = {part: hardening.flags(cluster).get(part, {}) for part in hardening.PARTS}
    return {
        "etcd": etcd | _extra((declared.get("etcd") or {}).get("local")),
        "kube-apiserver": apiserver | _extra(declared.get("apiServer"), beside["kube-apiserver"]),
        "kube-controller-manager": manager
        | _extra(declared.get("controllerManager"), beside["kube-controller-manager"]),
        "kube-scheduler": scheduler | _extra(declared.get("scheduler"), beside["kube-scheduler"]),
    }


def _extra(section: Any, beside: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the extra arguments of a section of ClusterConfiguration: a map, and a list from v1beta4 on.

    Those of hardening (`beside`) are left out: they have steps of their own.
    """
    given = (section or {}).get("extraArgs") or {}
    pairs = given.items() if isinstance(given, Mapping) else ((one["name"], one["value"]) for one in given)
    return {name: value for name, value in pairs if name not in (beside or {})}


def kubelet_fields(cluster: Cluster) -> dict[str, Any]:
    """Return the fields that kubeadm sets in every kubelet's file, whatever its configuration leaves open."""
    return {
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{PKI}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [dns_address(cluster)],
        "clusterDomain": "cluster.local",
        "rotateCertificates": True,
        "staticPodPath": MANIFESTS,
    }


def dns_address(cluster: Cluster) -> str:
    """Return the address of the cluster's DNS: the tenth of the service network."""
    return str(cluster.kubernetes.service_network[10])


def rights(cluster: Cluster) -> list[dict[str, Any]]:
    """Return the roles and bindings that kubeadm makes for joining hosts, kube-proxy and CoreDNS."""
    nodes, tokens = _subject("Group", "system:nodes"), _subject("Group", NODE_TOKENS)
    minor = cluster.kubernetes.minor[1]
    kubelet_config = f"kubelet-config-1.{minor}" if minor < 24 else "kubelet-config"  # noqa: PLR2004 - kubeadm 1.24
    approver = "system:certificates.k8s.io:certificatesigningrequests"
    coredns = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]}
    ]
    return [
        _role("kubeadm:get-nodes", [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]),
        _binding("kubeadm:get-nodes", "kubeadm:get-nodes", tokens),
        _binding("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", tokens),
        _binding("kubeadm:node-autoapprove-bootstrap", f"{approver}:nodeclient", tokens),
        _binding("kubeadm:node-autoapprove-certificate-rotation", f"{approver}:selfnodeclient", nodes),
        _binding("kubeadm:node-proxier", "system:node-proxier", _account("kube-proxy")),
        _role("system:coredns", coredns),
        _binding("system:coredns", "system:coredns", _account("coredns")),
        *_readable("kubeadm:bootstrap-signer-clusterinfo", "cluster-info", "kube-public", _anonymous()),
        *_readable("kubeadm:nodes-kubeadm-config", "kubeadm-config", "kube-system", tokens, nodes),
        *_readable(f"kubeadm:{kubelet_config}", kubelet_config, "kube-system", nodes, tokens),
        *_readable("kube-proxy", "kube-proxy", "kube-system", tokens),
    ]


def _subject(kind: str, name: str) -> dict[str, str]:
    return {"apiGroup": RBAC, "kind": kind, "name": name}


def _anonymous() -> dict[str, str]:
    return _subject("User", "system:anonymous")


def _account(name: str) -> dict[str, str]:
    return {"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}


def _head(kind: str, name: str, namespace: str) -> dict[str, Any]:
    place = {"namespace": namespace} if namespace else {}
    return {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": {"name": name, **place}}


def _role(name: str, rules: list[dict[str, Any]], namespace: str = "") -> dict[str, Any]:
    return {**_head("Role" if namespace else "ClusterRole", name, namespace), "rules": rules}


def _binding(name: str, role: str, *subjects: dict[str, str], namespace: str = "") -> dict[str, Any]:
    reference = {"apiGroup": RBAC, "kind": "Role" if namespace else "ClusterRole", "name": role}
    head = _head("RoleBinding" if namespace else "ClusterRoleBinding", name, namespace)
    return {**head, "roleRef": reference, "subjects": list(subjects)}


def _readable(name: str, config_map: str, namespace: str, *subjects: dict[str, str]) -> list[dict[str, Any]]:
    """Return the role and binding by which somebody may read one ConfigMap."""
    rule = {"apiGroups": [""], "resourceNames": [config_map], "resources": ["configmaps"], "verbs": ["get"]}
    return [_role(name, [rule], namespace), _binding(name, name, *subjects, namespace=namespace)]
