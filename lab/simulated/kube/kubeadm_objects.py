"""The objects that a fresh cluster holds after `kubeadm init`: settings, roles, services, addons."""

from __future__ import annotations

import hashlib
import ipaddress

import yaml

from lab.simulated import recorded, releases

from .hosts import SimpleHost
from .objects import Obj
from .world import ClusterConfig

NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


def address_in(cidr: str, number: int) -> str:
    """Return the n-th address of a network."""
    return str(ipaddress.ip_network(cidr)[number])


def _kubelet_config_name(minor: int) -> str:
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


def _kubeadm_config(host: SimpleHost, config: ClusterConfig) -> dict[str, str]:
    version = "v1beta4" if config.minor >= 31 else "v1beta3" if config.minor >= 22 else "v1beta2"
    api_version = f"kubeadm.k8s.io/{version}"
    cluster: Obj = {
        **recorded.table("cluster_configuration.yaml")[version],
        "apiVersion": api_version,
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
        endpoints = {host.name: {"advertiseAddress": host.address, "bindPort": 6443}}
        status = {"apiVersion": api_version, "kind": "ClusterStatus", "apiEndpoints": endpoints}
        data["ClusterStatus"] = yaml.safe_dump(status)
    return data


def _proxy_kubeconfig(server: str) -> Obj:
    """Return the way of kube-proxy's pods to the API, as kubeadm writes it (app/phases/addons/proxy/manifests.go)."""
    secrets = "/var/run/secrets/kubernetes.io/serviceaccount"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"cluster": {"certificate-authority": f"{secrets}/ca.crt", "server": server}, "name": "default"}],
        "contexts": [{"context": {"cluster": "default", "namespace": "default", "user": "default"}, "name": "default"}],
        "current-context": "default",
        "users": [{"name": "default", "user": {"tokenFile": f"{secrets}/token"}}],
    }


def _settings(host: SimpleHost, config: ClusterConfig, endpoint: str, info: str) -> list[Obj]:
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
        ("kube-system", _kubelet_config_name(config.minor)): {"kubelet": yaml.safe_dump(kubelet)},
        ("kube-system", "kube-proxy"): {
            "config.conf": yaml.safe_dump(proxy),
            "kubeconfig.conf": yaml.safe_dump(_proxy_kubeconfig(endpoint)),
        },
        ("kube-public", "cluster-info"): {"kubeconfig": info},
    }
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}
        for (namespace, name), data in maps.items()
    ]


def objects(host: SimpleHost, config: ClusterConfig, endpoint: str, info: str) -> list[Obj]:
    """Return all that init leaves in a cluster but for namespaces, nodes and tokens; `info` is a bare kubeconfig."""
    images = releases.images(config.version, config.image_repository)
    made = recorded.documents(
        "kube_system.yaml",
        address=host.address,
        api_address=address_in(config.service_cidr, 1),
        dns_address=address_in(config.service_cidr, 10),
        dns_domain=config.dns_domain,
        kubelet_config=_kubelet_config_name(config.minor),
        kube_proxy_image=images["kube-proxy"],
        coredns_image=images["coredns"],
        role="master" if config.minor < 24 else "control-plane",
    )
    # Since 1.29 admin.conf is no longer in system:masters, and so needs this binding.
    late = {"kubeadm:cluster-admins"} if config.minor < 29 else set()
    return [*(one for one in made if one["metadata"]["name"] not in late), *_settings(host, config, endpoint, info)]


def static_pods(host: SimpleHost, node: Obj, config: ClusterConfig) -> list[Obj]:
    """Return the mirror pods of a control-plane host."""
    images = releases.images(config.version, config.image_repository)
    made = []
    for component, part in recorded.table("static_pods.yaml").items():
        [pod] = recorded.documents(
            "mirror_pod.yaml",
            component=component,
            node=host.name,
            uid=node["metadata"]["uid"],
            digest=hashlib.sha256(f"{component}/{config.version}".encode()).hexdigest()[:32],
            image=images[component],
            path=part["path"],
            port=part["port"],
        )
        if component == "kube-apiserver":
            pod["spec"]["containers"][0]["command"].append(f"--advertise-address={host.address}")
        made.append(pod)
    return made
