"""The objects that a fresh cluster holds after `kubeadm init`: roles, settings, addons."""

from __future__ import annotations

import ipaddress

import yaml

from .hosts import HostState
from .objects import Obj
from .static_pods import images
from .world import ClusterConfig

RBAC = "rbac.authorization.k8s.io"
NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
_NODE_TOKENS = "system:bootstrappers:kubeadm:default-node-token"
_EVERYTHING: list[Obj] = [
    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
    {"nonResourceURLs": ["*"], "verbs": ["*"]},
]
_READ = ["get", "list", "watch"]


def _head(api_version: str, kind: str, name: str, namespace: str = "") -> Obj:
    metadata: Obj = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _role(name: str, rules: list[Obj], namespace: str = "") -> Obj:
    return {**_head(f"{RBAC}/v1", "Role" if namespace else "ClusterRole", name, namespace), "rules": rules}


def _bind(name: str, role: str, kind: str, subject: str, namespace: str = "") -> Obj:
    head = _head(f"{RBAC}/v1", "RoleBinding" if namespace else "ClusterRoleBinding", name, namespace)
    role_kind = "Role" if namespace else "ClusterRole"
    subjects = [{"kind": kind, "name": subject, "apiGroup": RBAC}]
    return {**head, "roleRef": {"apiGroup": RBAC, "kind": role_kind, "name": role}, "subjects": subjects}


def address_in(cidr: str, number: int) -> str:
    """Give the n-th address of a network."""
    return str(ipaddress.ip_network(cidr)[number])


def roles(config: ClusterConfig) -> list[Obj]:
    """Give the roles and bindings of a fresh cluster that somebody may run into."""
    read_all = [{"apiGroups": ["", "apps", "batch"], "resources": ["*"], "verbs": _READ}]
    write_all = [{"apiGroups": ["", "apps", "batch"], "resources": ["*"], "verbs": ["*"]}]
    nodes = {"apiGroups": [""], "resources": ["nodes", "pods", "services", "endpoints", "configmaps"], "verbs": _READ}
    one_map = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
    kubelet = f"kubelet-config-1.{config.minor}" if config.minor < 24 else "kubelet-config"
    found = [
        _role("cluster-admin", _EVERYTHING),
        _role("admin", write_all),
        _role("edit", write_all),
        _role("view", read_all),
        _role("system:node", [nodes]),
        _role(
            "system:node-bootstrapper",
            [
                {
                    "apiGroups": ["certificates.k8s.io"],
                    "resources": ["certificatesigningrequests"],
                    "verbs": ["create", *_READ],
                }
            ],
        ),
        _role("kubeadm:get-nodes", [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]),
        _bind("cluster-admin", "cluster-admin", "Group", "system:masters"),
        _bind("system:node", "system:node", "Group", "system:nodes"),
        _bind("kubeadm:get-nodes", "kubeadm:get-nodes", "Group", _NODE_TOKENS),
        _bind("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", "Group", _NODE_TOKENS),
        _role("kubeadm:bootstrap-signer-clusterinfo", [{**one_map, "resourceNames": ["cluster-info"]}], "kube-public"),
        _bind(
            "kubeadm:bootstrap-signer-clusterinfo",
            "kubeadm:bootstrap-signer-clusterinfo",
            "User",
            "system:anonymous",
            "kube-public",
        ),
        _role("kubeadm:nodes-kubeadm-config", [{**one_map, "resourceNames": ["kubeadm-config"]}], "kube-system"),
        _bind("kubeadm:nodes-kubeadm-config", "kubeadm:nodes-kubeadm-config", "Group", _NODE_TOKENS, "kube-system"),
        _role("kubeadm:kubelet-config", [{**one_map, "resourceNames": [kubelet]}], "kube-system"),
        _bind("kubeadm:kubelet-config", "kubeadm:kubelet-config", "Group", _NODE_TOKENS, "kube-system"),
    ]
    if config.minor >= 29:  # since then admin.conf is no longer in system:masters
        found.append(_bind("kubeadm:cluster-admins", "cluster-admin", "Group", "kubeadm:cluster-admins"))
    return found


