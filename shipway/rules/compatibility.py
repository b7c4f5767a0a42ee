"""What fits together, as data: versions, their ends of life and tested ranges, and what each version asks for.

Every table names its source; nothing here is a guess. Dates are the projects' own; `(tentative)` ones are said so.
"""

from __future__ import annotations

import re
from datetime import date

Minor = tuple[int, int]
Triple = tuple[int, int, int]

# kubeadm's configuration and CRI differ too much before 1.20; 1.37 is the newest release known here (2026-09-15).
OLDEST_KUBERNETES: Minor = (1, 20)
NEWEST_KUBERNETES: Minor = (1, 37)

# GPUs by CDI: the kubelet's CDIDevices by default (DevicePluginCDIDevices, beta in 1.29), containerd's CDI by default
# (2.0), the toolkit's nvidia-cdi-hook and the plugin's setting for its path (CHANGELOG of each, 1.16 and 0.16).
CDI_KUBERNETES: Minor = (1, 29)
CDI_CONTAINERD: Minor = (2, 0)
CDI_TOOLKIT: Minor = (1, 16)
CDI_PLUGIN: Minor = (0, 16)

# GPUs by claims: resource.k8s.io/v1 came with 1.34; NVIDIA's driver of claims asks for a later patch, and for a driver
# of GPUs of this branch (dra-driver-nvidia-gpu 0.4.1, docs/prerequisites.md).
CLAIMS_KUBERNETES: Triple = (1, 34, 2)
CLAIMS_DRIVER = 565

# kubernetes/website data/releases/eol.yaml up to 1.31; kubernetes.io/releases for the later ones.
KUBERNETES_END: dict[Minor, date] = {
    (1, 20): date(2022, 2, 28),
    (1, 21): date(2022, 6, 28),
    (1, 22): date(2022, 12, 8),
    (1, 23): date(2023, 2, 28),
    (1, 24): date(2023, 7, 28),
    (1, 25): date(2023, 10, 28),
    (1, 26): date(2024, 2, 28),
    (1, 27): date(2024, 7, 16),
    (1, 28): date(2024, 10, 22),
    (1, 29): date(2025, 2, 28),
    (1, 30): date(2025, 7, 15),
    (1, 31): date(2025, 11, 11),
    (1, 32): date(2026, 2, 28),
    (1, 33): date(2026, 6, 28),
    (1, 34): date(2026, 10, 27),
    (1, 35): date(2027, 2, 28),
    (1, 36): date(2027, 6, 28),
}
# The last patch of releases that get no more: kubernetes/website data/releases/eol.yaml.
LAST_PATCH: dict[Minor, int] = {
    (1, 20): 15,
    (1, 21): 14,
    (1, 22): 17,
    (1, 23): 17,
    (1, 24): 17,
    (1, 25): 16,
    (1, 26): 15,
    (1, 27): 16,
    (1, 28): 15,
    (1, 29): 14,
    (1, 30): 14,
    (1, 31): 14,
}
# Kubernetes minors each Calico release is tested on: tigera/docs requirements pages (3.26, 3.29, 3.31 to 3.33).
CALICO_TESTED: dict[Minor, tuple[Minor, Minor]] = {
    (3, 26): ((1, 24), (1, 28)),
    (3, 29): ((1, 29), (1, 32)),
    (3, 31): ((1, 32), (1, 35)),
    (3, 32): ((1, 34), (1, 36)),
    (3, 33): ((1, 35), (1, 37)),
}
# Calico's project maintains its last two lines: 3.32 and 3.31 in September 2026 (docs.tigera.io, release notes).
CALICO_OLDEST_MAINTAINED: Minor = (3, 31)
# From 3.30 on the operator's CRDs are a file of their own, applied first (tigera/docs#1834).
CALICO_SEPARATE_CRDS: Minor = (3, 30)
# containerd RELEASES.md, read at its commit of 2026-08-22; what 1.7 and 2.0 get beyond is for one vendor's use.
CONTAINERD_END: dict[Minor, date] = {
    (1, 5): date(2023, 2, 28),
    (1, 6): date(2025, 8, 23),
    (1, 7): date(2026, 3, 10),
    (2, 0): date(2025, 11, 7),
    (2, 1): date(2026, 7, 3),
    (2, 2): date(2026, 11, 6),
    (2, 3): date(2028, 4, 30),
}
# containerd RELEASES.md, "Kubernetes Support": the lowest patch of each containerd minor recommended for a Kubernetes.
CONTAINERD_FOR: dict[Minor, dict[Minor, int]] = {
    (1, 30): {(1, 6): 28, (1, 7): 13},
    (1, 31): {(1, 6): 34, (1, 7): 20},
    (1, 32): {(1, 6): 36, (1, 7): 24, (2, 0): 1},
    (1, 33): {(1, 6): 36, (1, 7): 24, (2, 0): 4},
    (1, 34): {(1, 6): 39, (1, 7): 28, (2, 0): 6, (2, 1): 3},
    (1, 35): {(1, 7): 28, (2, 1): 5},
}
# The kubelet speaks CRI v1 since 1.23 and nothing else since 1.26; containerd has v1 from 1.6 on, only that in 2.x
# (containerd RELEASES.md, "Kubernetes Support").
CRI_V1_SPOKEN: Minor = (1, 23)
CRI_V1_REQUIRED: Minor = (1, 26)
# Kubernetes 1.34 deprecates containerd 1.x, kubeadm warns from 1.35 (kubeadm#3229, kubernetes#135923).
CONTAINERD_1_DEPRECATED: Minor = (1, 34)
# 1.18.0 writes its drop-in where stock containerd does not look (nvidia-container-toolkit#1404, fixed in 1.18.1).
TOOLKIT_FORBIDDEN: dict[Triple, str] = {(1, 18, 0): "it writes a drop-in that containerd does not load (toolkit#1404)"}
TOOLKIT_SOUND: Triple = (1, 18, 1)
# 0.18.0 made a missing driver fatal in the static manifest (k8s-device-plugin CHANGELOG): only GPU nodes may run it.
PLUGIN_NEEDS_SELECTOR: Minor = (0, 18)
PLUGIN_SOUND: Triple = (0, 17, 4)
# The kubelet refuses cgroup v1 by default from 1.35 (kubernetes#134298).
CGROUP_V2_ONLY: Minor = (1, 35)
# kubernetes/dashboard was archived on this day (kubernetes/website#54042).
DASHBOARD_ARCHIVED = date(2026, 1, 21)
# The kubelet's default for maxPods (KubeletConfiguration v1beta1).
MAX_PODS = 110
# kube-controller-manager refuses a node mask more than 16 bits below the cluster's (nodeipam, clusterSubnetMaxDiff).
NODE_MASK_SPREAD = 16
# kube-apiserver wants a service network from /12 down to 8 addresses (its options' validation).
SERVICE_PREFIXES = (12, 29)


