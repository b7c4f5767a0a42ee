"""The objects that a fresh cluster holds after `kubeadm init`: settings, services, addons."""

from __future__ import annotations

import ipaddress

import yaml

from lab.simulated import releases

from .hosts import HostState
from .objects import Obj
from .static_pods import images
from .world import ClusterConfig

NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


def head(api_version: str, kind: str, name: str, namespace: str = "") -> Obj:
    """Return the beginning of an object: what it is and what it is called."""
    metadata: Obj = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def address_in(cidr: str, number: int) -> str:
    """Return the n-th address of a network."""
    return str(ipaddress.ip_network(cidr)[number])


def kubelet_config_name(minor: int) -> str:
    """Return the name of the ConfigMap with the kubelets' settings; it carried the minor version until 1.23."""
    return "kubelet-config" if releases.since(minor, "kubelet_config_unnumbered") else f"kubelet-config-1.{minor}"


def _over(base: Obj, said: Obj) -> Obj:
    """Return `base` with what was said put over it, field by field."""
    put = {
        key: _over(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in said.items()
    }
    return base | put


def kubelet_config(minor: int, service_cidr: str, said: Obj) -> Obj:
    """Return a KubeletConfiguration as kubeadm completes it."""
    defaults = releases.kubelet_defaults(minor) | {"clusterDNS": [address_in(service_cidr, 10)]}
    kind = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"}
    return _over(defaults | kind, said)


def _kubeadm_config(host: HostState, config: ClusterConfig) -> dict[str, str]:
    version = "v1beta4" if config.minor >= 31 else "v1beta3" if config.minor >= 22 else "v1beta2"
    api_version = f"kubeadm.k8s.io/{version}"
    networking = {
        "dnsDomain": config.dns_domain,
        "podSubnet": config.pod_cidr,
        "serviceSubnet": config.service_cidr,
    }
    cluster: Obj = {
        "apiVersion": api_version,
        "kind": "ClusterConfiguration",
        "apiServer": {},
        "certificatesDir": "/etc/kubernetes/pki",
        "controllerManager": {},
        "dns": {},
        "etcd": {"local": {"dataDir": "/var/lib/etcd"}},
        "scheduler": {},
        "clusterName": config.cluster_name,
        "imageRepository": config.repository,
        "kubernetesVersion": config.version,
        "networking": networking,
    }
    if config.minor < 22:
        cluster |= {"apiServer": {"timeoutForControlPlane": "4m0s"}, "dns": {"type": "CoreDNS"}}
    if config.minor >= 31:  # v1beta4
        cluster |= {
            "caCertificateValidityPeriod": "87600h0m0s",
            "certificateValidityPeriod": "8760h0m0s",
            "encryptionAlgorithm": "RSA-2048",
            "proxy": {},
        }
    if config.endpoint:
        cluster["controlPlaneEndpoint"] = config.endpoint
    data = {"ClusterConfiguration": yaml.safe_dump(cluster)}
    if config.minor < 22:
        endpoints = {host.name: {"advertiseAddress": host.address, "bindPort": 6443}}
        status = {"apiVersion": api_version, "kind": "ClusterStatus", "apiEndpoints": endpoints}
        data["ClusterStatus"] = yaml.safe_dump(status)
    return data


def settings(host: HostState, config: ClusterConfig, endpoint: str, info: str) -> list[Obj]:
    """Return the ConfigMaps that kubeadm keeps its settings in, and cluster-info."""
    said = {"clusterDomain": config.dns_domain, **config.kubelet}
    kubelet = kubelet_config(config.minor, config.service_cidr, said)
    proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clusterCIDR": config.pod_cidr,
        **config.kube_proxy,
    }
    maps = {
        ("kube-system", "kubeadm-config"): _kubeadm_config(host, config),
        ("kube-system", kubelet_config_name(config.minor)): {"kubelet": yaml.safe_dump(kubelet)},
        ("kube-system", "kube-proxy"): {"config.conf": yaml.safe_dump(proxy), "server": endpoint},
        ("kube-system", "coredns"): {"Corefile": f".:53 {{\n    kubernetes {config.dns_domain}\n}}\n"},
        ("kube-public", "cluster-info"): {"kubeconfig": info},
    }
    return [{**head("v1", "ConfigMap", one, place), "data": content} for (place, one), content in maps.items()]


def services(config: ClusterConfig) -> list[Obj]:
    """Return the API's own Service and that of the cluster's DNS."""
    api = head("v1", "Service", "kubernetes", "default")
    api["metadata"]["labels"] = {"component": "apiserver", "provider": "kubernetes"}
    first, tenth = address_in(config.service_cidr, 1), address_in(config.service_cidr, 10)
    ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}]
    api["spec"] = {"clusterIP": first, "clusterIPs": [first], "ports": ports}
    dns = head("v1", "Service", "kube-dns", "kube-system")
    dns["metadata"]["labels"] = {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}
    dns_ports = [
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
    ]
    dns["spec"] = {"clusterIP": tenth, "clusterIPs": [tenth], "ports": dns_ports, "selector": {"k8s-app": "kube-dns"}}
    return [api, dns]


def _kube_proxy(config: ClusterConfig) -> Obj:
    labels = {"k8s-app": "kube-proxy"}
    container = {
        "name": "kube-proxy",
        "image": images(config)["kube-proxy"],
        "command": ["/usr/local/bin/kube-proxy"],
    }
    spec = {
        "hostNetwork": True,
        "serviceAccountName": "kube-proxy",
        "priorityClassName": "system-node-critical",
        "tolerations": [{"operator": "Exists"}],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "containers": [container],
    }
    obj = head("apps/v1", "DaemonSet", "kube-proxy", "kube-system")
    obj["metadata"] |= {"labels": labels, "generation": 1}
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {**obj, "spec": {"selector": {"matchLabels": labels}, "template": template}}


def _coredns(config: ClusterConfig) -> Obj:
    labels = {"k8s-app": "kube-dns"}
    role = "master" if config.minor < 24 else "control-plane"
    container = {"name": "coredns", "image": images(config)["coredns"], "args": ["-conf", "/etc/coredns/Corefile"]}
    spec = {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "tolerations": [
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
            {"key": f"node-role.kubernetes.io/{role}", "effect": "NoSchedule"},
        ],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "containers": [container],
    }
    obj = head("apps/v1", "Deployment", "coredns", "kube-system")
    obj["metadata"] |= {"labels": labels, "generation": 1}
    obj["spec"] = {
        "replicas": 2,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": spec},
    }
    return obj


def addons(config: ClusterConfig) -> list[Obj]:
    """Return kube-proxy and CoreDNS with their accounts."""
    accounts = [head("v1", "ServiceAccount", name, "kube-system") for name in ("kube-proxy", "coredns")]
    return [*accounts, _kube_proxy(config), _coredns(config)]


def priority_classes() -> list[Obj]:
    """Return the two classes that every cluster has."""
    values = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
    return [{**head("scheduling.k8s.io/v1", "PriorityClass", name), "value": value} for name, value in values.items()]


def endpoints_of_api(address: str) -> Obj:
    """Return the Endpoints of the API's own Service."""
    subset = {"addresses": [{"ip": address}], "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}]}
    return {**head("v1", "Endpoints", "kubernetes", "default"), "subsets": [subset]}
