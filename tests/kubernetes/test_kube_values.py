"""A nested field of the kubelet's configuration is merged into what is there, and compared by what it means."""

from __future__ import annotations

from typing import Any, cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shipway.edits.yaml import with_values
from shipway.facts.files import FileInfo, FileState, FileText
from shipway.host.session import Host
from shipway.kubeadm.values import differences, merge, same
from shipway.steps.kubernetes.health import KUBELET_CONFIG, KubeletConfigured
from tests.places.facts import KnownFacts

# As kubeadm 1.36 writes it.
WRITTEN = """apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  webhook:
    cacheTTL: 2m0s
    enabled: true
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
authorization:
  mode: Webhook
  webhook:
    cacheAuthorizedTTL: 0s
    cacheUnauthorizedTTL: 0s
cgroupDriver: systemd
clusterDNS:
- 10.96.0.10   # a person's own note
clusterDomain: cluster.local
imageMinimumGCAge: 5m0s
kind: KubeletConfiguration
logging: {}
maxPods: 110
rotateCertificates: true
staticPodPath: /etc/kubernetes/manifests
"""
LEAF = st.one_of(st.integers(), st.booleans(), st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=8))
TREE = st.recursive(LEAF, lambda inner: st.dictionaries(st.sampled_from("abcdef"), inner, max_size=4), max_leaves=12)
MAPS = st.dictionaries(st.sampled_from("abcdef"), TREE, max_size=5)


@pytest.mark.parametrize(
    ("have", "want"),
    [
        *[("5m0s", "5m"), ("1h0m0s", "60m"), ("0s", "0"), ("2m0s", "120s"), ("1.5h", "1h30m"), ("1500ms", "1.5s")],
        *[
            ("1Gi", "1024Mi"),
            ("1000m", "1"),
            (1, "1"),
            ("500m", 0.5),
            ("1e3", "1k"),
            ("100M", "0.1G"),
            ("10%", "10.0%"),
        ],
        *[(110, "110"), ([], ()), ({"a": "60s"}, {"a": "1m"}), (5_000_000_000, "5s"), (["1m"], ["60s"])],
    ],
)
def test_two_spellings_of_one_value_are_the_same(have: Any, want: Any) -> None:
    assert same(have, want)
    assert same(want, have)


@pytest.mark.parametrize(
    ("have", "want"),
    [
        *[("5m0s", "5s"), ("1Gi", "1G"), (True, 1), (False, 0), (True, "true"), ("a", "b"), ([1], [1, 2]), (1, 2)],
        *[({"a": 1}, {"a": 1, "b": 2}), ({"a": 1, "b": 2}, {"a": 1}), ("10%", "10"), ("", "x"), ({}, []), ("5m", 5)],
        *[("9" * 400, "8" * 400), ("1e99", "1e98")],
    ],
)
def test_two_values_are_distinguished(have: Any, want: Any) -> None:
    assert not same(have, want)
    assert not same(want, have)


@pytest.mark.parametrize(
    ("want", "drifts"),
    [
        ({"readOnlyPort": 0, "logging": {"verbosity": 0}, "tlsCipherSuites": [], "protectKernelDefaults": False}, []),
        ({"failSwapOn": False}, [("failSwapOn",)]),  # a pointer: a file without it means true
        ({"registryPullQPS": 0}, [("registryPullQPS",)]),
        ({"enforceNodeAllocatable": []}, [("enforceNodeAllocatable",)]),
        ({"podPidsLimit": None}, []),
    ],
)
def test_a_field_that_is_not_there_is_zero_only_where_the_kubelet_reads_it_so(
    want: dict[str, Any], drifts: list[tuple[str, ...]]
) -> None:
    assert [path for path, _, _ in differences(yaml.safe_load(WRITTEN), want)] == drifts


async def test_a_nested_field_that_means_the_same_is_no_drift() -> None:
    wanted = {"authentication": {"webhook": {"cacheTTL": "120s"}}, "imageMinimumGCAge": "5m", "cgroupDriver": "systemd"}
    host = KnownFacts({FileText(KUBELET_CONFIG): WRITTEN})
    assert await KubeletConfigured(wanted).check(cast("Host", host)) is None


async def test_a_nested_field_is_set_and_every_other_byte_of_the_file_stays() -> None:
    facts = {FileText(KUBELET_CONFIG): WRITTEN, FileState(KUBELET_CONFIG): FileInfo("0" * 64, "600", "root:root", 1)}
    host, step = (
        KnownFacts(facts),
        KubeletConfigured({"authentication": {"webhook": {"cacheTTL": "1m"}}, "maxPods": 250}),
    )
    drift = await step.check(cast("Host", host))
    assert drift is not None
    assert (drift.have, drift.want) == (
        "authentication.webhook.cacheTTL: 2m0s, maxPods: 110",
        "authentication.webhook.cacheTTL: 1m, maxPods: 250",
    )
    await step.apply(cast("Host", host))
    assert host.written[KUBELET_CONFIG] == WRITTEN.replace("2m0s", "1m").replace("110", "250")
    host.facts[FileText(KUBELET_CONFIG)] = host.written[KUBELET_CONFIG]
    assert await step.check(cast("Host", host)) is None


@pytest.mark.parametrize(
    ("want", "before", "after"),
    [
        ({"evictionHard": {"memory.available": "1Gi"}}, "maxPods: 110\n", "maxPods: 110\n"),
        ({"logging": {"verbosity": 4}}, "logging: {}", "logging: {verbosity: 4}"),
        ({"clusterDNS": ["10.0.0.9"]}, "\n- 10.96.0.10   # a", ' ["10.0.0.9"]   # a'),
        ({"authentication": {"anonymous": {"enabled": True}}}, "enabled: false", "enabled: true"),
        ({"clusterDomain": "a: b #c"}, "clusterDomain: cluster.local", "clusterDomain: 'a: b #c'"),
    ],
)
def test_one_field_is_written_in_its_place(want: dict[str, Any], before: str, after: str) -> None:
    edited = with_values(WRITTEN, want)
    assert before in WRITTEN
    added = "" if "evictionHard" not in want else 'evictionHard: {"memory.available": "1Gi"}\n'
    assert edited == WRITTEN.replace(before, after) + added
    assert yaml.safe_load(edited) == merge(yaml.safe_load(WRITTEN), want)


@pytest.mark.parametrize(
    "text", ["a: &x {b: 1}\nc: *x\n", "a:\n  - b\n  -  c: |\n      text\n", "? a\n: b\n", "{a: 1}"]
)
def test_a_layout_that_is_not_understood_loses_no_field(text: str) -> None:
    want = {"a": {"b": 2}, "z": {"y": "5m"}}
    assert yaml.safe_load(with_values(text, want)) == merge(yaml.safe_load(text), want)


@given(MAPS, MAPS)
def test_merging_sets_what_is_declared_keeps_the_rest_and_is_done_once(
    have: dict[str, Any], want: dict[str, Any]
) -> None:
    text = yaml.safe_dump(have)
    merged = yaml.safe_load(with_values(text, want))
    assert merged == merge(have, want)
    assert not list(differences(merged, want))
    assert all(merged[key] == value for key, value in have.items() if key not in want)
    assert with_values(with_values(text, want), want) == with_values(text, want)
