"""Kubeadm is configured in the API of its own minor, by fields that this API has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from shipway.cluster.model import Cluster
from shipway.cluster_file import parse_cluster
from shipway.edits.containerd import Wanted, differences, edit_config, parse_config
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.kubeadm.config import PAUSE, as_yaml, init_documents, join_documents, sandbox_image
from shipway.rules.compatibility import NEWEST_KUBERNETES, OLDEST_KUBERNETES

MINORS = [(1, minor) for minor in range(OLDEST_KUBERNETES[1], NEWEST_KUBERNETES[1] + 1)]
TOKEN = "abcdef.0123456789abcdef"  # noqa: S105 - the example of kubeadm's own documentation
# Fields of kubeadm's configuration, as its reference has them (kubernetes.io, "kubeadm Configuration v1beta2/3/4").
_TOKEN = {"token", "description", "ttl", "expires", "usages", "groups"}
_NODE = {"name", "criSocket", "taints", "kubeletExtraArgs", "ignorePreflightErrors"}
_CLUSTER = {
    *("etcd", "networking", "kubernetesVersion", "controlPlaneEndpoint", "apiServer", "controllerManager"),
    *("scheduler", "dns", "certificatesDir", "imageRepository", "featureGates", "clusterName"),
}
_DISCOVERY = {"bootstrapToken", "file", "tlsBootstrapToken"}
FIELDS: dict[str, dict[str, set[str]]] = {
    "v1beta2": {
        "InitConfiguration": {"bootstrapTokens", "nodeRegistration", "localAPIEndpoint", "certificateKey"},
        "ClusterConfiguration": {*_CLUSTER, "useHyperKubeImage"},
        "JoinConfiguration": {"nodeRegistration", "caCertPath", "discovery", "controlPlane"},
        "nodeRegistration": _NODE,
        "discovery": {*_DISCOVERY, "timeout"},
    },
    "v1beta3": {
        "InitConfiguration": {
            *("bootstrapTokens", "nodeRegistration", "localAPIEndpoint", "certificateKey", "skipPhases", "patches"),
        },
        "ClusterConfiguration": _CLUSTER,
        "JoinConfiguration": {"nodeRegistration", "caCertPath", "discovery", "controlPlane", "skipPhases", "patches"},
        "nodeRegistration": {*_NODE, "imagePullPolicy"},
        "discovery": {*_DISCOVERY, "timeout"},
    },
    "v1beta4": {
        "InitConfiguration": {
            *("bootstrapTokens", "nodeRegistration", "localAPIEndpoint", "certificateKey", "skipPhases", "patches"),
            *("dryRun", "timeouts"),
        },
        "ClusterConfiguration": {
            *(*_CLUSTER, "proxy", "encryptionAlgorithm", "certificateValidityPeriod", "caCertificateValidityPeriod"),
        },
        "JoinConfiguration": {
            *("nodeRegistration", "caCertPath", "discovery", "controlPlane", "skipPhases", "patches", "dryRun"),
            "timeouts",
        },
        "nodeRegistration": {*_NODE, "imagePullPolicy", "imagePullSerial"},
        "discovery": _DISCOVERY,
        "timeouts": {
            *("controlPlaneComponentHealthCheck", "kubeletHealthCheck", "kubernetesAPICall", "etcdAPICall"),
            *("tlsBootstrap", "discovery", "upgradeManifests"),
        },
    },
}
INNER = {
    "bootstrapTokens": _TOKEN,
    "localAPIEndpoint": {"advertiseAddress", "bindPort"},
    "networking": {"serviceSubnet", "podSubnet", "dnsDomain"},
    "bootstrapToken": {"token", "apiServerEndpoint", "caCertHashes", "unsafeSkipCAVerification"},
    "controllerManager": {"extraArgs", "extraVolumes", "extraEnvs"},
}


def cluster(minor: tuple[int, int], more: str = "") -> Cluster:
    text = (
        f"name: demo\nhosts: [10.0.0.1, 10.0.0.2]\nkubernetes: {{version: {minor[0]}.{minor[1]}.0{more}}}\n"
        "runtime: {version: null}\n"
    )
    return parse_cluster(text)


def documents(made: Cluster) -> list[dict[str, Any]]:
    both = [*init_documents(made, made.hosts[0]), *join_documents(made, made.hosts[1], TOKEN, "sha256:00")]
    return list(yaml.safe_load_all(as_yaml(both)))


def parts(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every mapping with the name it stands under."""
    yield document["kind"], {key: value for key, value in document.items() if key not in ("apiVersion", "kind")}
    waiting = list(document.items())
    while waiting:
        name, value = waiting.pop()
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield name, one
                waiting += list(one.items())


@pytest.mark.parametrize("minor", MINORS, ids=lambda minor: f"1.{minor[1]}")
def test_every_field_is_one_of_this_minors_api(minor: tuple[int, int]) -> None:
    api = "v1beta2" if minor < (1, 22) else "v1beta3" if minor < (1, 31) else "v1beta4"
    for document in documents(cluster(minor)):
        if not document["apiVersion"].startswith("kubeadm."):
            continue
        assert document["apiVersion"] == f"kubeadm.k8s.io/{api}"
        for name, part in parts(document):
            known = FIELDS[api].get(name) or INNER.get(name)
            if known is not None:
                assert set(part) <= known, (name, part)
        shape = list if api == "v1beta4" else dict
        node = document.get("nodeRegistration", {}).get("kubeletExtraArgs")
        manager = document.get("controllerManager", {}).get("extraArgs")
        assert all(isinstance(one, shape) for one in (node, manager) if one is not None)