def settings(host: HostState, config: ClusterConfig, endpoint: str, info: str) -> list[Obj]:
    """Give the ConfigMaps that kubeadm keeps its settings in, and cluster-info."""
    version = "v1beta4" if config.minor >= 31 else "v1beta3" if config.minor >= 22 else "v1beta2"
    cluster = {
        "apiVersion": f"kubeadm.k8s.io/{version}",
        "kind": "ClusterConfiguration",
        "clusterName": config.cluster_name,
        "imageRepository": config.repository,
        "kubernetesVersion": config.version,
        "networking": {
            "dnsDomain": config.dns_domain,
            "podSubnet": config.pod_cidr,
            "serviceSubnet": config.service_cidr,
        },
    }
    if config.endpoint:
        cluster["controlPlaneEndpoint"] = config.endpoint
    data = {"ClusterConfiguration": yaml.safe_dump(cluster)}
    if config.minor < 22:
        status = {"apiEndpoints": {host.name: {"advertiseAddress": host.address, "bindPort": 6443}}}
        head = {"apiVersion": f"kubeadm.k8s.io/{version}", "kind": "ClusterStatus"}
        data["ClusterStatus"] = yaml.safe_dump({**status, **head})
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "systemd",
        "clusterDNS": [address_in(config.service_cidr, 10)],
        "clusterDomain": config.dns_domain,
    }
    name = f"kubelet-config-1.{config.minor}" if config.minor < 24 else "kubelet-config"
    proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clusterCIDR": config.pod_cidr,
    }
    maps = {
        ("kube-system", "kubeadm-config"): data,
        ("kube-system", name): {"kubelet": yaml.safe_dump(kubelet)},
        ("kube-system", "kube-proxy"): {"config.conf": yaml.safe_dump(proxy), "server": endpoint},
        ("kube-system", "coredns"): {"Corefile": f".:53 {{\n    kubernetes {config.dns_domain}\n}}\n"},
        ("kube-public", "cluster-info"): {"kubeconfig": info},
    }
    return [{**_head("v1", "ConfigMap", one, place), "data": content} for (place, one), content in maps.items()]


def services(config: ClusterConfig) -> list[Obj]:
    """Give the API's own Service and that of the cluster's DNS."""
    api = _head("v1", "Service", "kubernetes", "default")
    api["metadata"]["labels"] = {"component": "apiserver", "provider": "kubernetes"}
    first, tenth = address_in(config.service_cidr, 1), address_in(config.service_cidr, 10)
    ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}]
    api["spec"] = {"clusterIP": first, "clusterIPs": [first], "ports": ports}
    dns = _head("v1", "Service", "kube-dns", "kube-system")
    dns["metadata"]["labels"] = {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}
    dns_ports = [
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
    ]
    dns["spec"] = {"clusterIP": tenth, "clusterIPs": [tenth], "ports": dns_ports, "selector": {"k8s-app": "kube-dns"}}
    return [api, dns]


def addons(config: ClusterConfig) -> list[Obj]:
    """Give kube-proxy and CoreDNS with their accounts."""
    proxy_labels, dns_labels = {"k8s-app": "kube-proxy"}, {"k8s-app": "kube-dns"}
    role = "master" if config.minor < 24 else "control-plane"
    proxy_spec = {
        "hostNetwork": True,
        "serviceAccountName": "kube-proxy",
        "priorityClassName": "system-node-critical",
        "tolerations": [{"operator": "Exists"}],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "containers": [
            {"name": "kube-proxy", "image": images(config)["kube-proxy"], "command": ["/usr/local/bin/kube-proxy"]}
        ],
    }
    dns_spec = {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "tolerations": [
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
            {"key": f"node-role.kubernetes.io/{role}", "effect": "NoSchedule"},
        ],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "containers": [
            {"name": "coredns", "image": images(config)["coredns"], "args": ["-conf", "/etc/coredns/Corefile"]}
        ],
    }
    proxy = _head("apps/v1", "DaemonSet", "kube-proxy", "kube-system")
    proxy["metadata"] |= {"labels": proxy_labels, "generation": 1}
    template = {"metadata": {"labels": proxy_labels}, "spec": proxy_spec}
    proxy["spec"] = {"selector": {"matchLabels": proxy_labels}, "template": template}
    dns = _head("apps/v1", "Deployment", "coredns", "kube-system")
    dns["metadata"] |= {"labels": dns_labels, "generation": 1}
    dns["spec"] = {
        "replicas": 2,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
        "selector": {"matchLabels": dns_labels},
        "template": {"metadata": {"labels": dns_labels}, "spec": dns_spec},
    }
    accounts = [_head("v1", "ServiceAccount", name, "kube-system") for name in ("kube-proxy", "coredns")]
    return [*accounts, proxy, dns]


def priority_classes() -> list[Obj]:
    """Give the two classes that every cluster has."""
    values = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
    return [{**_head("scheduling.k8s.io/v1", "PriorityClass", name), "value": value} for name, value in values.items()]


def endpoints_of_api(address: str) -> Obj:
    """Give the Endpoints of the API's own Service."""
    subset = {"addresses": [{"ip": address}], "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}]}
    return {**_head("v1", "Endpoints", "kubernetes", "default"), "subsets": [subset]}