def triple(version: str) -> Triple:
    """Return (1, 31, 7) of 1.31.7 or 1.31.7-1.1; absent parts are 0; raises ValueError without digits."""
    found = re.match(r"(?:[0-9]+:)?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?", version)
    if found is None:
        message = f"{version!r} is not a version"
        raise ValueError(message)
    return int(found[1]), int(found[2] or 0), int(found[3] or 0)


def minor_of(version: str) -> Minor:
    """Return (1, 31) of 1.31.7; raises ValueError."""
    return triple(version)[:2]


def containerd_config_version(version: str) -> int:
    """Return the layout of config.toml: 2 for containerd 1.x, 3 for 2.0 to 2.2, 4 from 2.3 on; raises ValueError."""
    minor = minor_of(version)
    if minor < (2, 0):
        return 2
    return 3 if minor < (2, 3) else 4


def kubeadm_api(minor: Minor) -> str:
    """Return kubeadm's configuration API: v1beta2 up to 1.21, v1beta3 from 1.22, v1beta4 from 1.31."""
    if minor >= (1, 31):
        return "v1beta4"
    return "v1beta3" if minor >= (1, 22) else "v1beta2"


def control_plane_taints(minor: Minor) -> tuple[str, ...]:
    """Return what kubeadm taints a control plane with: `master` before 1.24, both in 1.24, `control-plane` since."""
    old, new = "node-role.kubernetes.io/master", "node-role.kubernetes.io/control-plane"
    if minor < (1, 24):
        return (old,)
    return (old, new) if minor < (1, 25) else (new,)


def control_plane_labels(minor: Minor) -> tuple[str, ...]:
    """Return the labels kubeadm puts on a control plane: both names before 1.24, only `control-plane` since."""
    old, new = "node-role.kubernetes.io/master", "node-role.kubernetes.io/control-plane"
    return (new, old) if minor < (1, 24) else (new,)


def calico_manifests(version: str) -> tuple[str, ...]:
    """Return the names under `sources.manifests` that a Calico version is installed from, in their order."""
    if minor_of(version) >= CALICO_SEPARATE_CRDS:
        return ("operator_crds", "tigera_operator")
    return ("tigera_operator",)


def plugin_needs_gpu_selector(version: str) -> bool:
    """Tell whether this device plugin must be kept off nodes without a GPU (it ends with an error there)."""
    return minor_of(version) >= PLUGIN_NEEDS_SELECTOR


def needs_cgroup_v2(minor: Minor) -> bool:
    """Tell whether the kubelet of this minor refuses cgroup v1 unless it is configured otherwise."""
    return minor >= CGROUP_V2_ONLY
