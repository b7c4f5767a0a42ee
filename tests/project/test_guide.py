"""The profile `seed` renders what the guide does by hand, value by value."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import pytest

from shipway.cluster.model import Cluster
from shipway.cluster_file import parse_cluster
from shipway.edits.files import FileEdited, FileIs
from shipway.gpu.health.quarantine import TAINT
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.gpu.pods import pod_with_gpu as pod_of
from shipway.host.session import Host
from shipway.kube.manifests import render
from shipway.kubeadm.config import init_documents, join_documents
from shipway.os.debian.apt import RepositoryIs, fill_address
from shipway.os.debian.packages import BaseUpgraded, PackagesHeld, PackagesInstalled
from shipway.step import Check
from shipway.steps.kubernetes.nodes import CONTROL_PLANE_TAINTS, NodeUntainted
from shipway.steps.kubernetes.user_kubeconfig import UserHasKubeconfig
from shipway.steps.system.base import HostnameIs
from shipway.steps.system.kernel import ModulesAtBoot
from shipway.steps.system.names import HostsNamed
from shipway.steps.system.services import ServiceEnabled, ServiceRuns
from tasks import gates
from tasks.stages import (
    container_runtime,
    control_plane,
    dashboard,
    device_plugin,
    kubernetes_packages,
    nvidia_runtime,
    pod_network,
    prepare_system,
)
from tests.places.facts import DEBIAN

S = TypeVar("S")
JAMMY = {"ID": "ubuntu", "VERSION_CODENAME": "jammy", "arch": "amd64"}
CONTROL = "node-role.kubernetes.io/control-plane"


@pytest.fixture
def guide() -> Cluster:
    """Return the guide's cluster: te1 and te2 on Ubuntu, one GPU each."""
    hosts = "[{name: te1, address: 10.0.0.1}, {name: te2, address: 10.0.0.2}]"
    return parse_cluster(f"name: te\nprofile: seed\nhosts: {hosts}\nssh: {{user: ops}}\n")


def of(kind: type[S], steps: list[Any]) -> list[S]:
    return [step for step in steps if type(step) is kind]


def files(steps: list[Any]) -> dict[str, str]:
    return {step.path: step.content for step in of(FileIs, steps)}


def source(steps: list[Any]) -> tuple[str, str]:
    step = of(RepositoryIs, [getattr(one, "step", one) for one in steps])[0]
    parts = (step.repository.uri, step.repository.suite, *step.repository.components)
    return " ".join(fill_address(part, JAMMY, step.minor) for part in parts), str(step.repository.key.fingerprint)


def test_s1_and_s2_the_base_system_and_the_kernel(guide: Cluster) -> None:
    steps: list[Check[Host]] = prepare_system.steps(guide, guide.hosts[0], DEBIAN)
    assert len(of(BaseUpgraded, steps)) == 1
    assert list(of(PackagesInstalled, steps)[0].packages) == [
        *("apt-transport-https", "ca-certificates", "curl", "gnupg", "gpg", "lsb-release", "software-properties-common")
    ]
    assert of(HostnameIs, steps)[0].hostname == "te1"
    edits = {step.path: step.edit for step in of(FileEdited, steps)}
    (hosts,) = of(HostsNamed, steps)
    assert (hosts.path, hosts.entries) == ("/etc/hosts", {"te1": "10.0.0.1", "te2": "10.0.0.2"})
    assert edits["/etc/fstab"]("/swap.img none swap sw 0 0\n").startswith("#")
    modules = {step.path: step.modules for step in of(ModulesAtBoot, steps)}
    assert list(modules["/etc/modules-load.d/k8s.conf"]) == [
        *("overlay", "br_netfilter", "ip_tables", "iptable_nat", "nf_nat")
    ]
    settings = edits["/etc/sysctl.d/k8s.conf"]("").replace(" ", "").split()
    bridge = "net.bridge.bridge-nf-call-"
    assert settings == [f"{bridge}iptables=1", f"{bridge}ip6tables=1", "net.ipv4.ip_forward=1"]


def test_s3_the_container_runtime(guide: Cluster) -> None:
    steps = container_runtime.steps(guide, guide.hosts[0], DEBIAN)
    docker = ("https://download.docker.com/linux/ubuntu jammy stable", "9DC858229FC7DD38854AE2D88D81803C0EBFCD88")
    assert source(steps) == docker
    assert set(of(PackagesInstalled, steps)[0].packages) == {"containerd.io", "docker-ce-cli"}
    assert ServiceRuns("containerd") in steps


def test_s4_the_nvidia_toolkit(guide: Cluster) -> None:
    steps = nvidia_runtime.steps(guide, guide.hosts[0], DEBIAN)
    uri, fingerprint = source(steps)
    assert uri == "https://nvidia.github.io/libnvidia-container/stable/deb/amd64 /"
    assert fingerprint == "C95B321B61E88C1809C4F759DDCAE044F796ECB0"
    (installed,) = of(PackagesInstalled, [getattr(one, "step", one) for one in steps])
    assert installed.packages["nvidia-container-toolkit"] == "1.17.8"
    assert container_runtime.wanted_config(guide, NVIDIA.runtime).runtime == NVIDIA.runtime


