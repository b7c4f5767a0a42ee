"""The solver refuses what cannot work and warns of what should not stay; its tables answer by version."""

from __future__ import annotations

from datetime import date

import pytest

from shipway.cluster.model import Cluster
from shipway.cluster_file import parse_cluster
from shipway.errors import Refused
from shipway.rules import compatibility as known
from shipway.rules.solver import REFUSALS, WARNINGS, warnings_of

TODAY = date(2026, 11, 23)


def accepted(text: str = "", hosts: int = 1) -> Cluster:
    addresses = ", ".join(f"10.{number // 200}.7.{1 + number % 200}" for number in range(hosts))
    return parse_cluster(f"name: demo\nhosts: [{addresses}]\n{text}")


def refused(text: str, hosts: int = 1) -> str:
    with pytest.raises(Refused) as raised:
        accepted(text, hosts)
    return raised.value.message


def warned(text: str, today: date = TODAY) -> str:
    return "\n".join(warnings_of(accepted(text), today))


SEED_NETWORK = "kubernetes: {pod_network: 10.244.64.0/20, node_mask: %d}\n"


def test_the_guides_network_holds_sixteen_nodes_and_no_more() -> None:
    accepted(SEED_NETWORK % 24, hosts=16)
    assert "node_mask 25 would fit (126 pods a node)" in refused(SEED_NETWORK % 24, hosts=17)
    accepted(SEED_NETWORK % 25, hosts=17)


def test_a_network_that_no_mask_saves_must_be_larger() -> None:
    text = "kubernetes: {pod_network: 10.244.64.0/24, node_mask: 26}\n"
    assert "a larger pod network is needed" in refused(text, hosts=40)


def test_overlaps_are_told_from_either_side() -> None:
    assert "overlaps the service network" in refused("kubernetes: {service_network: 10.244.0.0/16}\n")
    assert "the service network 10.0.0.0/12 holds the address of host-10-0-7-1" in refused(
        "kubernetes: {service_network: 10.0.0.0/12}\n"
    )
    assert "10.96.0.9 lies in the service network" in refused("kubernetes: {api_endpoint: 10.96.0.9}\n")


def test_calico_blocks_lie_in_the_pod_network() -> None:
    assert "/20 is larger than the pod network" in refused(
        "kubernetes: {pod_network: 10.244.0.0/22}\nnetwork: {block_size: 20}\n"
    )


def test_versions_that_cannot_speak_are_refused() -> None:
    old = "kubernetes: {version: 1.22.17}\nruntime: {version: %s}\n"
    assert "speaks only CRI v1" in refused(old % "2.1.0")
    accepted(old % "1.7.27")
    accepted(old % '"1"')
    assert "has no CRI v1" in refused("runtime: {version: 1.5.18}\n")


@pytest.mark.parametrize(("toolkit", "fine"), [("1.17.8", True), ("1.18.0", False), ("1.18.1", True)])
def test_one_toolkit_is_broken(toolkit: str, *, fine: bool) -> None:
    text = f"gpu: {{toolkit: {toolkit}}}\n"
    if fine:
        accepted(text)
    else:
        assert "take 1.18.1 or later" in refused(text)


def test_another_calico_asks_for_its_own_manifests() -> None:
    said = refused("network: {version: 3.31.2}\n")
    assert "sources.manifests.tigera_operator.url (from the profile): is version 3.32.0" in said
    assert "sources.manifests.operator_crds.url (from the profile)" in said
    files = "sources: {manifests: {tigera_operator: {path: /t}, operator_crds: {path: /c}}}\n"
    accepted("network: {version: 3.31.2}\n" + files)


def test_only_gpu_hosts_need_nvidias_repository() -> None:
    lab = "profile: lab\nnetwork: {manifests: [/n]}\nsources: {apt: {docker: %(r)s, kubernetes: %(r)s}}\n" % {  # noqa: UP031
        "r": "{uri: 'http://m', suite: /, key: {path: /k}}"
    }
    assert "sources.apt.nvidia: is missing" in refused(lab)
    parse_cluster("name: demo\nhosts: [{name: a, address: 10.0.0.1, gpus: 0}]\n" + lab)


