"""Each way in which a file contradicts its hosts is refused by its own code, and what agrees is let pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shipway.cluster.model import Cluster
from shipway.cluster_file import parse_cluster
from shipway.ownership.contradictions import contradictions
from shipway.ownership.evidence import Evidence

TEXT = (
    "name: te\nprofile: seed\nhosts:\n- {name: te1, address: 192.0.2.1}\n- {name: te2, address: 192.0.2.2}\n"
    "- {name: te3, address: 192.0.2.3, node_ip: 198.51.100.3}\n"
)
CLUSTER = parse_cluster(TEXT)
SERVER, OTHER = "https://192.0.2.1:6443", "https://203.0.113.9:6443"
A, B = frozenset({"sha256:aaaa"}), frozenset({"sha256:bbbb"})


def control(name: str = "te1", **more: Any) -> Evidence:
    """Return a host that runs a control plane."""
    whole: dict[str, Any] = {
        "admin": True,
        "etcd": True,
        "static": ("etcd.yaml",),
        "certificate": True,
        "kubelet_conf": True,
        "server": SERVER,
        "endpoint": SERVER,
        "authorities": A,
        "node": name,
        **more,
    }
    return Evidence(name, **whole)


def node(name: str = "te2", **more: Any) -> Evidence:
    """Return a host that is a worker node."""
    whole: dict[str, Any] = {
        "certificate": True,
        "kubelet_conf": True,
        "server": SERVER,
        "authorities": A,
        "node": name,
        **more,
    }
    return Evidence(name, **whole)


def codes(*seen: Evidence, cluster: Cluster = CLUSTER, **more: Any) -> list[tuple[str, str]]:
    """Return host and code of each contradiction."""
    return [(one.host, one.code) for one in contradictions(cluster, seen, **more)]


def test_a_cluster_that_is_as_the_file_says_is_no_contradiction() -> None:
    assert codes(control(), node(), node("te3")) == []
    assert codes(Evidence("te1"), Evidence("te2")) == []
    assert codes(Evidence("te1", pki=True, started_by="te"), Evidence("te2", kubelet_conf=True, server=SERVER)) == []


@pytest.mark.parametrize(
    ("standing", "code"),
    [
        (node("te1"), "SHW-317"),
        (node("te1", certificate=False), "SHW-317"),
        (control("te2"), "SHW-317"),
        (control("te2", certificate=False, kubelet_conf=False), "SHW-317"),
    ],
)
def test_a_role_that_is_another_on_the_host_is_refused_and_both_are_named(standing: Evidence, code: str) -> None:
    found = contradictions(CLUSTER, [standing])
    assert [(one.host, one.code) for one in found if one.code == code] == [(standing.host, code)]
    assert not [one for one in found if one.code == "SHW-318"], "where roles are wrong no control plane is missing"
    declared = "that te1 does" if standing.host == "te2" else "that it is the control plane"
    assert f"the file says {declared}" in found[0].cause


def test_an_init_of_ours_that_broke_off_elsewhere_is_reported_as_such() -> None:
    (found,) = (one for one in contradictions(CLUSTER, [control("te2", started_by="te")]) if one.code == "SHW-317")
    assert "an init of ours that broke off" in found.cause
    (found,) = (one for one in contradictions(CLUSTER, [control("te2")]) if one.code == "SHW-317")
    assert "broke off" not in found.cause


@pytest.mark.parametrize(
    ("other", "refused"),
    [
        (node(authorities=B), True),
        (node(authorities=A | B), False),
        (node(authorities=frozenset(), server=SERVER), False),
        (node(authorities=frozenset(), server=SERVER.upper().replace("HTTPS", "https")), False),
        (node(authorities=frozenset(), server=""), False),
        (node(authorities=frozenset(), server=OTHER), True),
        (node(authorities=B, server=""), True),
        (node(authorities=B, certificate=False), True),
        (Evidence("te2", pki=True, authorities=B), False),
    ],
)
def test_a_node_of_another_cluster_is_refused_and_one_that_shows_nothing_else_is_not(
    other: Evidence, *, refused: bool
) -> None:
    assert codes(control(), other) == ([("te2", "SHW-309")] if refused else [])


def test_without_a_control_plane_the_kept_authority_decides_and_without_that_the_hosts_among_themselves() -> None:
    alone = [node("te2"), node("te3", authorities=B)]
    assert codes(*alone) == [("te2", "SHW-309"), ("te3", "SHW-309")]
    assert codes(*alone, kept=A) == [("te3", "SHW-309")]
    assert codes(node("te2"), node("te3")) == []
    assert codes(node("te2"), node("te3", authorities=A | B)) == []
    unknown = control(authorities=frozenset())
    assert codes(unknown, node("te2", authorities=B), kept=A) == [("te2", "SHW-309")]
    assert codes(unknown, node("te2", authorities=B)) == []
    begun = Evidence("te1", pki=True, authorities=B)
    assert ("te2", "SHW-309") not in codes(begun, node("te2"))


def test_a_control_plane_that_is_gone_is_never_made_anew_beside_its_nodes() -> None:
    for first in (Evidence("te1"), Evidence("te1", pki=True)):
        assert codes(first, node()) == [("te1", "SHW-318")]
        assert codes(first, node(certificate=False, running=True)) == [("te1", "SHW-318")]
        assert codes(first, node(certificate=False)) == []
        assert codes(first, kept=A) == codes(first, kept=frozenset()) == [("te1", "SHW-318")]
    assert codes(node()) == [], "te1 was not asked"
    names = [f"te{number}" for number in range(1, 9)]
    hosts = "".join(f"- {{name: {name}, address: 192.0.2.{at}}}\n" for at, name in enumerate(names, 1))
    many = parse_cluster(f"name: te\nprofile: seed\nhosts:\n{hosts}")
    (found,) = contradictions(many, [Evidence("te1"), *(node(name) for name in names[1:])])
    assert "te2, te3, te4, te5, te6 and 2 more belong" in found.cause
    (found,) = contradictions(many, [Evidence("te1"), *(node(name) for name in names[1:6])])
    assert "te5, te6 belong" in found.cause


def test_an_init_that_broke_off_where_nodes_of_another_authority_have_joined_is_refused() -> None:
    anew = control(authorities=B, started_by="te")
    assert ("te1", "SHW-318") in codes(anew, node())
    assert ("te1", "SHW-318") not in codes(anew, node(certificate=False))
    assert codes(control(started_by="te"), node()) == []
    assert ("te1", "SHW-318") not in codes(control(authorities=B), node())


@pytest.mark.parametrize(
    ("declared", "named"),
    [
        ({"cluster-name": "other"}, "name other"),
        ({"cluster-cidr": "10.99.0.0/16"}, "kubernetes.pod_network 10.99.0.0/16"),
        ({"cluster-cidr": "no network"}, "kubernetes.pod_network no network"),
        ({"service-cluster-ip-range": "10.98.0.0/16"}, "kubernetes.service_network 10.98.0.0/16"),
        ({"secure-port": "7443"}, "kubernetes.api_port 7443"),
    ],
)
def test_what_a_running_cluster_cannot_change_is_refused_where_the_file_says_another(
    declared: dict[str, str], named: str
) -> None:
    (found,) = contradictions(CLUSTER, [control(declared=declared)])
    assert (found.host, found.code) == ("te1", "SHW-319")
    assert f"its cluster has {named}, and the file says" in found.cause
    assert codes(control(declared=declared, started_by="te")) == [], "an unfinished init is begun anew"
    assert codes(Evidence("te1", declared=declared)) == []


def test_what_is_the_same_in_other_words_is_the_same() -> None:
    kubernetes = CLUSTER.kubernetes
    declared = {
        "cluster-name": "te",
        "cluster-cidr": f"{kubernetes.pod_network},fd00::/64",
        "service-cluster-ip-range": str(kubernetes.service_network),
        "secure-port": str(kubernetes.api_port),
    }
    assert codes(control(declared=declared)) == []
    (found,) = contradictions(CLUSTER, [control(endpoint=OTHER)])
    assert (found.code, "kubernetes.api_endpoint 203.0.113.9:6443" in found.cause) == ("SHW-319", True)


def test_the_kubeconfig_of_another_cluster_is_never_overwritten_whoever_runs_here() -> None:
    assert codes(control(), kept=A) == codes(control(), kept=A | B) == []
    assert codes(control(), kept=B) == codes(control(), kept=frozenset()) == [("te1", "SHW-320")]
    assert codes(control(authorities=frozenset()), kept=B) == []
    assert codes(control()) == []


def test_a_joined_host_keeps_its_name() -> None:
    assert codes(control(), node(node="gpu-two")) == [("te2", "SHW-321")]
    assert codes(control(), node(node="")) == []
    assert codes(control(), node(node="gpu-two", certificate=False)) == []
    assert codes(control(), node(node="gpu-two", certificate=False, running=True)) == [("te2", "SHW-321")]
    (found,) = contradictions(CLUSTER, [control(node="cp")])
    assert (found.code, "keeps both for as long as the cluster lives" in found.fix) == ("SHW-321", True)
    (found,) = contradictions(CLUSTER, [control(), node(node="gpu-two")])
    assert "shipway remove FILE gpu-two" in found.fix


def test_a_joined_host_keeps_its_address() -> None:
    assert codes(control(), node(node_ip="192.0.2.2"), node("te3", node_ip="198.51.100.3")) == []
    assert codes(control(), node("te3", node_ip="192.0.2.3")) == [("te3", "SHW-322")]
    assert codes(control(), node("te3", node_ip="192.0.2.3", certificate=False)) == []
    assert codes(control(declared={"advertise-address": "192.0.2.1"})) == []
    assert codes(control(declared={"advertise-address": "192.0.2.7"})) == [("te1", "SHW-322")]
    assert codes(control(declared={"advertise-address": "192.0.2.7"}, node_ip="192.0.2.1")) == []
    assert codes(control(), node(declared={"advertise-address": "192.0.2.7"})) == [], "only a control plane has one"


def test_a_control_plane_is_not_given_up_beside_its_nodes_nor_beside_running_pods() -> None:
    assert codes(control(), node(), reset=["te1"]) == [("te1", "SHW-318")]
    assert codes(control(), reset=["te1"]) == []
    assert codes(control(), node(certificate=False), reset=["te1"]) == []
    pods = control(running=True, pods=("default/p",))
    assert codes(pods, reset=["te1"]) == [("te1", "SHW-324")]
    assert codes(pods) == []
    (found,) = contradictions(CLUSTER, [pods], reset=["te1"])
    assert "pods run there: default/p" in found.cause
    (found,) = contradictions(CLUSTER, [replace(pods, pods=())], reset=["te1"])
    assert "unnamed" in found.cause
    assert ("te1", "SHW-324") in codes(Evidence("te1", running=True), reset=["te1"])
    assert codes(Evidence("te1"), node(), reset=["te1"]) == [("te1", "SHW-318")]
    assert codes(reset=["te1"]) == []


def test_the_fix_names_the_host_that_runs_the_control_plane_and_no_other() -> None:
    found = contradictions(CLUSTER, [node("te1"), control("te2")])
    assert [(one.host, one.code) for one in found] == [("te1", "SHW-317"), ("te2", "SHW-317")]
    assert all("write `roles: [control_plane]` at te2 and" in one.fix for one in found)
    assert "the control plane runs on te2" in found[0].cause
    (alone,) = contradictions(CLUSTER, [node("te1")])
    assert "at the host that its nodes reach it by" in alone.fix


def test_a_host_of_the_wrong_role_is_no_witness_of_who_owns_the_others() -> None:
    assert codes(node("te1", authorities=B), node("te2")) == [("te1", "SHW-317")]
    assert codes(node("te2", authorities=frozenset()), node("te3")) == []


def test_of_an_unfinished_init_only_nodes_that_joined_elsewhere_are_reported() -> None:
    anew = control(authorities=B, started_by="te")
    (found,) = (one for one in contradictions(CLUSTER, [anew, node()]) if one.code == "SHW-318")
    assert "it holds no control plane, and te2 belong" in found.cause
    assert ("te1", "SHW-318") not in codes(anew, node(certificate=False), kept=B)
    assert codes(control(authorities=frozenset(), started_by="te"), kept=A) == []
    assert codes(Evidence("te1", pki=True, authorities=B), kept=A) == [("te1", "SHW-318")]