def test_s5_the_kubernetes_packages(guide: Cluster) -> None:
    steps = kubernetes_packages.steps(guide, guide.hosts[0], DEBIAN)
    assert source(steps)[0] == "https://pkgs.k8s.io/core:/stable:/v1.31/deb/ /"
    assert of(PackagesInstalled, steps)[0].packages == dict.fromkeys(("kubelet", "kubeadm", "kubectl"), "1.31.7")
    assert of(PackagesHeld, steps)[0].packages == ("kubelet", "kubeadm", "kubectl")
    assert ServiceEnabled("kubelet") in steps


def test_s6_and_s9_the_control_plane_and_the_workers(guide: Cluster) -> None:
    _, declared, _ = init_documents(guide, guide.hosts[0])
    assert (declared["kubernetesVersion"], declared["networking"]["podSubnet"]) == ("v1.31.7", "10.244.64.0/20")
    kubeconfig = of(UserHasKubeconfig, control_plane.steps(guide, guide.hosts[0], DEBIAN))
    assert kubeconfig == [UserHasKubeconfig("ops")]
    (join,) = join_documents(guide, guide.hosts[1], "t", "sha256:h")
    assert join["nodeRegistration"]["name"] == "te2"
    assert join["discovery"]["bootstrapToken"] == {
        "apiServerEndpoint": "api.te.internal:6443",
        "token": "t",
        "caCertHashes": ["sha256:h"],
    }
    alone = parse_cluster("name: te\nprofile: seed\nhosts: [{name: te1, address: 10.0.0.1}]\n")
    untaint = of(NodeUntainted, gates.node_steps(alone, alone.hosts[0], 1))
    assert untaint == [NodeUntainted("te1")]
    assert CONTROL in CONTROL_PLANE_TAINTS
    assert not of(NodeUntainted, gates.node_steps(guide, guide.hosts[0], 1))


def test_s7_the_pod_network(guide: Cluster) -> None:
    operator, installation, api = pod_network.steps(guide)
    assert "/projectcalico/calico/v3.26.1/manifests/tigera-operator.yaml" in str(operator)
    (declared,) = cast("Any", installation).objects
    assert (declared["apiVersion"], declared["metadata"]["name"]) == ("operator.tigera.io/v1", "default")
    assert declared["spec"]["calicoNetwork"]["ipPools"] == [
        {
            "blockSize": 26,
            "cidr": "10.244.64.0/20",
            "encapsulation": "VXLANCrossSubnet",
            "natOutgoing": "Enabled",
            "nodeSelector": "all()",
        }
    ]
    assert [obj["kind"] for obj in cast("Any", api).objects] == ["APIServer"]


def test_s8_the_device_plugin_in_both_ways(guide: Cluster) -> None:
    key_step = device_plugin.daemon_set(guide)[0]["spec"]["template"]["spec"]
    assert key_step["runtimeClassName"] == "nvidia"
    assert key_step["containers"][0]["image"] == "nvcr.io/nvidia/k8s-device-plugin:v0.17.1"
    (runtime_class,) = render("runtime-class/nvidia.yaml")
    assert (runtime_class["metadata"]["name"], runtime_class["handler"]) == ("nvidia", "nvidia")
    static = guide.model_copy(update={"gpu": guide.gpu.model_copy(update={"mode": "default_runtime"})})
    as_it_is = device_plugin.daemon_set(static)[0]["spec"]["template"]["spec"]
    assert "runtimeClassName" not in as_it_is
    assert "nodeSelector" not in as_it_is


async def test_s10_the_dashboard(guide: Cluster) -> None:
    parts, _, login, token = dashboard.steps(guide)
    assert "/kubernetes/dashboard/v2.7.0/aio/deploy/recommended.yaml" in str(parts)
    meta = {"name": "kubernetes-dashboard", "namespace": "kubernetes-dashboard"}
    (service,) = dashboard.on_node_port([{"kind": "Service", "metadata": meta, "spec": {}}], guide.dashboard.node_port)
    assert service["spec"] == {"type": "NodePort", "ports": [{"port": 443, "targetPort": 8443, "nodePort": 31000}]}
    account, binding = cast("Any", login).objects
    assert (account["kind"], account["metadata"]["name"]) == ("ServiceAccount", "admin-user")
    assert binding["roleRef"]["name"] == "cluster-admin"
    assert isinstance(token, dashboard.TokenFile)
    assert dashboard.TOKEN_SECONDS == 24 * 3600


def test_s11_the_test_pods(guide: Cluster) -> None:
    spec = pod_of(guide, "gpu-test-1")["spec"]
    assert spec["containers"][0]["image"] == "nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0"
    assert spec["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    guides, ours = spec["tolerations"]  # ours: a node that is kept from pods is proven before it is opened
    assert guides == {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert ours == {"key": TAINT, "operator": "Exists", "effect": "NoSchedule"}
    assert (spec["restartPolicy"], spec["runtimeClassName"]) == ("Never", "nvidia")
