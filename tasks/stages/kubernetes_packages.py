"""Stage 4, every host (S5): kubelet, kubeadm and kubectl in one version, held, the kubelet enabled."""

from __future__ import annotations

from functools import partial

from shipway.cluster.model import Cluster
from shipway.cluster.parts import HostSpec
from shipway.edits.containerd import CONFIG
from shipway.host.session import Host
from shipway.kubeadm.config import CRI_SOCKET
from shipway.os.family import Family
from shipway.step import Check
from shipway.steps.kubernetes.skew import OnlyInItsVersion, permit_same_version
from shipway.steps.runtime.containerd import ContainerdLoaded
from shipway.steps.runtime.crictl import CrictlInstalled, crictl_finds
from shipway.steps.runtime.pause_image import SandboxImageAgrees
from shipway.steps.system.services import ServiceEnabled
from tasks.stages.container_runtime import images

PROGRAMS = ("kubelet", "kubeadm", "kubectl")


def steps(cluster: Cluster, host: HostSpec, family: Family) -> list[Check[Host]]:  # noqa: ARG001 - the same for every host
    """Return the steps of a host, in order."""
    kubernetes = cluster.kubernetes
    packages = dict.fromkeys(PROGRAMS, kubernetes.version)
    may_remove = cluster.system.may_remove
    permit = partial(permit_same_version, wanted=kubernetes.version)
    in_version = f"kubelet, kubeadm and kubectl are {kubernetes.version}"
    return [
        OnlyInItsVersion(family.repository("kubernetes", cluster), kubernetes.version),
        family.installed("kubelet, kubeadm and kubectl are installed", packages, may_remove, permit=permit),
        family.in_version(in_version, packages, may_remove, permit=permit),
        family.held(PROGRAMS),
        CrictlInstalled(family),
        crictl_finds(CRI_SOCKET),
        ServiceEnabled("kubelet"),
        # containerd was configured before kubeadm could be asked: what it says counts.
        SandboxImageAgrees(images(cluster)),
        ContainerdLoaded("containerd", (CONFIG,)),
    ]
