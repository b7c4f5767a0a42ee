"""Solver rules about hardening: what a Kubernetes version does not have, and what the file says twice."""

from __future__ import annotations

from collections.abc import Iterator

from shipway.cluster.faults import Fault
from shipway.cluster.model import Cluster

SECTION = "hardening"
# PodSecurity admission is there from 1.22 on, and on without a feature gate from 1.23 (kubernetes.io, "Pod Security
# Admission"); PodSecurityPolicy, which was before it, is gone since 1.25.
FIRST_WITH_POD_SECURITY = (1, 23)
# Fields that hardening.kubelet declares, and what it declares where the cluster file cannot choose.
_KUBELET = {
    "readOnlyPort": 0,
    "rotateCertificates": True,
    "protectKernelDefaults": None,
    "tlsCipherSuites": None,
    "tlsMinVersion": None,
}


def pod_security(cluster: Cluster) -> Iterator[Fault]:
    """An older Kubernetes has no such admission, and its API server would not start with a configuration for it."""
    minor = cluster.kubernetes.minor
    if cluster.hardening.pod_security.enabled and minor < FIRST_WITH_POD_SECURITY:
        message = (
            f"needs Kubernetes 1.23 or later: {cluster.kubernetes.version} has no PodSecurity admission. Leave it off, "
            "and keep unsafe pods away by another admission until the cluster is upgraded"
        )
        yield Fault((SECTION, "pod_security", "enabled"), message, (("kubernetes", "version"),))


def kubelet(cluster: Cluster) -> Iterator[Fault]:
    """Two places that say different things of one field: nobody can tell which was meant."""
    if not cluster.hardening.kubelet.enabled:
        return
    own, place = cluster.kubernetes.kubelet, ("kubernetes", "kubelet")
    for key, value in _KUBELET.items():
        if key in own and own[key] != value:
            message = "is declared by hardening.kubelet as well: say it in one place"
            yield Fault((*place, key), message, ((SECTION, "kubelet", "enabled"),))
    authentication = own.get("authentication")
    anonymous = authentication.get("anonymous") if isinstance(authentication, dict) else None
    if isinstance(anonymous, dict) and anonymous.get("enabled") is True:
        message = "is on, and hardening.kubelet asks that it is off"
        yield Fault((*place, "authentication", "anonymous", "enabled"), message, ((SECTION, "kubelet", "enabled"),))