@pytest.mark.parametrize("minor", MINORS, ids=lambda minor: f"1.{minor[1]}")
def test_cgroup_v1_is_let_in_by_name_alone_and_only_where_it_was_given_up(minor: tuple[int, int]) -> None:
    for allowed in (False, True):
        made = documents(cluster(minor, ", allow_cgroup_v1: true" if allowed else ""))
        kubelet = next(one for one in made if one["kind"] == "KubeletConfiguration")
        ignored = [one["nodeRegistration"].get("ignorePreflightErrors") for one in made if "nodeRegistration" in one]
        if allowed and minor >= (1, 35):
            assert kubelet["failCgroupV1"] is False
            assert ignored == [["SystemVerification"], ["SystemVerification"]]
        else:
            assert "failCgroupV1" not in kubelet
            assert ignored == [None, None]
        assert kubelet["cgroupDriver"] == "systemd"


@pytest.mark.parametrize("minor", MINORS, ids=lambda minor: f"1.{minor[1]}")
def test_a_join_looks_a_minute_for_its_token_where_this_minors_api_says_so(minor: tuple[int, int]) -> None:
    join = documents(cluster(minor))[-1]
    assert join["kind"] == "JoinConfiguration"
    assert join["discovery"].get("timeout") == (None if minor >= (1, 31) else "60s")
    assert join.get("timeouts") == ({"discovery": "60s"} if minor >= (1, 31) else None)


def test_what_is_declared_stands_in_the_configuration() -> None:
    text = """
name: demo
hosts: [{name: cp, address: gate.example, node_ip: 10.0.0.5}, {name: w, address: 10.0.0.6}]
kubernetes:
  version: 1.31.7
  pod_network: 10.200.0.0/16
  service_network: 10.100.0.0/16
  node_mask: 26
  api_endpoint: api.example:7443
  api_port: 7443
  image_repository: mirror:5000/k8s
  kubelet: {maxPods: 50}
  kube_proxy: {mode: ipvs}
runtime: {version: 1.7.27}
"""
    made = parse_cluster(text)
    init, declared, kubelet, proxy, join = documents(made)
    assert init["localAPIEndpoint"] == {"advertiseAddress": "10.0.0.5", "bindPort": 7443}
    assert init["nodeRegistration"]["kubeletExtraArgs"] == [{"name": "node-ip", "value": "10.0.0.5"}]
    assert "token" not in init["bootstrapTokens"][0]
    assert declared["controlPlaneEndpoint"] == "api.example:7443"
    assert declared["imageRepository"] == "mirror:5000/k8s"
    assert declared["networking"] == {"podSubnet": "10.200.0.0/16", "serviceSubnet": "10.100.0.0/16"}
    assert declared["controllerManager"]["extraArgs"] == [{"name": "node-cidr-mask-size", "value": "26"}]
    assert (kubelet["maxPods"], proxy["mode"], kubelet["cgroupDriver"]) == (50, "ipvs", "systemd")
    assert join["nodeRegistration"]["name"] == "w"
    assert join["discovery"]["bootstrapToken"]["apiServerEndpoint"] == "api.example:7443"
    assert sandbox_image(made) == "mirror:5000/k8s/pause:3.10"


def test_every_known_minor_has_its_pause_image() -> None:
    assert {minor for _, minor in MINORS} <= set(PAUSE)
    assert sandbox_image(cluster((1, 24))).startswith("k8s.gcr.io/")
    assert sandbox_image(cluster((1, 25))).startswith("registry.k8s.io/")


@pytest.mark.parametrize("layout", [2, 3, 4])
@pytest.mark.parametrize("default", [False, True])
def test_each_layout_of_containerd_gets_the_settings_where_it_has_them(layout: int, *, default: bool) -> None:
    wanted = Wanted("mirror/pause:3.10", runtime=NVIDIA.runtime, by_default=default)
    cri = "io.containerd.grpc.v1.cri" if layout == 2 else "io.containerd.cri.v1.runtime"
    file = f'version = {layout}\ndisabled_plugins = ["{cri}", "io.containerd.snapshotter.v1.zfs"]\n'
    text = edit_config(file, f"version = {layout}\n", wanted)
    data = parse_config(text)
    assert data["version"] == layout
    assert data["disabled_plugins"] == ["io.containerd.snapshotter.v1.zfs"]
    engine = data["plugins"][cri]["containerd"]
    assert engine["default_runtime_name"] == ("nvidia" if default else "runc")
    assert all(engine["runtimes"][name]["options"]["SystemdCgroup"] is True for name in ("runc", "nvidia"))
    images = data["plugins"][cri if layout == 2 else "io.containerd.cri.v1.images"]
    sandbox = images["sandbox_image"] if layout == 2 else images["pinned_images"]["sandbox"]
    assert sandbox == "mirror/pause:3.10"
    assert images["registry"] == {"config_path": "/etc/containerd/certs.d"}
    assert differences(text, wanted) == []
    assert differences(edit_config(text, text, Wanted("other/pause:1", runtime=NVIDIA.runtime)), wanted) != []
