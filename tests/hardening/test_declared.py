"""What a cluster file declares of hardening becomes flags, mounts and fields, in the words of each kubeadm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from shipway.cluster.model import Cluster
from shipway.cluster_file import parse_cluster
from shipway.errors import Refused
from shipway.kubeadm.config import init_documents
from shipway.kubeadm.hardening import ENCRYPTION, FOLDER, KERNEL, kernel
from shipway.kubeadm.writes import static_pod_args
from shipway.step import id_of
from shipway.steps.hardening.listed import files_of
from shipway.steps.hardening.policies import OWN_POLICY, admission, audit_policy, exempt_namespaces
from shipway.steps.hardening.record import HardeningRemembered
from tasks.context import Run
from tasks.drift.parts import cluster_parts, host_parts
from tasks.stages import control_plane, prepare_system
from tests.places.facts import DEBIAN
from tests.places.kube import cluster_of

ALL = {
    "audit": {"enabled": True},
    "pod_security": {"enabled": True},
    "kubelet": {"enabled": True},
    "control_plane": True,
    "encryption_at_rest": True,
}


def hardened(**changes: Any) -> Cluster:
    return cluster_of(("te1", "te2"), hardening={**ALL, **changes})


def at(version: str, **changes: Any) -> Cluster:
    kubernetes = hardened().kubernetes.model_copy(update={"version": version})
    return hardened(**changes).model_copy(update={"kubernetes": kubernetes})


def test_a_cluster_that_declares_nothing_is_made_as_before() -> None:
    plain = cluster_of(("te1", "te2"))
    config = init_documents(plain, plain.hosts[0])
    assert not {"extraArgs", "extraVolumes"} & set(config[1].get("apiServer") or {})
    assert "scheduler" not in config[1]
    assert "tlsCipherSuites" not in config[2]
    assert files_of(plain) == []


@pytest.mark.parametrize("version", ["1.20.2", "1.30.14", "1.31.7", "1.36.2"])
def test_each_kubeadm_gets_the_flags_in_its_own_form_beside_what_it_had(version: str) -> None:
    cluster = at(version)
    _, config, kubelet, *_ = init_documents(cluster, cluster.hosts[0])

    def args(section: str) -> dict[str, str]:
        given = config[section]["extraArgs"]
        assert isinstance(given, list) == (cluster.kubernetes.minor >= (1, 31))
        return given if isinstance(given, dict) else {one["name"]: one["value"] for one in given}

    apiserver = args("apiServer")
    assert apiserver["encryption-provider-config"] == ENCRYPTION
    assert (apiserver["audit-log-maxage"], apiserver["profiling"]) == ("30", "false")
    assert args("controllerManager") == {"node-cidr-mask-size": "24", "profiling": "false"}
    assert args("scheduler") == {"profiling": "false"}
    assert [one["pathType"] for one in config["apiServer"]["extraVolumes"]] == ["Directory", "DirectoryOrCreate"]
    assert (kubelet["protectKernelDefaults"], kubelet["tlsMinVersion"]) == (True, "VersionTLS12")
    assert len(kubelet["tlsCipherSuites"]) == 4


def test_what_hardening_adds_is_not_called_an_edit_of_somebodys() -> None:
    cluster = hardened()
    wanted = static_pod_args(cluster, cluster.hosts[0])
    assert "audit-log-path" not in wanted["kube-apiserver"]
    assert wanted["kube-controller-manager"]["node-cidr-mask-size"] == "24"


def test_files_come_before_the_api_server_is_started_for_the_first_time() -> None:
    cluster = hardened()
    names = [step.name for step in control_plane.steps(cluster, cluster.hosts[0], DEBIAN)]
    first = names.index("the control plane is initialised")
    for name in ("the audit policy is as declared", "the key of encryption at rest is there"):
        assert names.index(name) < first
    assert names.index("the folder of hardening is root's alone") < names.index("the audit policy is as declared")


def test_the_kernel_is_set_before_a_kubelet_that_asks_for_it_and_only_then() -> None:
    cluster = hardened()
    steps = prepare_system.steps(cluster, cluster.hosts[1], DEBIAN)
    assert "the kernel runs with the kubelet's settings" in [step.name for step in steps]
    assert kernel(cluster) == KERNEL
    assert not kernel(hardened(kubelet={"enabled": True, "protect_kernel_defaults": False}))
    assert len({id_of(step) for step in steps}) == len(steps)


def test_a_drift_pass_looks_at_each_part_and_at_nothing_where_nothing_is_declared() -> None:
    def names(cluster: Cluster) -> list[str]:
        run = Run(cluster, "drift")
        parts: list[Any] = [part for host in cluster.hosts for part in host_parts(run, host)]
        steps = [(part.host, step) for part in (*parts, *cluster_parts(run)) for step in part.steps]
        ids = {(host, id_of(step), step.name) for host, step in steps}
        assert len(ids) == len({(host, known) for host, known, _ in ids})
        return [f"{host} {known}" for host, known, _ in ids]

    found = set(names(hardened())) - set(names(cluster_of(("te1", "te2"))))
    assert found >= {
        "te1 ManifestHardened kube-apiserver",
        "te1 ManifestHardened kube-scheduler",
        "te1 SecretsSealed",
        "te1 EncryptionKeyThere",
        "te1 ModesNarrow",
        "te2 ModesNarrow",
        "te2 FileIs /etc/sysctl.d/90-shipway-kubelet.conf",
        "cluster HardeningRemembered",
    }
    assert not any("te2 Manifest" in name for name in found)


def test_pod_security_leaves_out_what_the_cluster_itself_runs(tmp_path: Path) -> None:
    cluster = hardened(pod_security={"enabled": True, "exempt_namespaces": ["monitoring"]})
    assert exempt_namespaces(cluster) == {
        *("kube-system", "calico-system", "tigera-operator", "calico-apiserver", "shipway-verify", "monitoring"),
    }
    own = tmp_path / "network.yaml"
    own.write_text(
        "kind: Namespace\nmetadata: {name: cni}\n---\nkind: DaemonSet\nmetadata: {name: a, namespace: net}\n"
    )
    network = cluster.network.model_copy(update={"provider": "manifests", "manifests": (str(own),)})
    assert exempt_namespaces(cluster.model_copy(update={"network": network})) >= {"cni", "net"}
    (plugin,) = yaml.safe_load(admission(cluster))["plugins"]
    config = plugin["configuration"]
    assert config["apiVersion"] == "pod-security.admission.config.k8s.io/v1"
    assert (config["defaults"]["enforce"], config["defaults"]["warn"]) == ("baseline", "restricted")
    assert "shipway-verify" in config["exemptions"]["namespaces"]
    assert "config.k8s.io/v1beta1" in admission(at("1.24.17"))


def test_our_audit_policy_never_writes_the_content_of_secrets() -> None:
    rules = yaml.safe_load(OWN_POLICY.read_text())["rules"]
    (first,) = [
        rule for rule in rules if any("secrets" in one.get("resources", ()) for one in rule.get("resources", ()))
    ]
    assert first["level"] == "Metadata"
    wider = [rule for rule in rules if rule["level"] in ("Request", "RequestResponse")]
    assert all(rules.index(first) < rules.index(rule) for rule in wider)
    assert all("secrets" not in str(rule) for rule in wider)


def test_a_policy_of_ones_own_is_used_and_one_that_is_none_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "policy.yaml"
    own.write_text("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n")
    assert audit_policy(hardened(audit={"enabled": True, "policy": str(own)})) == own.read_text()
    for text in ("kind: ConfigMap\n", "kind: Policy\n", "a: [\n"):
        own.write_text(text)
        with pytest.raises(Refused) as caught:
            audit_policy(hardened(audit={"enabled": True, "policy": str(own)}))
        assert caught.value.code == "SHW-803"


def refused(text: str) -> str:
    with pytest.raises(Refused) as caught:
        parse_cluster(f"name: te\nhosts: [192.0.2.1]\n{text}")
    return caught.value.message


def test_a_kubernetes_without_pod_security_is_refused_when_the_file_is_read() -> None:
    said = refused("profile: seed\nkubernetes: {version: 1.22.17}\nhardening: {pod_security: {enabled: true}}\n")
    assert "hardening.pod_security.enabled" in said
    assert "needs Kubernetes 1.23 or later" in said


def test_all_faults_of_the_section_are_named_at_once(tmp_path: Path) -> None:
    said = refused(
        "kubernetes: {kubelet: {readOnlyPort: 10255, authentication: {anonymous: {enabled: true}}}}\n"
        "hardening:\n  kubelet: {enabled: true, tls_cipher_suites: [rc4]}\n  audit: {max_age_days: 0}\n"
        "  encryption: true\n"
    )
    for part in ("tls_cipher_suites", "max_age_days", "hardening.encryption"):
        assert part in said
    said = refused(
        "kubernetes: {kubelet: {readOnlyPort: 10255, authentication: {anonymous: {enabled: true}}}}\n"
        "hardening: {kubelet: {enabled: true}}\n"
    )
    assert "kubernetes.kubelet.readOnlyPort" in said
    assert "kubernetes.kubelet.authentication.anonymous.enabled" in said
    missing = f"hardening: {{audit: {{enabled: true, policy: {tmp_path / 'none.yaml'}}}}}\n"
    with pytest.raises(Refused, match=r"hardening\.audit\.policy"):
        parse_cluster(f"name: te\nhosts: [192.0.2.1]\n{missing}", files=True)


@pytest.mark.parametrize("listed", [True, False])
def test_kubeadms_record_gets_what_is_ours_and_keeps_what_is_others(listed: bool) -> None:  # noqa: FBT001 - a form
    foreign = {"oidc-issuer-url": "https://id.example.com", "audit-webhook-config-file": "/site.yaml"}
    args: Any = [{"name": k, "value": v} for k, v in foreign.items()] if listed else foreign
    volume = {"name": "site", "hostPath": "/site", "mountPath": "/site"}
    config: dict[str, Any] = {"apiServer": {"extraArgs": args, "extraVolumes": [volume], "certSANs": ["a"]}}
    changes = HardeningRemembered(hardened()).changes(config)
    made = changes["apiServer"]["extraArgs"]
    given = {one["name"]: one["value"] for one in made} if listed else made
    assert given.items() >= foreign.items()
    assert given["encryption-provider-config"] == ENCRYPTION
    assert changes["apiServer"]["extraVolumes"][0] == volume
    assert [one["hostPath"] for one in changes["apiServer"]["extraVolumes"]][1] == FOLDER
    after = {name: {**config.get(name, {}), **section} for name, section in changes.items()}
    assert HardeningRemembered(hardened()).changes(after) == {}
    off = HardeningRemembered(cluster_of(("te1", "te2"))).changes(after)
    left = off["apiServer"]["extraArgs"]
    assert ({one["name"]: one["value"] for one in left} if listed else left) == foreign
    assert off["apiServer"]["extraVolumes"] == [volume]
    assert off["scheduler"] == {}