@pytest.mark.parametrize(
    ("today", "said"),
    [(date(2027, 1, 1), ""), (date(2027, 5, 15), "reaches its end"), (date(2027, 6, 28), "reached its end")],
)
def test_the_end_of_life_is_told_by_the_day(today: date, said: str) -> None:
    found = warned("kubernetes: {version: 1.36.2}\n", today)
    assert (said in found) if said else (found == "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("runtime: {version: 1.7.27}\n", "Kubernetes 1.36 deprecates containerd 1.x"),
        ("kubernetes: {version: 1.31.14}\nruntime: {version: 1.7.13}\n", "Kubernetes 1.31 wants 1.7.20 or later"),
        ("kubernetes: {version: 1.33.1}\n", "this Calico is tested on Kubernetes 1.34 to 1.36, not 1.33"),
        ("kubernetes: {allow_cgroup_v1: true}\n", "Kubernetes 1.36 gave cgroup v1 up"),
        ("kubernetes: {version: 1.34.9, allow_cgroup_v1: true}\n", "has no effect on Kubernetes 1.34"),
        ("gpu: {isolation: 'off'}\n", "a pod that asks for no GPU sees all of its host"),
        ("gpu: {toolkit: 1.17.8}\n", "gpu.toolkit 1.17.8 is old"),
        ("device_plugin: {version: 0.17.1}\n", "device_plugin.version 0.17.1 is old"),
        ("dashboard: {enabled: true, role: cluster-admin}\n", "archived upstream on 2026-01-21"),
        ("dashboard: {enabled: true, role: cluster-admin}\n", "from port 31000 of any node"),
        ("network: {provider: manifests, manifests: [/n]}\nkubernetes: {node_mask: 26}\n", "62 pod addresses"),
        ("kubernetes: {pod_network: 10.244.0.0/26, node_mask: 26}\n", "64 addresses for 1 hosts of up to 110 pods"),
        ("sources: {apt: {docker: {key: {fingerprint: null}}}}\n", "whatever key is served will be trusted"),
        ("runtime: {version: null}\n", "runtime.version is not pinned"),
    ],
)
def test_a_warning_says_what_should_not_stay(text: str, said: str) -> None:
    assert said in warned(text)


def test_a_cluster_without_cards_is_warned_of() -> None:
    cluster = parse_cluster("name: demo\nhosts: [{name: a, address: 10.0.0.1, gpus: 0}]\n")
    assert warnings_of(cluster, TODAY) == ["hosts: every one is declared with gpus: 0, so no GPU can be proven"]


def test_every_rule_has_a_title_of_its_own() -> None:
    titles = [rule.title for rule in REFUSALS] + [rule.title for rule in WARNINGS]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize(
    ("version", "layout"),
    [("1.6.20~ds1-1+b1", 2), ("1.7.27", 2), ("2.0.0", 3), ("2.1.3-1", 3), ("2.2", 3), ("2.3.1", 4), ("5:3.0.0", 4)],
)
def test_containerds_layout_follows_its_version(version: str, layout: int) -> None:
    assert known.containerd_config_version(version) == layout


@pytest.mark.parametrize(
    ("minor", "api"), [(20, "v1beta2"), (21, "v1beta2"), (22, "v1beta3"), (30, "v1beta3"), (31, "v1beta4")]
)
def test_kubeadms_api_follows_the_minor(minor: int, api: str) -> None:
    assert known.kubeadm_api((1, minor)) == api


def test_taints_labels_and_manifests_follow_the_version() -> None:
    old, new = "node-role.kubernetes.io/master", "node-role.kubernetes.io/control-plane"
    assert [known.control_plane_taints((1, minor)) for minor in (23, 24, 25)] == [(old,), (old, new), (new,)]
    assert [known.control_plane_labels((1, minor)) for minor in (23, 24)] == [(new, old), (new,)]
    assert known.calico_manifests("3.29.7") == ("tigera_operator",)
    assert known.calico_manifests("3.30.0") == ("operator_crds", "tigera_operator")
    assert [known.plugin_needs_gpu_selector(version) for version in ("0.17.4", "0.18.0")] == [False, True]
    assert [known.needs_cgroup_v2((1, minor)) for minor in (34, 35)] == [False, True]


def test_a_text_without_a_number_is_no_version() -> None:
    with pytest.raises(ValueError, match="'latest' is not a version"):
        known.triple("latest")


def test_every_known_kubernetes_minor_but_the_newest_has_an_end() -> None:
    minors = range(known.OLDEST_KUBERNETES[1], known.NEWEST_KUBERNETES[1])
    assert [minor for minor in minors if (1, minor) not in known.KUBERNETES_END] == []
