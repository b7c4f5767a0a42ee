"""`kubernetes.*` values that are changed in the file of a running cluster: reported by name, never "ok, 0 changed"."""

from __future__ import annotations

from typing import Any, cast

import pytest
import yaml

from shipway.errors import Permanent
from shipway.facts.files import FileText
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kubeadm.config import init_documents
from shipway.steps.kubernetes.health import KUBELET_CONFIG, KubeletDeclared
from shipway.steps.kubernetes.health_cluster import SettledAsDeclared
from shipway.steps.kubernetes.kubeadm_objects import KubeProxyDeclared
from tasks.context import Run
from tasks.drift.parts import kubelet_declared, list_settled
from tests.places.facts import KnownFacts
from tests.places.kube import cluster_of

BEFORE = {"kube_proxy": {"mode": "iptables"}, "kubelet": {"maxPods": 200}}


def run_of(**kubernetes: object) -> Run:
    return Run(cluster_of(("te1", "te2"), kubernetes={**BEFORE, **kubernetes}), "bootstrap")


class Kept:
    """An API with what kubeadm wrote when the cluster was initialised."""

    def __init__(self, run: Run) -> None:
        _, declared, *_ = init_documents(run.cluster, run.control)
        proxy = {"kind": "KubeProxyConfiguration", "bindAddress": "0.0.0.0", **run.cluster.kubernetes.kube_proxy}  # noqa: S104
        self.maps = {
            "kubeadm-config": {"ClusterConfiguration": yaml.safe_dump(declared)},
            "kube-proxy": {"config.conf": yaml.safe_dump(proxy)},
        }

    async def get(self, _version: str, _kind: str, name: str, _namespace: str = "") -> dict[str, Any] | None:
        """Return a ConfigMap."""
        return {"data": self.maps[name]} if name in self.maps else None


CHANGES = [
    ("pod_network", "10.200.0.0/16"),
    ("service_network", "10.112.0.0/12"),
    ("api_endpoint", "k8s.example.com:6443"),
    ("image_repository", "registry.example.com/k8s"),
]


@pytest.mark.parametrize(("key", "value"), CHANGES)
async def test_what_an_initialisation_settled_is_refused_with_both_values(key: str, value: str) -> None:
    api, changed = cast("Kube", Kept(run_of())), run_of(**{key: value})
    assert await SettledAsDeclared(list_settled(run_of())).check(api) is None
    with pytest.raises(Permanent, match=f"kubernetes.{key}: {value} .the cluster has") as refused:
        await SettledAsDeclared(list_settled(changed)).check(api)
    assert refused.value.code == "SHW-338"
    others = {f"kubernetes.{one}" for one, _ in CHANGES if one != key}
    assert not [one for one in others if one in refused.value.message]


async def test_another_kubelet_value_is_reported_with_the_command_that_brings_it_about() -> None:
    before = run_of()
    text = yaml.safe_dump({"kind": "KubeletConfiguration", **kubelet_declared(before)})
    host = cast("Host", KnownFacts({FileText(KUBELET_CONFIG): text}))
    assert await KubeletDeclared(kubelet_declared(before)).check(host) is None
    with pytest.raises(Permanent, match=r"maxPods.*200.*maxPods.*250") as refused:
        await KubeletDeclared(kubelet_declared(run_of(kubelet={"maxPods": 250}))).check(host)
    assert (refused.value.code, "flows.drift_repair" in refused.value.fix) == ("SHW-339", True)


@pytest.mark.parametrize("changed", [{"mode": "ipvs"}, {"mode": "iptables", "conntrack": {"maxPerCore": 0}}])
async def test_another_kube_proxy_value_is_reported_in_a_bootstrap_too(changed: dict[str, Any]) -> None:
    api = cast("Kube", Kept(run_of()))
    assert await KubeProxyDeclared(run_of().cluster.kubernetes.kube_proxy).check(api) is None
    with pytest.raises(Permanent, match="kube-proxy has") as refused:
        await KubeProxyDeclared(run_of(kube_proxy=changed).cluster.kubernetes.kube_proxy).check(api)
    assert refused.value.code == "SHW-345"
