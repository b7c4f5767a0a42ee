"""Profiles are sets that work: accepted by the solver, pinned throughout, named in the docs."""

from __future__ import annotations

from datetime import date

import pytest

from shipway.cluster.model import Cluster
from shipway.cluster.profiles import profile_data, profile_names
from shipway.cluster_file import parse_cluster
from shipway.errors import Refused
from shipway.rules.solver import warnings_of

TODAY = date(2026, 11, 23)
WHOLE = [name for name in profile_names() if name != "lab"]


def cluster_of(profile: str) -> Cluster:
    return parse_cluster(f"name: demo\nprofile: {profile}\nhosts: [10.0.0.1]\n")


def test_the_profiles_are_these() -> None:
    assert profile_names() == ["current", "lab", "seed", "sound-1.31"]


@pytest.mark.parametrize("name", WHOLE)
def test_a_profile_needs_nothing_but_a_host(name: str) -> None:
    cluster = cluster_of(name)
    assert cluster.runtime.version
    assert cluster.gpu.toolkit


@pytest.mark.parametrize("name", WHOLE)
def test_everything_fetched_is_pinned(name: str) -> None:
    sources = cluster_of(name).sources
    assert all(repository.key.fingerprint for repository in sources.apt.values())
    assert all(manifest.sha256 for manifest in sources.manifests.values())


def test_current_has_nothing_to_warn_of() -> None:
    assert warnings_of(cluster_of("current"), TODAY) == []


def test_the_guides_values_are_kept_and_warned_of() -> None:
    cluster = cluster_of("seed")
    kubernetes, network = cluster.kubernetes, cluster.network
    assert (kubernetes.version, str(kubernetes.pod_network)) == ("1.31.7", "10.244.64.0/20")
    assert (network.version, network.block_size, network.encapsulation) == ("3.26.1", 26, "VXLANCrossSubnet")
    assert (cluster.device_plugin.version, cluster.dashboard.version) == ("0.17.1", "2.7.0")
    assert (cluster.dashboard.enabled, cluster.dashboard.node_port, cluster.dashboard.role) == (
        True,
        31000,
        "cluster-admin",
    )
    assert cluster.gpu.verify_image == "nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0"
    assert set(profile_data("seed")["system"]["packages"]) == {
        *("apt-transport-https", "ca-certificates", "curl", "gnupg", "gpg", "lsb-release"),
        "software-properties-common",
    }
    said = "\n".join(warnings_of(cluster, TODAY))
    ended = ("2025-11-11", "1.31.14", "2026-03-10", "Calico 3.26 is past", "archived upstream")
    for text in (*ended, "tested on Kubernetes 1.24 to 1.28"):
        assert text in said


def test_the_sound_set_is_only_past_its_end() -> None:
    said = warnings_of(cluster_of("sound-1.31"), TODAY)
    assert len(said) == 3
    assert all("end of life" in text or "past its end" in text for text in said)


def test_the_lab_names_versions_and_leaves_sources_to_its_place() -> None:
    data = profile_data("lab")
    assert data["kubernetes"]["version"] == "1.20.2"
    assert "sources" not in data
    with pytest.raises(Refused, match="sources: is missing"):
        cluster_of("lab")


def test_an_unknown_profile_is_refused_by_name() -> None:
    with pytest.raises(Refused, match=r"'\.\./seed' is not one of current, lab, seed, sound-1\.31"):
        profile_data("../seed")
    with pytest.raises(Refused, match="not one of"):
        profile_data(["seed"])
