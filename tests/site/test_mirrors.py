"""`mirrors: aliyun` puts known mirrors between the profile and the cluster file, and trusts none of them more."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from shipway.cluster.profiles import profile_data
from shipway.cluster_file import parse_cluster
from shipway.errors import Refused
from shipway.kubeadm.config import image_repository
from shipway.steps.system.origins import origins
from tests.places.facts import DEBIAN

HOSTS = "name: demo\nhosts: [{name: cp, address: 10.0.0.1}]\n"


@pytest.mark.parametrize("profile", ["current", "seed", "sound-1.31"])
def test_packages_and_the_control_planes_images_come_from_mirrors_with_their_owners_keys(profile: str) -> None:
    made = parse_cluster(f"{HOSTS}profile: {profile}\nmirrors: aliyun\n")
    known = profile_data(profile)["sources"]["apt"]
    for title, source in made.sources.apt.items():
        mirrors = ("mirrors.aliyun.com", "mirrors.ustc.edu.cn")
        own = ("developer.download.nvidia.com",)  # the driver's: no mirror of it was looked at
        assert urlsplit(source.uri).hostname in (own if title == "cuda" else mirrors)
        assert source.key.fingerprint == known[title]["key"]["fingerprint"], "a mirror signs nothing itself"
        assert source.suite == known[title]["suite"]
        assert list(source.components) == known[title].get("components", [])
    assert image_repository(made) == "registry.aliyuncs.com/google_containers"


def test_what_is_not_mirrored_is_still_asked_where_it_is() -> None:
    made = parse_cluster(f"{HOSTS}mirrors: aliyun\n")
    asked = {urlsplit(source.url).hostname for source in origins(made, made.hosts[0], DEBIAN)}
    assert {"quay.io", "nvcr.io", "registry.aliyuncs.com"} <= asked
    assert not {"pkgs.k8s.io", "download.docker.com", "nvidia.github.io", "registry.k8s.io"} & asked


def test_the_cluster_file_has_the_last_word() -> None:
    own = "kubernetes: {image_repository: harbor.corp.example/k8s}\n"
    made = parse_cluster(f"{HOSTS}mirrors: aliyun\n{own}")
    assert image_repository(made) == "harbor.corp.example/k8s"
    plain = parse_cluster(HOSTS)
    assert urlsplit(plain.sources.apt["kubernetes"].uri).hostname == "pkgs.k8s.io"


def test_a_set_of_mirrors_that_is_none_is_refused() -> None:
    for name in ("tsinghua", "[a]", "5"):
        with pytest.raises(Refused, match="mirrors"):
            parse_cluster(f"{HOSTS}mirrors: {name}\n")
