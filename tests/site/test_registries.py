"""Registries as sites have them: mirrors with a path, an own authority, credentials, one registry by several names."""

from __future__ import annotations

import base64
import tomllib
from pathlib import Path

import pytest

from shipway.cluster.model import Cluster
from shipway.cluster.secrets import keep
from shipway.cluster_file import load_cluster, parse_cluster
from shipway.errors import Refused
from shipway.kubeadm.config import image_repository
from shipway.site.registries import api_root, registry_files
from shipway.steps.system.origins import origins
from tasks.stages import container_runtime
from tests.places.facts import DEBIAN

HOSTS = "name: demo\nhosts: [{name: cp, address: 10.0.0.1}]\n"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
HARBOR = "https://harbor.corp.example/v2/k8s-proxy"


def cluster(text: str, folder: Path | None = None) -> Cluster:
    return parse_cluster(HOSTS + text, folder=folder)


def mirrored(registry: str, url: str) -> str:
    made = cluster(f"sources: {{registry_mirrors: {{{registry}: '{url}'}}}}\n")
    (file,) = registry_files(made)
    return file.text


def test_a_mirror_with_a_path_is_asked_there_and_nowhere_else() -> None:
    assert tomllib.loads(mirrored("registry.k8s.io", HARBOR)) == {
        "server": "https://registry.k8s.io",
        "host": {HARBOR: {"capabilities": ["pull", "resolve"], "override_path": True}},
    }
    behind = tomllib.loads(mirrored("quay.io", "https://art.corp.example/api/docker/quay/v2/"))
    assert behind["host"] == {
        "https://art.corp.example/api/docker/quay/v2": {"capabilities": ["pull", "resolve"], "override_path": True}
    }


@pytest.mark.parametrize("url", ["http://mirror:5000", "http://mirror:5000/"])
def test_a_mirror_without_a_path_is_left_to_containerd(url: str) -> None:
    assert tomllib.loads(mirrored("quay.io", url))["host"] == {
        "http://mirror:5000": {"capabilities": ["pull", "resolve"]}
    }


@pytest.mark.parametrize("path", ["k8s-proxy", "a/b", "v2x", "artifactory/docker"])
def test_a_path_without_v2_is_refused_with_the_two_ways_it_may_be_meant(path: str) -> None:
    with pytest.raises(Refused) as raised:
        mirrored("quay.io", f"https://h.example/{path}")
    assert f"https://h.example/v2/{path}" in raised.value.message
    assert f"https://h.example/{path}/v2" in raised.value.message


def test_the_default_mirror_has_no_server_of_its_own() -> None:
    assert set(tomllib.loads(mirrored("_default", "http://mirror:5000"))) == {"host"}


@pytest.mark.parametrize(
    ("url", "root"),
    [
        (HARBOR, "https://harbor.corp.example/v2/"),
        ("https://art.corp.example/api/docker/quay/v2", "https://art.corp.example/api/docker/quay/v2/"),
        ("http://mirror:5000", "http://mirror:5000/v2/"),
    ],
)
def test_preflight_asks_a_mirror_where_a_registry_answers(url: str, root: str) -> None:
    assert api_root(url) == root
    made = cluster(f"sources: {{registry_mirrors: {{quay.io: '{url}'}}}}\n")
    assert root in {source.url for source in origins(made, made.hosts[0], DEBIAN)}


@pytest.mark.parametrize("name", ["docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"])
def test_dockers_registry_has_one_name(name: str) -> None:
    made = cluster(f"sources: {{registry_mirrors: {{{name}: 'http://mirror:5000'}}}}\n")
    (file,) = registry_files(made)
    assert file.path == "/etc/containerd/certs.d/docker.io/hosts.toml"
    assert tomllib.loads(file.text)["server"] == "https://registry-1.docker.io"
    made = cluster(f"device_plugin: {{image: {name}/nvidia/k8s-device-plugin}}\n")
    assert made.device_plugin.image == "docker.io/nvidia/k8s-device-plugin"


def test_dockers_registry_under_two_of_its_names_is_refused() -> None:
    text = "sources: {registry_mirrors: {docker.io: 'http://a:1', index.docker.io: 'http://b:1'}}\n"
    with pytest.raises(Refused, match="names one registry 2 times"):
        cluster(text)


