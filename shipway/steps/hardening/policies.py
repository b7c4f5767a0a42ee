"""The files that hardening gives the API server to read, but for the key: audit policy, and defaults of PodSecurity."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from shipway.cluster.model import Cluster
from shipway.errors import Refused
from shipway.foreign.errors import describe_error
from shipway.foreign.yaml import read_all, read_yaml, write_yaml
from shipway.gpu.chosen import VENDOR
from shipway.gpu.pods import NAMESPACE
from shipway.kube.manifests import TEMPLATES

OWN_POLICY = TEMPLATES / "hardening" / "audit-policy.yaml"
CALICO = ("calico-apiserver", "calico-system", "tigera-operator")
# The configuration's version by the first Kubernetes minor that reads it (kubernetes.io, "Enforce Pod Security
# Standards by Configuring the Built-in Admission Controller"): v1 from 1.25 on.
_FIRST_V1 = (1, 25)


def audit_policy(cluster: Cluster) -> str:
    """Return the audit policy's text: the one named in the cluster file, else ours. Raises Refused SHW-803."""
    given = cluster.hardening.audit.policy
    path = Path(given).expanduser() if given else OWN_POLICY
    try:
        text = path.read_text(encoding="utf-8")
        found = read_yaml(text)
    except (OSError, ValueError) as error:
        why = describe_error(error) if isinstance(error, OSError) else "it is not YAML"
        raise Refused(f"hardening.audit.policy: {path} cannot be read: {why}", code="SHW-803", fix=_FIX) from error
    if not isinstance(found, dict) or found.get("kind") != "Policy" or not found.get("rules"):
        raise Refused(f"hardening.audit.policy: {path} is no audit policy with rules", code="SHW-803", fix=_FIX)
    return text


_FIX = "Name a file with `apiVersion: audit.k8s.io/v1`, `kind: Policy` and rules, or leave the key out: ours is used."


def admission(cluster: Cluster) -> str:
    """Return the API server's AdmissionConfiguration: defaults of PodSecurity, and which namespaces it leaves out."""
    wanted = cluster.hardening.pod_security
    levels: dict[str, Any] = {}
    for mode in ("enforce", "warn", "audit"):
        levels |= {mode: getattr(wanted, mode), f"{mode}-version": "latest"}
    version = "v1" if cluster.kubernetes.minor >= _FIRST_V1 else "v1beta1"
    exempt = sorted(exempt_namespaces(cluster))
    configuration = {
        "apiVersion": f"pod-security.admission.config.k8s.io/{version}",
        "kind": "PodSecurityConfiguration",
        "defaults": levels,
        "exemptions": {"usernames": [], "runtimeClasses": [], "namespaces": exempt},
    }
    plugins = [{"name": "PodSecurity", "configuration": configuration}]
    kind = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration"}
    return write_yaml({**kind, "plugins": plugins})


def exempt_namespaces(cluster: Cluster) -> set[str]:
    """Return the namespaces whose pods are parts of the cluster itself, and those that the cluster file names."""
    own = {"kube-system", VENDOR.plugin.namespace, NAMESPACE, *cluster.hardening.pod_security.exempt_namespaces}
    network = cluster.network
    if network.provider == "calico":
        return own | set(CALICO)
    return own | {name for path in network.manifests for name in _namespaces(Path(path).expanduser())}


def _namespaces(path: Path) -> Iterator[str]:
    """Yield the namespaces that a manifest of the pod network makes, or runs its pods in."""
    try:
        documents = read_all(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError):
        return  # the stage of the pod network says what is wrong with it
    for one in documents:
        meta = one.get("metadata") if isinstance(one, dict) else None
        if not isinstance(meta, dict):
            continue
        name = meta.get("name") if one.get("kind") == "Namespace" else meta.get("namespace")
        if isinstance(name, str):
            yield name
