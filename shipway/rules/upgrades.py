"""Which upgrades are safe: one minor at a time, etcd's floors, how far kubelets may lag, what a minor took away."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from shipway.rules.compatibility import LAST_PATCH, Minor, Triple, minor_of, triple

# The version that every RUNNING member of etcd must have before the minor that brings etcd's next minor:
# 3.5 to 3.6 (etcd blog of 2025-12-17: members that were removed come back), 3.6 to 3.7 (etcd's upgrade_3_7.md).
ETCD_FLOORS: Mapping[Minor, Triple] = {(1, 34): (3, 5, 26), (1, 37): (3, 6, 11)}
# Feature gates that kubeadm of that minor refuses to read (kubernetes#135773, kubernetes#138645, kubernetes#136016).
REMOVED_GATES: Mapping[Minor, tuple[str, ...]] = {
    (1, 36): ("ControlPlaneKubeletLocalMode",),
    (1, 37): ("NodeLocalCRISocket", "PublicKeysECDSA"),
}
# Flags with which a kubelet of that minor does not start (CHANGELOG-1.24: dockershim's; CHANGELOG-1.27). Those that
# kubeadm itself once wrote it takes out by itself; these are about what people added. Those of 1.37 are cAdvisor's,
# which the kubelet had by mistake (kubernetes#57613, kubernetes#139870).
REMOVED_FLAGS: Mapping[Minor, tuple[str, ...]] = {
    (1, 24): (
        "network-plugin",
        "network-plugin-mtu",
        "cni-bin-dir",
        "cni-cache-dir",
        "cni-conf-dir",
        "docker-endpoint",
    ),
    (1, 27): ("container-runtime", "master-service-namespace"),
    (1, 37): (
        *("application-metrics-count-limit", "boot-id-file", "container-hints", "containerd", "containerd-namespace"),
        *("enable-load-reader", "event-storage-age-limit", "event-storage-event-limit", "global-housekeeping-interval"),
        *("log-cadvisor-usage", "machine-id-file", "storage-driver-buffer-duration", "storage-driver-db"),
        *("storage-driver-host", "storage-driver-password", "storage-driver-secure", "storage-driver-table"),
        "storage-driver-user",
    ),
}
KUBEADM_LEAVES: Minor = (1, 37)  # from this minor on kubeadm takes none of them out of its own kubeadm-flags.env
# API versions of which no object may be left when that minor comes: it cannot read them (CHANGELOG-1.37).
REMOVED_OBJECTS: Mapping[Minor, tuple[str, ...]] = {(1, 37): ("scheduling.k8s.io/v1alpha2",)}
EXPERIMENTAL_GONE: Minor = (1, 37)  # its etcd 3.7 starts with no flag --experimental-* (etcd's upgrade_3_7.md)
V1BETA3_GONE: Minor = (1, 37)  # kubeadm's configuration API v1beta3 is unreadable from here on (kubernetes#136016)
_VERSION = re.compile(r"\d{1,4}\.\d{1,4}\.\d{1,5}")
LONG_LAG: Minor = (1, 28)  # kubelets may be three minors behind their API server from here on, two before (skew policy)


def why_not(have: str, wanted: str) -> tuple[str, str]:
    """Return code and reason why a cluster may not go from one version to another; empty texts where it may."""
    if triple(wanted) < triple(have):
        return "SHW-781", f"the cluster runs v{have}, and v{wanted} is older: Kubernetes knows no way back"
    if minor_of(wanted) > (1, minor_of(have)[1] + 1):
        return "SHW-780", f"the cluster runs v{have}, and v{wanted} is more than one minor ahead"
    return "", ""


def next_minor(have: str) -> str:
    """Return 1.31 for a cluster of 1.30.2."""
    return f"1.{minor_of(have)[1] + 1}"


def etcd_floor(have: str, wanted: str) -> Triple | None:
    """Return the least version of every member of etcd for this upgrade; None where it keeps etcd's minor."""
    before, after = minor_of(have), minor_of(wanted)
    return next((floor for minor, floor in ETCD_FLOORS.items() if before < minor <= after), None)


def may_lag(wanted: str) -> int:
    """Return by how many minors a kubelet may be behind an API server of this version."""
    return 3 if minor_of(wanted) >= LONG_LAG else 2


def taken_away(table: Mapping[Minor, tuple[str, ...]], wanted: str) -> dict[str, Minor]:
    """Return what a version no longer knows of one of the tables above, with the minor that took it away."""
    return {name: minor for minor, names in table.items() if minor <= minor_of(wanted) for name in names}


def newest_patch(have: str, offered: Collection[str] = ()) -> str:
    """Return the newest patch that is known of the minor that runs, where that is an older one; "" otherwise.

    Known are the last ones of minors that get no more, and `offered` (1.36.2-1.1), what a package manager offers.
    """
    minor = minor_of(have)
    found = [triple(one[0]) for text in offered if (one := _VERSION.match(text)) and minor_of(one[0]) == minor]
    newest = max([*found, triple(have), (*minor, LAST_PATCH.get(minor, 0))])
    return "" if newest == triple(have) else ".".join(map(str, newest))