def test_authority_and_credentials_go_where_containerd_reads_them(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(PEM)
    (tmp_path / "harbor.secret").write_text("robot$k8s:pass:word\n")
    (tmp_path / "harbor.secret").chmod(0o600)
    made = cluster(
        "kubernetes: {image_repository: harbor.corp.example/k8s}\n"
        f"sources:\n  registry_mirrors: {{quay.io: '{HARBOR}'}}\n"
        "  registries: {harbor.corp.example: {ca: ca.pem, credentials: harbor.secret}}\n",
        tmp_path,
    )
    files = {file.path.removeprefix("/etc/containerd/certs.d/"): file for file in registry_files(made)}
    assert set(files) == {
        "harbor.corp.example/shipway-ca.crt",
        "quay.io/hosts.toml",
        "harbor.corp.example/hosts.toml",
    }
    assert files["harbor.corp.example/shipway-ca.crt"].text == PEM
    basic = base64.b64encode(b"robot$k8s:pass:word").decode()
    for name, url in (("quay.io", HARBOR), ("harbor.corp.example", "https://harbor.corp.example")):
        file = files[f"{name}/hosts.toml"]
        door = tomllib.loads(file.text)["host"][url]
        assert door["ca"] == "/etc/containerd/certs.d/harbor.corp.example/shipway-ca.crt"
        assert door["header"] == {"authorization": f"Basic {basic}"}
        assert file.mode == "600"
    steps = container_runtime.steps(made, made.hosts[0], DEBIAN)
    assert basic not in repr(steps)
    assert {source.own_ca for source in origins(made, made.hosts[0], DEBIAN) if "harbor" in source.url} == {True}


def test_a_password_is_never_sent_over_plain_http() -> None:
    keep("mirror", "u:p")
    made = cluster(
        "sources: {registry_mirrors: {quay.io: 'http://mirror:5000'}, registries: {'mirror:5000': "
        "{credentials: 'block:mirror'}}}\n"
    )
    text = next(file.text for file in registry_files(made) if "quay.io" in file.path)
    assert "authorization" not in text


def test_what_cannot_work_is_refused_when_the_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="Docker Hub takes tokens alone"):
        cluster("sources: {registries: {index.docker.io: {credentials: x.secret}}}\n", tmp_path)
    (tmp_path / "ca.pem").write_text("no certificate")
    made = cluster("sources: {registries: {h.example: {ca: ca.pem}}}\n", tmp_path)
    with pytest.raises(Refused, match="holds no certificate in PEM") as raised:
        registry_files(made)
    assert raised.value.code == "SHW-353"
    file = tmp_path / "cluster.yaml"
    file.write_text(f"{HOSTS}sources: {{registries: {{h.example: {{ca: none.pem, credentials: none.secret}}}}}}\n")
    with pytest.raises(Refused, match="2 faults"):
        load_cluster(file)


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        ("registry.aliyuncs.com/google_containers/", "registry.aliyuncs.com/google_containers"),
        ("registry.aliyuncs.com/google_containers", "registry.aliyuncs.com/google_containers"),
        ("' mirror:5000/ '", "mirror:5000"),
        ("mirror:5000", "mirror:5000"),
        ("index.docker.io/kubesphere", "docker.io/kubesphere"),
    ],
)
def test_an_image_repository_is_taken_as_it_is_copied_from_a_browser(written: str, taken: str) -> None:
    made = cluster(f"kubernetes: {{image_repository: {written}}}\n")
    assert image_repository(made) == taken


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("https://registry.aliyuncs.com/google_containers", "without http:// or https://"),
        ("HTTPS://registry.aliyuncs.com/x", "without http:// or https://"),
        ("Registry.aliyuncs.com/x", "must be in lower case: registry.aliyuncs.com/x"),
        ("registry.aliyuncs.com//x", "two slashes"),
        ("registry.aliyuncs.com/x:v1", "no tag"),
        ("registry.aliyuncs.com/x@sha256:aa", "no tag"),
    ],
)
def test_what_is_no_image_repository_is_refused_in_the_words_of_what_was_meant(written: str, fault: str) -> None:
    for key in ("kubernetes: {image_repository: %s}", "device_plugin: {image: %s}"):
        with pytest.raises(Refused) as raised:
            cluster(key.replace("%s", f"'{written}'") + "\n")
        assert fault in raised.value.message


def test_the_tag_of_a_test_image_may_have_capitals_and_its_name_not() -> None:
    made = cluster("gpu: {verify_image: 'nvcr.io/nvidia/k8s/cuda-sample:vectorAdd'}\n")
    assert made.gpu.verify_image.endswith(":vectorAdd")
    with pytest.raises(Refused, match="lower case"):
        cluster("gpu: {verify_image: 'nvcr.io/NVIDIA/cuda:1'}\n")
