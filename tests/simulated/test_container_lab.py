"""The container lab takes any Kubernetes into its bundle: what it makes of programs that somebody else has built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_asyncio import client

from lab.containers import cluster_file, images_part
from lab.containers.commands import LabError
from lab.containers.kubernetes import PROGRAMS, VARIABLE, Kubernetes, chosen
from lab.containers.kubernetes_packages import kubernetes_debs
from lab.containers.model import plan
from lab.containers.places import ASSETS, MANIFESTS
from tests.simulated.test_kube_support import place

KUBEADM = """#!/bin/sh
# Answers `kubeadm config images list` as 1.36.2 does.
for word; do
    case "$word" in --image-repository=*) host=${word#*=};; --kubernetes-version=*) version=${word#*=};; esac
done
for part in kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do echo "$host/$part:$version"; done
printf '%s\\n' "$host/coredns:v1.14.2" "$host/pause:3.10.2" "$host/etcd:3.6.8-0"
"""
Describe = Callable[..., Path]


@pytest.fixture
def describe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Describe:
    """Return what writes a description, and programs beside it, and makes the lab take them."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).write_text(KUBEADM if name == "kubeadm" else name)
        (programs / name).chmod(0o755)

    def write(**more: object) -> Path:
        path = tmp_path / "kubernetes.yaml"
        path.write_text(yaml.safe_dump({"version": "1.36.2", "programs": "programs", **more}))
        monkeypatch.setenv(VARIABLE, str(path))
        return path

    return write


def _fields(kubernetes: Kubernetes, tmp_path: Path) -> dict[str, tuple[str, str | None]]:
    plugins = tmp_path / "plugins"
    plugins.mkdir(exist_ok=True)
    debs = kubernetes_debs(kubernetes, Path("/programs"), Path("/stand-ins"), plugins)
    return {deb.name: (deb.version, deb.fields.get("Depends")) for deb in debs}


def test_without_a_description_the_packages_are_those_of_1_20(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    needs = "kubelet (>= 1.13.0), kubectl (>= 1.13.0), kubernetes-cni (>= 0.8.7), cri-tools (>= 1.13.0)"
    found = _fields(chosen(), tmp_path)
    assert found["kubeadm"] == ("1.20.2-00", needs)
    assert found["cri-tools"] == ("1.20.0-00", None)
    assert chosen().image_names("pause", tmp_path) == ("pause:3.2",)


def test_packages_of_a_described_version_have_its_shape(describe: Describe, tmp_path: Path) -> None:
    describe(packages={"kubernetes-cni": "1.8.0-1.1"})
    found = _fields(chosen(), tmp_path)
    assert found["kubeadm"] == ("1.36.2-1.1", None), "neither crictl nor the kubelet comes with it"
    assert found["kubelet"] == ("1.36.2-1.1", "kubernetes-cni, mount, util-linux")
    assert found["kubernetes-cni"] == ("1.8.0-1.1", None)
    kubelet = kubernetes_debs(chosen(), tmp_path, tmp_path, tmp_path)[0]
    assert "/etc/kubernetes/manifests/.kubelet-keep" in kubelet.texts


def test_images_are_named_as_the_kubeadm_that_was_brought_asks_for_them(describe: Describe, tmp_path: Path) -> None:
    describe(device_plugin="v0.19.3", images={"pause": ["pause:3.10.1"]})
    kubernetes = chosen()
    programs = kubernetes.folder(Path("/nowhere"))
    (programs / "etcd").write_text("brought")
    busybox = tmp_path / "tools" / "tools" / "bin" / "busybox"
    busybox.parent.mkdir(parents=True)
    busybox.write_text("#!/bin/sh\necho sh\n")
    busybox.chmod(0o755)
    made = images_part.images(kubernetes, programs, tmp_path, tmp_path / "tools")
    names = {name for image in made for name in image.names}
    assert {"coredns:v1.14.2", "coredns/coredns:v1.14.2", "pause:3.10.2", "pause:3.10.1", "etcd:3.6.8-0"} <= names
    assert {"kube-apiserver:v1.36.2", "kube-proxy:v1.36.2", "nvidia/k8s-device-plugin:v0.19.3"} <= names
    etcd = next(image for image in made if image.names == ("etcd:3.6.8-0",))
    assert etcd.files["/usr/local/bin/etcd"] == programs / "etcd"


def test_other_programs_of_the_same_version_make_another_bundle(describe: Describe) -> None:
    describe()
    before = chosen().recipe()
    (chosen().folder(Path()) / "kubelet").write_text("built anew")
    assert chosen().recipe() != before


def test_the_description_is_put_over_the_cluster_file(describe: Describe, tmp_path: Path) -> None:
    describe(cluster={"profile": "current", "kubernetes": {"allow_cgroup_v1": True}})
    data = cluster_file.content(plan("cp1,w1"), tmp_path)
    assert (data["profile"], data["kubernetes"]) == ("current", {"allow_cgroup_v1": True})
    assert data["sources"]["apt"]["kubernetes"]["uri"].endswith("/apt/kubernetes")


def test_a_description_that_cannot_be_used_is_reported(describe: Describe, tmp_path: Path) -> None:
    describe(colour="green")
    with pytest.raises(LabError, match="nothing but"):
        chosen()
    path = describe()
    (tmp_path / "programs" / "kube-proxy").unlink()
    with pytest.raises(LabError, match="has no kube-proxy"):
        chosen()
    path.unlink()
    with pytest.raises(LabError, match="cannot be read"):
        chosen()


def test_the_pod_network_reads_nodes_by_an_account_of_its_own() -> None:
    documents = list(yaml.safe_load_all((MANIFESTS / "lab-cni.yaml").read_text()))
    kinds = {document["kind"]: document for document in documents}
    assert kinds["ClusterRole"]["rules"] == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}]
    spec = kinds["DaemonSet"]["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == kinds["ServiceAccount"]["metadata"]["name"]
    assert [volume["hostPath"]["path"] for volume in spec["volumes"]] == ["/etc/cni/net.d"]
    assert "kubelet.conf" not in (ASSETS / "images" / "lab-cni-agent").read_text()


async def test_the_account_of_the_pod_network_may_list_nodes_where_a_kubelet_may_not(tmp_path: Path) -> None:
    async with place(tmp_path, version="v1.36.2") as where:
        for document in yaml.safe_load_all((MANIFESTS / "lab-cni.yaml").read_text()):
            await where.apply(yaml.safe_dump(document))
        asked: Any = {"spec": {"expirationSeconds": 3600, "audiences": None}}
        core = client.CoreV1Api(where.admin)
        token = (await core.create_namespaced_service_account_token("lab-cni", "kube-system", asked)).status.token
        nobody = where.cluster.kubeconfig_for("x", ()).replace("client-", "unused-")
        codes = [
            (await where.call("GET", path, kubeconfig=nobody, Authorization=f"Bearer {token}"))[0]
            for path in ("/api/v1/nodes", "/api/v1/pods", "/api/v1/namespaces/kube-system/secrets")
        ]
        assert codes == [200, 403, 403]
        kubelet = where.cluster.kubelet_kubeconfig("cp1")
        assert (await where.call("GET", "/api/v1/nodes", kubeconfig=kubelet))[0] == 403
