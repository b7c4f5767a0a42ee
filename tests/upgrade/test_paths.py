"""Which upgrades are allowed, the order of the waves, and what is read of a host: pure functions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipway.cluster_file import in_version, parse_cluster
from shipway.errors import Refused
from shipway.facts.versions import ProgramVersion, StaticPodImages, tag_of
from shipway.gpu.jobs import GpuJob, gangs
from shipway.rules.upgrades import ETCD_FLOORS, etcd_floor, may_lag, newest_patch, next_minor, taken_away, why_not
from shipway.script import Output
from shipway.steps.upgrade.control_plane import recorded, upgrade_document
from tasks.passes.upgrade import HostVersions
from tasks.waves.hosts import places
from tasks.waves.order import count_alone, plan_waves

FILE = "name: te\nprofile: seed\nhosts: [{name: te1, address: 10.9.0.11}]\n"


@pytest.mark.parametrize(
    ("have", "wanted", "code"),
    [
        ("1.20.2", "1.20.2", ""),
        ("1.20.2", "1.20.15", ""),
        ("1.20.15", "1.21.0", ""),
        ("1.20.2", "1.22.0", "SHW-780"),
        ("1.20.2", "1.20.1", "SHW-781"),
        ("1.36.2", "1.35.9", "SHW-781"),
        ("1.9.11", "1.10.0", ""),
    ],
)
def test_one_minor_at_a_time_and_never_back(have: str, wanted: str, code: str) -> None:
    assert why_not(have, wanted)[0] == code


@pytest.mark.parametrize(
    ("have", "wanted", "floor"),
    [
        ("1.33.5", "1.34.0", (3, 5, 26)),
        ("1.33.5", "1.33.9", None),
        ("1.34.1", "1.35.0", None),
        ("1.36.2", "1.37.0", (3, 6, 11)),
        ("1.20.2", "1.21.0", None),
    ],
)
def test_etcds_floor_is_asked_only_where_its_minor_is_crossed(
    have: str, wanted: str, floor: tuple[int, int, int] | None
) -> None:
    assert etcd_floor(have, wanted) == floor
    assert set(ETCD_FLOORS) == {(1, 34), (1, 37)}


def test_what_is_said_of_versions() -> None:
    assert (may_lag("1.27.0"), may_lag("1.28.0")) == (2, 3)
    assert next_minor("1.35.9") == "1.36"
    assert newest_patch("1.20.2") == "1.20.15"
    assert newest_patch("1.20.15") == newest_patch("1.36.0") == ""
    offered = ("1.36.10-1.1", "1.36.9-1.1", "1.37.2-1.1", "junk", "1.36.2")
    assert newest_patch("1.36.2", offered) == "1.36.10"
    assert newest_patch("1.36.10", offered) == newest_patch("1.35.1", offered) == ""
    assert taken_away({(1, 36): ("Gate",)}, "1.35.9") == {}
    assert taken_away({(1, 36): ("Gate",)}, "1.37.0") == {"Gate": (1, 36)}


def test_a_file_in_another_version_is_judged_as_one_that_says_it() -> None:
    cluster = parse_cluster(FILE)
    assert in_version(cluster, "1.32.0").kubernetes.version == "1.32.0"
    with pytest.raises(Refused, match="no version of Kubernetes"):
        in_version(cluster, "latest")
    with pytest.raises(Refused, match="does not fit"):
        in_version(cluster, "1.99.0")


def test_programs_and_manifests_are_heard() -> None:
    assert ProgramVersion("kubelet").parse(Output(0, "Kubernetes v1.20.2\n", "")) == "1.20.2"
    assert ProgramVersion("kubeadm").parse(Output(0, "v1.36.2\n", "")) == "1.36.2"
    assert ProgramVersion("kubeadm", "/x/kubeadm").words()[-4:] == ("/x/kubeadm", "version", "-o", "short")
    assert ProgramVersion("kubeadm").parse(Output(127, "", "not found")) == ""
    said = (
        "/etc/kubernetes/manifests/etcd.yaml:    image: k8s.gcr.io/etcd:3.4.13-0\n"
        "/etc/kubernetes/manifests/kube-apiserver.yaml:  - image: 'mirror:5000/kube-apiserver:v1.20.2'\n"
        "/etc/kubernetes/manifests/kube-apiserver.yaml:  - image: other:1\n"
        "nonsense\n"
    )
    found = StaticPodImages("/etc/kubernetes/manifests").parse(Output(0, said, ""))
    assert found == {"etcd": "k8s.gcr.io/etcd:3.4.13-0", "kube-apiserver": "mirror:5000/kube-apiserver:v1.20.2"}
    assert [tag_of(image) for image in (*found.values(), "mirror:5000/x", "r/x:v1@sha256:ab")] == [
        *("3.4.13-0", "v1.20.2", "", "v1"),
    ]
    assert recorded(Output(0, "kubernetesVersion: v1.20.2\n", "")) == "1.20.2"
    assert recorded(Output(1, "", "refused")) == recorded(Output(0, "[]", "")) == ""


def test_a_host_is_done_when_all_of_it_is_and_begun_when_a_part_is() -> None:
    static = (("etcd", "3.4.13-0"), ("kube-apiserver", "v1.21.0"))
    whole = HostVersions("1.21.0", "1.21.0", static)
    assert whole.runs("1.21.0", "1.21.0")
    assert not whole.runs("1.21.0", "1.20.2"), "the old kubelet still runs"
    assert not HostVersions("1.21.0", "1.20.2", static).runs("1.21.0", "1.21.0")
    assert HostVersions("1.20.2", "1.20.2", static).begun("1.21.0")
    assert not HostVersions("1.20.2", "1.20.2").begun("1.21.0")


def test_a_configuration_passes_over_no_check_but_the_declared_one() -> None:
    cluster = parse_cluster(FILE)
    plain = upgrade_document(cluster, "1.36.2", apply=True)
    assert (plain["kind"], plain["apply"]) == ("UpgradeConfiguration", {})
    assert plain["timeouts"] == {"upgradeManifests": "10m0s"}
    old = cluster.model_copy(
        update={"kubernetes": cluster.kubernetes.model_copy(update={"allow_cgroup_v1": True})},
    )
    assert upgrade_document(old, "1.36.2", apply=False)["node"] == {"ignorePreflightErrors": ["SystemVerification"]}
    assert upgrade_document(old, "1.34.2", apply=False)["node"] == {}
    assert upgrade_document(cluster, "1.31.0", apply=True, forced=True)["apply"] == {"forceUpgrade": True}


def test_one_goes_alone_then_waves_and_what_was_begun_comes_first() -> None:
    names = ["w1", "w2", "w3", "w4", "w5"]
    assert plan_waves(names, size=2) == [("w1",), ("w2", "w3"), ("w4", "w5")]
    assert plan_waves(names, size=1) == [(name,) for name in names]
    assert plan_waves(names, size=9, resumed=["w4"]) == [("w4",), ("w1", "w2", "w3", "w5")]
    assert plan_waves(names, size=9, burden={"w1": 3})[0] == ("w2",), "the first has no GPU job to wait for"
    assert plan_waves([], size=3) == []


def test_of_each_kind_of_host_one_goes_alone_before_all_others() -> None:
    names = [f"w{number}" for number in range(1, 8)]
    kinds = dict.fromkeys(names, "2330 6.8") | {"w3": "2901 6.8", "w7": "2330 6.11"}
    waves = plan_waves(names, size=3, kinds=kinds)
    assert waves == [("w1",), ("w3",), ("w7",), ("w2", "w4", "w5"), ("w6",)]
    assert count_alone(waves, kinds) == 3
    assert count_alone(waves, {}) == 1
    assert count_alone([], kinds) == 0
    together = plan_waves(names, size=3, kinds=kinds, gangs=[{"w1", "w3"}])
    assert (together[0], together[1], count_alone(together, kinds)) == (("w2",), ("w7",), 3)
    assert together[2] == ("w1", "w3"), "a kind that only a gang has comes with its gang"
    resumed = plan_waves(names, size=3, kinds=kinds, resumed=["w5"])
    assert resumed[0] == ("w5",)
    assert places([], waves, kinds)[:4] == [
        ("w1", "first alone"),
        ("w3", "alone 2"),
        ("w7", "alone 3"),
        ("w2", "wave 1"),
    ]


def test_hosts_of_one_job_are_one_wave() -> None:
    names = ["w1", "w2", "w3", "w4"]
    assert plan_waves(names, size=1, gangs=[{"w1", "w3"}]) == [("w2",), ("w4",), ("w1", "w3")]
    assert plan_waves(names, size=4, gangs=[{"w1", "w3"}]) == [("w2",), ("w4", "w1", "w3")]
    assert plan_waves(["w1", "w3"], size=1, gangs=[{"w1", "w3", "gone"}]) == [("w1", "w3")]


def job(owner: str, node: str) -> GpuJob:
    return GpuJob(f"default/{owner}-{node}", node, "nvidia.com/gpu: 1", owner, "wait")


def test_owners_that_share_hosts_are_one_gang() -> None:
    assert gangs([job("a", "w1"), job("a", "w2"), job("b", "w2"), job("b", "w3"), job("c", "w4"), job("", "w4")]) == [
        frozenset({"w1", "w2", "w3"})
    ]
    assert gangs([job("a", "w1"), job("", "w1"), job("", "w2")]) == []


NAMES = st.lists(st.sampled_from([f"w{number}" for number in range(12)]), unique=True, max_size=12)


@given(NAMES, st.integers(1, 5), st.lists(st.frozensets(st.sampled_from([f"w{n}" for n in range(12)]), min_size=2)))
def test_every_host_comes_once_and_no_gang_is_split(names: list[str], size: int, sets: list[frozenset[str]]) -> None:
    together: list[frozenset[str]] = []
    for one in sets:  # as `gangs` makes them: none shares a host with another
        if not any(one & other for other in together):
            together.append(one)
    waves = plan_waves(names, size=size, gangs=together)
    assert sorted(host for wave in waves for host in wave) == sorted(names)
    for gang in together:
        assert sum(bool(set(wave) & gang) for wave in waves) <= 1
    for wave in waves[1:]:
        assert len(wave) <= size or any(set(wave) <= gang for gang in together)
